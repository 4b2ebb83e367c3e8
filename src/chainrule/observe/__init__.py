"""A compiled step looked into: every value of one call, of the same arithmetic and so of the same bits."""

from chainrule.observe.observation import Observation, Values, is_observed
from chainrule.observe.observer import Observer, observe_call
from chainrule.observe.witness import Call, Flow, Record

__all__ = ["Call", "Flow", "Observation", "Observer", "Record", "Values", "is_observed", "observe_call"]
