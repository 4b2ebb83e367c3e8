"""`diagnose`: why a model learns badly on its data, found out on copies before, during or after training."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.diagnosis.case import Case, Trial
from chainrule.diagnosis.diagnosis import Report
from chainrule.diagnosis.examine import examine
from chainrule.diagnosis.fitting import learned_nothing
from chainrule.diagnosis.rates import HIGHER, WORTH, too_high
from chainrule.diagnosis.statistics import Statistics
from chainrule.engines import STANDARD
from chainrule.errors import ConfigError
from chainrule.nn import Module
from chainrule.optim import LBFGS, Adam, Optimizer
from chainrule.train.batches import Data, row_order
from chainrule.train.criterion import takes_probabilities
from chainrule.train.experiments import Laboratory, best_constant
from chainrule.train.fit import FitResult
from chainrule.train.loop import Setup
from chainrule.train.settings import Settings
from chainrule.train.setup import make_setup
from chainrule.train.state import Snapshot
from chainrule.train.store import Run

SAMPLE, SAMPLE_OF_LARGE = 256, 64
"""Rows that are looked at: of tables, and of images and sequences, each row of which has many places to look at."""

STEPS = 50
LONGER = 10  # times as many before it is said that nothing is learned
SMALL_PROGRESS = 0.05


def diagnose(
    model: Module, data: Any, *, loss: Any, optimizer: Optimizer | None = None, validation: Any = None,
    batch_size: int = 32, steps: int = STEPS, history: Any = None, class_weight: Any = None, sample_weight: Any = None,
    clip_norm: float | None = None, seed: int = 0, engine: str = "reference", threads: int | None = None,
    precision: str = STANDARD, feature_names: Sequence[str] = (),
) -> Report:  # fmt: skip
    """Why the model learns badly, or will: a Report of diagnoses, each with its cause, evidence and remedy.

    The model may be fresh, half trained, or trained. Its data are looked at; a step is observed, value by value; and
    some `steps` are tried at the learning rate and, where these do not help, at multiples of it. All that happens on
    copies: model, optimiser and generators stay as they are, to the bit.

    data, loss, validation, batch_size, class_weight, sample_weight, clip_norm, seed, threads, precision: as for `fit`
    optimizer      the one to train with; without one nothing is said about the learning rate
    history        what came of training so far: a FitResult, a History (or list of rows), or a run or its folder
    engine         what computes the trial steps; compiling for 'native' pays for large networks only
    feature_names  names of the columns of x, for messages

    Raises what `fit` raises for arguments that cannot work. Every kind of diagnosis, with its thresholds and sources,
    stands in docs/diagnosis.md.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import losses, nn, optim
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> y = (x[:, :1] > 0) * 1.0
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> _ = model.assign({"0.bias": cr.full((8,), -50.0)})
    >>> print(cr.diagnose(model, (x, y), loss=losses.binary_cross_entropy_with_logits, optimizer=optim.Adam())[0])
    error: layer 1 (ReLU): 8 of 8 units are dead
      they are 0, with slope 0, in all 200 rows looked at
      ...
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 10:
        raise ConfigError(f"steps is a whole number of at least 10; got {steps!r}.")
    settings = Settings(
        1, batch_size, seed, True, engine, clip_norm, False, None, class_weight, threads=threads, precision=precision
    )
    rows, keeps_best = _history(history)
    chosen = Adam(lr=1e-3) if optimizer is None else optimizer
    before = Snapshot(Snapshot.objects_of(model, chosen)) if isinstance(model, Module) else None
    try:
        setup = make_setup(
            model, data, loss=loss, optimizer=chosen, validation=validation, sample_weight=sample_weight,
            progress="silent", settings=settings,
        )  # fmt: skip
        model.seed(settings.seed)
        model.train()
        case = _examined(setup, loss, steps, optimizer is not None, rows, keeps_best, feature_names)
    finally:
        if before is not None:
            before.restore()
    return Report(tuple(examine(case)), _facts(case))


