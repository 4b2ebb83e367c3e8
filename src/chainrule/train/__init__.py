"""Training: `fit` and `resume`, rules for when to stop, metrics, and the files of a run."""

from chainrule.diagnosis import Diagnosis, Report
from chainrule.train import metrics, stop
from chainrule.train.callbacks import Callback
from chainrule.train.diagnosing import diagnose
from chainrule.train.divergence import TrainingDiverged
from chainrule.train.find_lr import LearningRates, find_lr
from chainrule.train.fit import FitResult, evaluate, fit
from chainrule.train.history import History
from chainrule.train.interrupts import Interrupted
from chainrule.train.loop import Training
from chainrule.train.nonfinite import Finding
from chainrule.train.progress import PlainProgress, Progress, SilentProgress, Standing
from chainrule.train.progress_rich import RichProgress
from chainrule.train.resume import load_weights, resume
from chainrule.train.store import Run, list_runs
from chainrule.train.tensorboard import TensorBoard, export_run

__all__ = [
    "Callback",
    "Diagnosis",
    "Finding",
    "FitResult",
    "History",
    "Interrupted",
    "LearningRates",
    "PlainProgress",
    "Progress",
    "Report",
    "RichProgress",
    "Run",
    "SilentProgress",
    "Standing",
    "TensorBoard",
    "Training",
    "TrainingDiverged",
    "diagnose",
    "evaluate",
    "export_run",
    "find_lr",
    "fit",
    "list_runs",
    "load_weights",
    "metrics",
    "resume",
    "stop",
]
