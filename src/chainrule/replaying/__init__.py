"""The time machine: any step of a past run made again to the bit, and what differs between two steps or two runs."""

from chainrule.replaying.course import ReplayWarning
from chainrule.replaying.difference import StepsDifference, diff_steps
from chainrule.replaying.measures import Measures, StepMeasures
from chainrule.replaying.nodes import NodeDifference, RowDifference
from chainrule.replaying.parting import Parting, RunsDifference, diff_runs
from chainrule.replaying.step import Replayed, replay

__all__ = [
    "Measures",
    "NodeDifference",
    "Parting",
    "ReplayWarning",
    "Replayed",
    "RowDifference",
    "RunsDifference",
    "StepMeasures",
    "StepsDifference",
    "diff_runs",
    "diff_steps",
    "replay",
]
