"""Why a network does not learn: what its layers look like in a training step, and what that means."""

from chainrule.diagnosis.diagnosis import Diagnosis, Report
from chainrule.diagnosis.watch import Watch

__all__ = ["Diagnosis", "Report", "Watch"]
