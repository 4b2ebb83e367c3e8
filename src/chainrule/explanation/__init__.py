"""Explanations: any number of a training step, and where it came from."""

from chainrule.explanation.explaining import explain
from chainrule.explanation.explanation import Explanation, LossChange, Parameter
from chainrule.explanation.graph import Node
from chainrule.explanation.updates import Update
from chainrule.explanation.why import Why

__all__ = ["Explanation", "LossChange", "Node", "Parameter", "Update", "Why", "explain"]