def _history(history: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """The rows of past epochs, and whether the weights are those of the best one."""
    if history is None:
        return [], False
    if isinstance(history, FitResult):
        return list(history.history), history.best_epoch < history.epochs and "epochs done" not in history.reason
    if isinstance(history, (str, Path)):
        history = Run.open(history)
    if isinstance(history, Run):
        kept = history.config.get("fit", {}).get("keep_best", False)
        return [row for row in history.history() if "epoch" in row], bool(kept)
    if isinstance(history, list) and all(isinstance(row, dict) for row in history):
        return list(history), False
    raise ConfigError(
        f"history={history!r:.80} is none: give what cr.fit returned, its .history, or the folder of a run."
    )


def _examined(
    setup: Setup, loss: Any, steps: int, given: bool, history: list[Mapping[str, Any]], keeps_best: bool,
    names: Sequence[str],
) -> Case:  # fmt: skip
    """Look, try, measure."""
    data, settings, optimizer = setup.data, setup.settings, setup.optimizer
    lab = Laboratory(setup, row_order(settings.seed, 0, data.rows)[: _sample_size(data)])
    first, prediction = lab.look()
    target = lab.sample.x if lab.sample.y is None else lab.sample.y
    constant = None if prediction is None else best_constant(setup, lab.sample, prediction)
    trials: list[Trial] = []
    normalisers = _normalisers(setup.model, first)
    after, gradients = None, []
    if not isinstance(optimizer, LBFGS):
        trials, after, late = _trials(lab, steps, constant, first)
        normalisers |= {path: found for path, found in late.items() if not _settled(normalisers.get(path))}
        gradients = lab.gradients()
    case = Case(
        x=data.x, y=data.y, rows=lab.rows, feature_names=names,
        x_validation=None if setup.validation is None else setup.validation.x,
        y_validation=None if setup.validation is None else setup.validation.y,
        loss=_name(loss), batch_size=min(settings.batch_size, data.rows), weighted=data.weight is not None,
        before=first, after=after, prediction=prediction, target=target if isinstance(target, np.ndarray) else None,
        constant=constant, rate=_rate(optimizer) if given else None, optimizer=type(optimizer).__name__,
        trials=trials if given else (), noise=lab.noise(gradients), normalisers=normalisers,
        history=history, keeps_best=keeps_best,
    )  # fmt: skip
    measured: dict[str, Any] = {}
    if given and not isinstance(optimizer, LBFGS) and too_high(case):
        better = max(trials[1:], key=lambda t: t.fall)
        measured["curvature"] = lab.curvature(better.factor, steps)
    if learned_nothing(case):
        measured["unseen"] = lab.generalises(LONGER * steps)
        if learned_nothing(Case(**{**vars(case), **measured})):
            measured["one_batch"] = lab.by_heart(case.constant or 0.0)
    lab.back()
    return Case(**{**vars(case), **measured})


def _sample_size(data: Data) -> int:
    table = isinstance(data.x, np.ndarray) and data.x.ndim <= 2 and data.x.dtype.kind == "f"
    return min(data.rows, SAMPLE if table else SAMPLE_OF_LARGE)


def _trials(
    lab: Laboratory, steps: int, constant: float | None, first: Statistics
) -> tuple[list[Trial], Statistics | None, dict[str, Any]]:
    """Steps at the rate given, and at others where these do not help; the network after the first, looked into."""
    own = lab.trial(1.0, steps, stay=True)
    after = lab.look()[0] if own.finite else None
    late = _normalisers(lab.setup.model, after) if after is not None else {}
    lab.back()
    trials = [own]
    unit = constant if constant else own.before
    if _rate(lab.setup.optimizer) is None or first.gradient_norm in (0.0, None):
        return trials, after, late
    if own.fall <= 0:
        trials.append(lab.trial(0.1, steps))
        if trials[-1].fall <= 0:
            trials.append(lab.trial(0.01, steps))
    if own.finite and abs(own.fall) < SMALL_PROGRESS * WORTH * unit and own.before > 0.5 * unit:
        for factor in HIGHER:
            trials.append(lab.trial(factor, steps))
            if not trials[-1].finite or trials[-1].fall >= WORTH * unit:
                break
    return trials, after, late


def _rate(optimizer: Optimizer) -> float | None:
    """The learning rate, where it is a number: a schedule may mean to begin or end low."""
    return None if optimizer.schedules else float(optimizer.lr)


def _name(loss: Any) -> str:
    """The name of a loss; for probabilities, logits or none of these the name tells."""
    inner = loss.func if isinstance(loss, functools.partial) else loss
    name = getattr(inner, "__name__", type(inner).__name__)
    return "binary_cross_entropy" if takes_probabilities(loss) else name


def _normalisers(model: Module, found: Statistics) -> dict[str, Any]:
    """The statistics of each batch normalisation: those of the sample, and the running ones."""
    result: dict[str, Any] = {}
    for layer in found.layers:
        if not layer.layer.startswith("BatchNorm") or layer.input is None:
            continue
        module: Any = model.get_submodule(layer.path) if layer.path else model
        if module.running_mean is None:
            continue
        x = np.asarray(layer.input, np.float64)
        axes = tuple([axis for axis in range(x.ndim) if axis != 1])
        momentum = 0.1 if module.momentum is None else float(module.momentum)
        result[layer.path] = (
            x.mean(axis=axes), x.var(axis=axes), np.asarray(module.running_mean), np.asarray(module.running_var),
            int(module.num_batches_tracked), momentum,
        )  # fmt: skip
    return result


def _settled(found: Any) -> bool:
    """Whether running statistics had the time to settle before the trial."""
    return found is not None and (found[4] * found[5] >= 3 or found[4] >= 100)


def _facts(case: Case) -> dict[str, Any]:
    """What was measured, as JSON values."""
    facts: dict[str, Any] = {"batch_size": case.batch_size}
    if case.before is not None:
        facts |= {"loss": case.before.loss, "gradient_norm": case.before.gradient_norm}
    facts["constant_loss"] = case.constant
    facts["trials"] = [
        {"factor": t.factor, "steps": t.steps, "before": t.before, "after": t.after if t.finite else None}
        for t in case.trials
    ]
    if case.noise is not None:
        facts["noise_scale"] = case.noise.scale
    if case.curvature is not None:
        facts["sharpness"] = case.curvature.sharpness
    return facts
