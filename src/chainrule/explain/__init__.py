"""Explanations: any number of a training step, and where it came from."""

from chainrule.explain.explaining import explain
from chainrule.explain.explanation import Explanation, LossChange, Parameter
from chainrule.explain.graph import Node
from chainrule.explain.updates import Update
from chainrule.explain.why import Why

__all__ = ["Explanation", "LossChange", "Node", "Parameter", "Update", "Why", "explain"]
