"""The loss of a batch: as the user gave it, or with a weight for each row."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chainrule import dtypes, losses, nn
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, DataError
from chainrule.functions.statistics import mean
from chainrule.train.batches import Data, normalised

Loss = Callable[..., Any]


def check_loss(loss: Any) -> Loss:
    """The loss, if it can be one; ConfigError says what is wrong with it otherwise."""
    if isinstance(loss, type):
        raise ConfigError(f"loss is the class {loss.__name__}; give an object of it: {loss.__name__}().")
    if not callable(loss):
        raise ConfigError(
            f"loss={loss!r:.80} is no function (prediction, target) -> number. Try losses.cross_entropy for "
            "classes, losses.mse for numbers."
        )
    return loss


def takes_probabilities(loss: Loss) -> bool:
    """Whether predictions are probabilities of one class, rather than logits."""
    inner = loss.func if isinstance(loss, functools.partial) else loss
    return inner is losses.binary_cross_entropy or isinstance(inner, nn.BCELoss)


def criterion(loss: Loss, weighted: bool) -> Callable[[Any, Any, Any], Tensor]:
    """A function (prediction, target, weight) -> the loss of the batch; `weight` (rows,) is None where rows have none.

    With weights it is the mean over rows of weight · loss of the row. Raises ConfigError for a loss that cannot tell
    the loss of each row.
    """
    if not weighted:
        return lambda prediction, target, weight: _one_number(loss(prediction, target))
    each = _each_row(loss)

    def weigh(prediction: Any, target: Any, weight: Tensor | None) -> Tensor:
        if weight is None:
            return _one_number(loss(prediction, target))
        values = each(prediction, target)
        rows = weight.shape[0]
        if not isinstance(values, Tensor) or not values.ndim or values.shape[0] != rows:
            raise ConfigError(
                f"Weights of rows need a loss that returns one value a row with reduction='none'; this one "
                f"returned {getattr(values, 'shape', values)!s:.80} for {rows} rows."
            )
        by_row = mean(values.reshape((rows, values.size // rows)), axis=1)
        return mean(by_row * weight.astype(by_row.dtype))

    return weigh


def _one_number(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.size == 1 and dtypes.is_float(value.dtype):
        return value
    what = f"{value.dtype.name} of shape {value.shape}" if isinstance(value, Tensor) else f"{value!r:.80}"
    raise ConfigError(
        f"The loss returned {what}; one floating-point number was expected, the mean over the batch: "
        "cr.mean(...), or reduction='mean'."
    )


def _each_row(loss: Loss) -> Loss:
    """The same loss with reduction='none'."""
    if isinstance(getattr(loss, "reduction", None), str):
        each = copy.copy(loss)
        each.reduction = "none"  # type: ignore[attr-defined]
        return each
    try:
        names = inspect.signature(loss).parameters
    except (TypeError, ValueError):
        names = {}  # type: ignore[assignment]
    if "reduction" in names:
        return functools.partial(loss, reduction="none")
    raise ConfigError(
        "class_weight and sample_weight need the loss of each row, but this loss takes no reduction='none'. "
        "Use one of chainrule.losses, or give your function an argument `reduction`."
    )


def class_weights(class_weight: Any, data: Data) -> dict[Any, float] | None:
    """The weight of each class, from what users write; see `fit`. 'balanced' looks at the classes in `data`.

    Raises ConfigError for what are no weights.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ConfigError(f"class_weight={class_weight!r}: give 'balanced', a dict or a list.")
        labels, counts = np.unique(_labels(data, "data"), return_counts=True)
        return dict(zip(labels.tolist(), (data.rows / (len(labels) * counts)).tolist(), strict=True))
    if isinstance(class_weight, Mapping):
        table = dict(class_weight)
    else:
        array = np.asarray(class_weight, np.float64)
        if array.ndim != 1:
            raise ConfigError(f"class_weight has shape {array.shape}; one weight a class was expected, (classes,).")
        table = dict(enumerate(array.tolist()))
        labels = _labels(data, "data")
        if labels.min() < 0 or labels.max() >= len(table):
            raise ConfigError(
                f"class_weight has {len(table)} weights, for the classes 0 to {len(table) - 1}; "
                f"data holds classes from {labels.min()} to {labels.max()}."
            )
    for label, value in table.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
            raise ConfigError(
                f"class_weight of class {label!r} is {value!r}; a finite number of at least 0 was expected."
            )
    return {label: float(value) for label, value in table.items()}


def with_class_weights(data: Data, weights: Mapping[Any, float] | None, name: str) -> Data:
    """The data with the weights of their rows multiplied by those of their classes (1 if unknown), of mean 1 again."""
    if weights is None:
        return data
    labels = _labels(data, name)
    weight = np.ones(data.rows) if data.weight is None else data.weight.copy()
    for label, value in weights.items():
        weight[labels == label] *= value
    return Data(data.x, data.y, normalised(weight, f"the weight by class in {name}"), data.rows)


def _labels(data: Data, name: str) -> np.ndarray:
    """The class of each row, (rows,)."""
    y = data.y
    if not isinstance(y, np.ndarray) or y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1):
        shape = f"of shape {y.shape}" if isinstance(y, np.ndarray) else f"of type {type(y).__name__}"
        raise ConfigError(
            f"class_weight needs one class a row: y of shape (rows,). In {name} it is {shape}. Weights by "
            "element can be given to the loss: functools.partial(losses.cross_entropy, weight=...)."
        )
    labels = np.asarray(y).reshape(-1)
    integers = labels.astype(np.int64)
    if (labels != integers).any():
        raise DataError(f"class_weight needs classes, but y of {name} holds {labels[labels != integers][0]}.")
    return integers
