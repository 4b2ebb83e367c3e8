"""Loss and metrics of a model on data, in evaluation mode."""

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ConfigError
from chainrule.nn import Module
from chainrule.train.batches import Data
from chainrule.train.chunks import Chunks, added, measure
from chainrule.train.feed import Feed
from chainrule.train.interrupts import Signals
from chainrule.train.metrics import Metric
from chainrule.train.state import Snapshot
from chainrule.train.steps import Steps, map_arrays


def evaluation(steps: Steps, model: Module, data: Data, batch_size: int, dtype: dtypes.DType) -> Chunks:
    """Evaluates many batches at once, where the engine can."""
    feed = Feed(data, dtype)
    return Chunks(steps.evaluation, lambda b: (model, b.x, b.y, b.weight), feed, batch_size, trains=False)


def evaluate(
    steps: Steps, model: Module, data: Data, metrics: list[Metric], batch_size: int, dtype: dtypes.DType,
    signals: Signals | None = None, numbers: bool = True, chunks: Chunks | None = None,
) -> Any:  # fmt: skip
    """Loss and metrics of a model in evaluation mode; None when a signal came. The model stays as it is."""
    fresh = [metric.fresh() for metric in metrics]
    before = Snapshot(Snapshot.objects_of(model))
    total, batch, order = 0.0, 0, np.arange(data.rows)
    try:
        model.eval()
        while batch * batch_size < data.rows:
            size = min(batch_size, data.rows - batch * batch_size)
            losses, predictions = _evaluated(steps, model, data, order, batch, batch_size, dtype, chunks)
            rows = order[batch * batch_size :][: len(losses) * size]
            total, batch = added(total, losses, size), batch + len(losses)
            measure(fresh, predictions, data.targets(rows, dtype) if fresh else None, len(losses))
            if signals is not None and signals.pending is not None:
                return None
    finally:
        before.restore()
    return {"loss": total / data.rows} | {m.name: column(m) if numbers else m.compute() for m in fresh}


def _evaluated(
    steps: Steps, model: Module, data: Data, order: np.ndarray, batch: int, size: int, dtype: dtypes.DType,
    chunks: Chunks | None,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """The losses of some batches from number `batch` on, and the predictions, (batches, *shape)."""
    ran = None if chunks is None else chunks.run(order, batch, len(order))
    if ran is None:
        begin = batch * size
        loss, prediction = steps.evaluate(model, data.gather(slice(begin, min(begin + size, data.rows)), dtype))
        return np.asarray([loss]), map_arrays(lambda array: array[None], prediction)
    if ran.error is not None:
        raise ran.error
    return ran.losses, ran.predictions


def column(metric: Metric) -> float:
    """The value of a metric that has a column in a history. ConfigError when it is not one number."""
    value = metric.compute()
    if not isinstance(value, (int, float, np.number)):
        raise ConfigError(
            f"The metric {metric.name} gives {type(value).__name__}, not one number, so it has no place in a "
            "history. Use it after training: cr.evaluate(model, data, metrics=...)."
        )
    return float(value)
