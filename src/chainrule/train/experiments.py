"""Trial steps from one and the same state: what a diagnosis finds out by experiment."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule import tree
from chainrule.core.autodiff import as_tensor, map_tensors, value_and_grad
from chainrule.core.tensor import Tensor, tensor, wrap
from chainrule.diagnosis.case import Curvature, Noise, Trial
from chainrule.diagnosis.curvature import sharpness
from chainrule.diagnosis.fitting import NOTHING_LEARNED
from chainrule.diagnosis.noise import DROWNED, noise_scale
from chainrule.diagnosis.rates import curvature_limit
from chainrule.diagnosis.statistics import Statistics, statistics
from chainrule.errors import ChainruleError, Diverged
from chainrule.functions.manipulation import broadcast_to
from chainrule.observe import observe_call
from chainrule.optim import LBFGS, Adam, Optimizer
from chainrule.train.batches import Batch, row_order
from chainrule.train.loop import Setup
from chainrule.train.state import Snapshot

BATCHES = 8  # whose gradients are compared
PARTS = 64  # times the sample: rows whose gradient is taken, at most, to hold those of batches against
ALIKE = 0.01  # of the loss of a constant answer to the sample: rows where it makes less want all the same
LOOK_EVERY = 25
BY_HEART, BY_HEART_STEPS = 16, 300  # rows of a batch to be learned by heart, and steps to do it in


class Laboratory:
    """A model, its optimiser and data, with ways to try something and to come back to where they were.

    `rows` are those of the sample on which the loss is measured, `epoch` the number of the order of batches.
    """

    def __init__(self, setup: Setup, rows: np.ndarray) -> None:
        self.setup, self.rows = setup, rows
        self.sample = setup.data.gather(rows, setup.dtype)
        self.start = Snapshot(Snapshot.objects_of(setup.model, setup.optimizer))
        self._order = np.zeros(0, np.int64)
        self._epoch = 0

    def back(self) -> None:
        """To the state at the beginning."""
        self.start.restore()

    # -- looking

    def look(self) -> tuple[Statistics, np.ndarray | None]:
        """A step on the sample from the present state, looked into, and what the model returned (one array, or
        None)."""
        s, b = self.setup, self.sample
        if isinstance(s.optimizer, LBFGS):
            seen = observe_call(s.steps.gradient, s.model, b.x, b.y, b.weight)
        else:
            seen = observe_call(s.steps.training, s.model, s.optimizer, None, b.x, b.y, b.weight, True)
        calls = [call for call in seen.record.calls if call.path == "model"]
        outputs = calls[-1].outputs if calls else ()
        return statistics(seen), seen.value(outputs[0]) if len(outputs) == 1 else None

    def loss(self, batch: Batch | None = None) -> float:
        """The loss on the sample in training mode. Generators and running statistics stay as they are."""
        here = Snapshot(self.start_objects)
        try:
            return self.setup.steps.evaluate(self.setup.model, self.sample if batch is None else batch)[0]
        finally:
            here.restore()

    @property
    def start_objects(self) -> list[tree.Stateful]:
        """Everything that steps change."""
        return [thing for thing, _ in self.start.saved]

    def gradient(self, batch: Batch) -> dict[str, np.ndarray]:
        """That of a batch at the present weights."""
        here = Snapshot(self.start_objects)
        try:
            _, gradients, _, _ = self.setup.steps.gradient(self.setup.model, batch.x, batch.y, batch.weight)
        finally:
            here.restore()
        return {name: np.asarray(g, np.float64) for name, g in gradients.items() if g is not None}

    # -- trying

    def batches(self, count: int, without: np.ndarray | None = None) -> list[Batch]:
        """The first batches of an order by chance, the same ones each time; some rows may be left out."""
        s = self.setup
        left = np.arange(s.data.rows) if without is None else np.setdiff1d(np.arange(s.data.rows), without)
        size, epoch = min(s.settings.batch_size, len(left)), 0
        found: list[np.ndarray] = []
        whole = len(left) // size
        while len(found) < count:
            epoch += 1
            order = left[row_order(s.settings.seed, epoch, len(left))]
            found += [order[i * size : (i + 1) * size] for i in range(min(whole, count - len(found)))]
        return [s.data.gather(rows, s.dtype) for rows in found]

    def generalises(self, steps: int) -> tuple[float, float] | None:
        """The lowest loss on rows that were left out of so many steps, and that of the best constant answer to them."""
        s = self.setup
        rows = self.rows[: max(1, s.data.rows // 4)]
        unseen = s.data.gather(rows, s.dtype)
        self.back()
        prediction = self.predicted(unseen)
        constant = None if prediction is None else best_constant(s, unseen, prediction)
        if constant is None or s.data.rows < 8:
            return None
        lowest = math.inf
        for i, batch in enumerate(self.batches(steps, without=rows)):
            if not s.steps.train(s.model, s.optimizer, None, batch).finite:
                break
            if i % LOOK_EVERY == LOOK_EVERY - 1:
                lowest = min(lowest, self.loss(unseen))
                if lowest < NOTHING_LEARNED * constant:
                    break
        self.back()
        return lowest, constant

    def trial(self, factor: float, steps: int, stay: bool = False) -> Trial:
        """Steps from the beginning at a multiple of the learning rate; the state is that of the beginning again, unless
        it is to `stay`."""
        s = self.setup
        self.back()
        before = self.loss()
        scale_rates(s.optimizer, factor)
        finite = True
        for batch in self.batches(steps):
            good = Snapshot(self.start_objects)
            try:
                outcome = s.steps.train(s.model, s.optimizer, None, batch)
            except Diverged:
                finite = False
            else:
                finite = outcome.finite
            if not finite:
                good.restore()
                break
        after = self.loss() if finite else math.inf
        if not stay:
            self.back()
        return Trial(factor, steps, before, after, finite and math.isfinite(after))

    def by_heart(self, whole: float) -> tuple[float, float] | None:
        """The loss that a small batch can be brought to by Adam, and that of its best constant answer. None where all
        batches have nearly the same target in each row: where the best constant answer to the sample has the loss
        `whole`, that to such a batch has none worth speaking of."""
        s = self.setup
        batch, constant = self._telling(whole)
        if batch is None:
            return None
        lowest = math.inf
        for rate in (1e-2, 1e-3):
            self.back()
            optimizer = Adam(lr=rate).init(s.model)
            for _ in range(BY_HEART_STEPS):
                outcome = s.steps.train(s.model, optimizer, None, batch)
                if not outcome.finite:
                    break
                lowest = min(lowest, outcome.loss)
                if lowest < 0.25 * constant:
                    break
            if lowest < 0.25 * constant:
                break
        self.back()
        return (lowest, constant) if math.isfinite(lowest) else None

    def _telling(self, whole: float) -> tuple[Batch | None, float]:
        """A small batch whose rows want different answers, and the loss of the best constant one."""
        s = self.setup
        self.back()
        for first in range(0, max(1, len(self.rows) - BY_HEART + 1), BY_HEART):
            batch = s.data.gather(self.rows[first : first + BY_HEART], s.dtype)
            prediction = self.predicted(batch)
            constant = None if prediction is None else best_constant(s, batch, prediction)
            if constant is not None and constant > ALIKE * whole:
                return batch, constant
        return None, 0.0

    def predicted(self, batch: Batch) -> np.ndarray | None:
        """What the model returns for a batch; None for more than one array."""
        here = Snapshot(self.start_objects)
        try:
            x, y, weight = map_tensors(as_tensor, [batch.x, batch.y, batch.weight])
            prediction = self.setup.steps.objective(self.setup.model, x, y, weight)[1]
        finally:
            here.restore()
        return np.asarray(prediction) if isinstance(prediction, Tensor) else None

    # -- measuring

    def noise(self, gradients: list[dict[str, np.ndarray]]) -> Noise | None:
        """The gradient noise scale, from gradients of batches."""
        data, size = self.setup.data, min(self.setup.settings.batch_size, self.setup.data.rows)
        flat = [_flat(one) for one in gradients if one]
        rows = min(data.rows // len(self.rows), PARTS) * len(self.rows)
        if not flat or rows <= DROWNED * size:
            return noise_scale(flat, size)
        order = row_order(self.setup.settings.seed, 0, data.rows)[:rows].reshape(-1, len(self.rows))
        whole = np.mean([_flat(self.gradient(data.gather(part, self.setup.dtype))) for part in order], axis=0)
        return noise_scale(flat, size, whole, rows)

    def gradients(self) -> list[dict[str, np.ndarray]]:
        """Those of some batches at the beginning."""
        self.back()
        whole = self.setup.data.rows // min(self.setup.settings.batch_size, self.setup.data.rows)
        return [self.gradient(batch) for batch in self.batches(min(BATCHES, whole))]

    def curvature(self, factor: float, steps: int) -> Curvature | None:
        """The largest eigenvalue of the Hessian on the sample: at the beginning; or for Adam and its like, which scale
        it by what they have seen, after steps at a multiple of the rate. None for optimisers of another kind."""
        s, kind = self.setup, type(self.setup.optimizer).__name__
        settings = {k: v for k, v in s.optimizer.settings.items() if isinstance(v, float)}
        settings["beta1"] = s.optimizer.settings.get("betas", (0.9,))[0]
        limit = curvature_limit(kind, settings)
        if limit is None:
            return None
        self.back()
        if kind != "SGD":
            self.trial(factor, steps, stay=True)
        scale = None if kind == "SGD" else self._scale(settings)
        names = self.gradient(self.sample).keys()
        weights = {n: np.asarray(p) for n, p in s.model.named_parameters() if n in names}
        here = Snapshot(self.start_objects)
        try:
            value, _ = sharpness(self._gradient_at, weights, scale)
        finally:
            here.restore()
            self.back()
        return Curvature(value, limit, scale is not None) if math.isfinite(value) and value > 0 else None

    def _scale(self, settings: Mapping[str, float]) -> dict[str, np.ndarray]:
        """√v̂ + ε of each parameter, from the state of Adam or RMSprop."""
        state = self.setup.optimizer.state_dict()
        squares = {
            name.partition("square.")[2]: np.asarray(x, np.float64) for name, x in state.items() if "square." in name
        }
        step = next((float(x) for name, x in state.items() if name.rpartition(".")[2] == "step"), 0.0)
        betas = self.setup.optimizer.settings.get("betas")
        correction = 1 - betas[1] ** step if betas and step else 1.0
        return {name: np.sqrt(v / correction) + settings.get("eps", 1e-8) for name, v in squares.items()}

    def _gradient_at(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.setup.model.assign({name: tensor(w, dtype=w.dtype) for name, w in weights.items()})
        return self.gradient(self.sample)


def _flat(gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([g.reshape(-1) for g in gradients.values()])


def scale_rates(optimizer: Optimizer, factor: float) -> None:
    """Multiply all learning rates that are numbers."""
    if factor != 1:
        optimizer.rates = {k: wrap(np.asarray(float(r) * factor, np.float64)) for k, r in optimizer.rates.items()}


def best_constant(setup: Setup, batch: Batch, prediction: np.ndarray) -> float | None:
    """The lowest loss of a prediction that is the same for all rows; None where it cannot be found.

    It is found by L-BFGS from 0, or from the mean of the targets where these look like predictions. In sequences it is
    the same for all steps, too.
    """
    shape = prediction.shape[-1:] if prediction.ndim == 3 else prediction.shape[1:]
    target = batch.x if batch.y is None else batch.y
    start = np.zeros(shape, prediction.dtype)
    if isinstance(target, np.ndarray) and target.shape == prediction.shape:
        start = np.asarray(target.mean(axis=tuple(range(target.ndim - len(shape)))), prediction.dtype)
    held = {"answer": tensor(start, dtype=start.dtype)}
    x, y, weight = map_tensors(as_tensor, [batch.x, batch.y, batch.weight])

    def closure() -> Any:
        def loss(p: dict[str, Tensor]) -> Any:
            def answer(*_: Any, **__: Any) -> Tensor:
                return broadcast_to(p["answer"], prediction.shape)

            return setup.steps.objective(answer, x, y, weight)[0].reshape(())

        return value_and_grad(loss)(held)

    try:
        optimizer = LBFGS(held, max_iter=50, line_search_fn="strong_wolfe")
        optimizer.step(closure)
        value = float(closure()[0])
    except ChainruleError:
        return None
    return value if math.isfinite(value) else None
