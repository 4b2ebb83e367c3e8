"""What the layers and parameters of an observed training step look like, as numbers: for recording and for diagnosis.

A layer is one call of a module without child modules, or of a recurrent or attention module. A ReLU, sigmoid or tanh
that a module applies as a function counts as a layer, too, named in small letters ('relu') after the module around it.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.autodiff import ALIAS, vjp
from chainrule.core.tensor import Tensor, wrap
from chainrule.observe import Call, Observation
from chainrule.primitives import elementwise as e

Array = np.ndarray

BINS = 32
COMPOSED = frozenset({"RNN", "LSTM", "GRU", "MultiheadAttention"})  # one layer, whatever modules they are made of
RECTIFIERS = frozenset({"ReLU", "ReLU6", "relu"})
SQUASHING = frozenset({"Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "sigmoid", "tanh"})
SMOOTH = frozenset({"LeakyReLU", "Hardswish", "ELU", "SELU", "CELU", "GELU", "LogSigmoid", "SiLU", "Mish", "Softplus"})
FLAT = 0.01  # a sigmoid or tanh is saturated where its slope is below this
FEATURES_LAST = ("Linear", "Embedding", "LSTM", "GRU", "RNN", "LayerNorm", "MultiheadAttention")


@dataclass(frozen=True)
class Distribution:
    """An array in numbers. All but `zeros` (a share) and `nonfinite` (a count) are over its finite values.

    low, high, counts  a histogram: 32 bins of equal width from the least to the greatest value

    >>> import numpy as np
    >>> from chainrule.diagnosis.statistics import Distribution
    >>> found = Distribution.of(np.array([0.0, 1.0, 2.0, np.inf]))
    >>> found.mean, found.max, found.zeros, found.nonfinite, sum(found.counts)
    (1.0, 2.0, 0.25, 1, 3)
    """

    mean: float
    std: float
    min: float
    max: float
    norm: float
    zeros: float
    nonfinite: int
    low: float
    high: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, array: Array) -> "Distribution":
        """That of all values of an array."""
        values = np.asarray(array, np.float64).reshape(-1)
        finite = values if np.isfinite(values).all() else values[np.isfinite(values)]
        if not finite.size:
            return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, values.size, 0.0, 0.0, (0,) * BINS)
        low, high = float(finite.min()), float(finite.max())
        scale = max(abs(low), abs(high)) or 1.0  # squares of float64 may overflow
        scaled = finite / scale
        return cls(
            float(scaled.mean()) * scale,
            float(scaled.std()) * scale,
            low,
            high,
            float(np.sqrt(np.dot(scaled, scaled))) * scale,
            float(np.count_nonzero(values == 0)) / values.size,
            values.size - finite.size,
            low,
            high,
            _histogram(scaled, low / scale, high / scale),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        names = ("mean", "std", "min", "max", "norm", "zeros", "nonfinite")
        histogram = {"low": self.low, "high": self.high, "counts": list(self.counts)}
        return {name: getattr(self, name) for name in names} | {"histogram": histogram}


def _histogram(values: Array, low: float, high: float) -> tuple[int, ...]:
    """How many values lie in each bin; the greatest belongs to the last. Equal values are all in the first."""
    if not high > low:
        return (values.size, *(0,) * (BINS - 1))
    bins = np.minimum(((values - low) * (BINS / (high - low))).astype(np.int64), BINS - 1)
    return tuple(np.bincount(bins, minlength=BINS).tolist())


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """One call of a layer, with the arrays that the numbers are made of.

    path, layer     the path in the model ('' for the model itself), and the class; of a function its name
    call            how often the same layer had been called before
    file, line      where it was applied; '' and 0 where that is unknown
    module          the module; None for a function. Its tensors are those of the trace: look at its settings only
    input, output   what came in (the first floating-point tensor; None without any) and out
    gradient        of the loss by the output, and `input_gradient` by the input; None where none came back
    slope           of an activation function, for each element of its input; None for other layers
    unit_axis       along which axis of the output the units (channels) stand
    """

    path: str
    layer: str
    call: int
    file: str
    line: int
    module: Any
    input: Array | None
    output: Array
    gradient: Array | None
    input_gradient: Array | None
    slope: Array | None
    unit_axis: int

    @functools.cached_property
    def output_distribution(self) -> Distribution:
        """That of the output."""
        return Distribution.of(self.output)

    @functools.cached_property
    def gradient_distribution(self) -> Distribution | None:
        """That of the gradient by the output."""
        return None if self.gradient is None else Distribution.of(self.gradient)

    @functools.cached_property
    def dead_units(self) -> Array | None:
        """For each unit of a ReLU whether it is 0 and has slope 0 in all rows; None for other layers."""
        if self.layer not in RECTIFIERS or self.slope is None or not self.output.ndim or not self.output.size:
            return None
        others = tuple([axis for axis in range(self.output.ndim) if axis != self.unit_axis])
        return np.asarray(((self.output == 0) & (self.slope == 0)).all(axis=others))

    @property
    def dead(self) -> float | None:
        """The share of dead units."""
        units = self.dead_units
        return None if units is None else float(units.mean())

    @functools.cached_property
    def saturated(self) -> float | None:
        """The share of outputs of a sigmoid or tanh where the slope is below 0.01; None for other layers."""
        if self.layer not in SQUASHING or self.slope is None or not self.slope.size:
            return None
        return float(np.mean(np.abs(self.slope) < FLAT))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the arrays."""
        gradient = self.gradient_distribution
        return {
            "path": self.path,
            "layer": self.layer,
            "call": self.call,
            "output": self.output_distribution.to_dict(),
            "gradient": None if gradient is None else gradient.to_dict(),
            "dead": self.dead,
            "saturated": self.saturated,
        }


@dataclass(frozen=True, eq=False)
class ParameterStatistics:
    """A parameter before the step, its gradient (None where none came back), and what the step adds to it."""

    name: str
    value: Array
    gradient: Array | None
    update: Array | None

    @functools.cached_property
    def value_distribution(self) -> Distribution:
        """That of the parameter before the step."""
        return Distribution.of(self.value)

    @functools.cached_property
    def gradient_distribution(self) -> Distribution | None:
        """That of the gradient."""
        return None if self.gradient is None else Distribution.of(self.gradient)

    @functools.cached_property
    def update_distribution(self) -> Distribution | None:
        """That of the change."""
        return None if self.update is None else Distribution.of(self.update)

    @property
    def ratio(self) -> float | None:
        """‖Δw‖ / ‖w‖; None where there is no update, or nothing to divide by."""
        update, norm = self.update_distribution, self.value_distribution.norm
        return update.norm / norm if update is not None and norm > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the arrays."""
        gradient, update = self.gradient_distribution, self.update_distribution
        return {
            "name": self.name,
            "value": self.value_distribution.to_dict(),
            "gradient": None if gradient is None else gradient.to_dict(),
            "update": None if update is None else update.to_dict(),
            "ratio": self.ratio,
        }


@dataclass(frozen=True, eq=False)
class Statistics:
    """An observed training step in numbers. `loss` is that before the step; rate and norm are None where unknown."""

    layers: list[LayerStatistics]
    parameters: list[ParameterStatistics]
    loss: float | None
    gradient_norm: float | None
    learning_rate: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the arrays: what a run records."""
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            "parameters": [parameter.to_dict() for parameter in self.parameters],
            "learning_rate": _finite(self.learning_rate),
            "loss": _finite(self.loss),
            "gradient_norm": _finite(self.gradient_norm),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def statistics(observation: Observation) -> Statistics:
    """All of it, for a step that returned the loss first.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule import nn, optim
    >>> from chainrule.diagnosis.statistics import statistics
    >>> from chainrule.observe import observe_call
    >>> def step(model, optimizer, x):
    ...     loss, gradients = cr.value_and_grad(lambda m: cr.mean(m(x) ** 2))(model)
    ...     optimizer.update(model, gradients)
    ...     return loss
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> seen = observe_call(cr.compile(step), model, optim.SGD(lr=0.1), cr.tensor(np.ones((4, 2), np.float32)))
    >>> found = statistics(seen)
    >>> [(layer.path, layer.layer) for layer in found.layers], [p.name for p in found.parameters]
    ([('0', 'Linear'), ('1', 'ReLU')], ['0.weight', '0.bias'])
    """
    parameters = parameter_statistics(observation)
    leaves = observation.traced.results.leaves
    loss = observation.value(leaves[0].value) if leaves and isinstance(leaves[0].value, Tensor) else None
    known = [p.gradient_distribution.norm for p in parameters if p.gradient_distribution is not None]
    rates = [x for path, x in observation.before.items() if path.partition(".")[2].startswith("rates.") and x.size == 1]
    return Statistics(
        layer_statistics(observation),
        parameters,
        float(loss) if loss is not None and loss.size == 1 else None,
        math.hypot(*known) if known else None,
        float(rates[0]) if rates else None,
    )


def snapshot(observation: Observation) -> dict[str, Any]:
    """What a run records of an observed step, as JSON values."""
    return statistics(observation).to_dict()


def parameter_statistics(observation: Observation) -> list[ParameterStatistics]:
    """Those of all parameters that are trained, in the order of the model."""
    places = {observation.symbols[leaf.path].serial for leaf in observation.traced.after.leaves}
    gradients = _gradients_by_leaves(observation, places)
    found = []
    for leaf in observation.traced.after.leaves:
        if leaf.role != "parameter":
            continue
        before, after = observation.before[leaf.path], observation.after.get(leaf.path)
        gradient = gradients.get(observation.symbols[leaf.path].serial)
        update = None if after is None else np.asarray(after, np.float64) - np.asarray(before, np.float64)
        found.append(ParameterStatistics(inner(leaf.path), before, gradient, update))
    return found


def inner(path: str) -> str:
    """The path inside the model of what an argument holds: 'model.0.weight' is '0.weight'."""
    return path.partition(".")[2]


def _gradients_by_leaves(observation: Observation, places: set[int]) -> dict[int, Array]:
    """The gradients by those symbols that are differentiated by: a derivative is taken by an alias of each.

    Flows inside of loops lead to symbols of their own, which have no value.
    """
    found: dict[int, Tensor] = {}
    for flow in observation.record.flows.values():
        x = flow.input
        while x.primitive is ALIAS and x.inputs:
            x = x.inputs[0]
        if x.serial in places:
            found.setdefault(x.serial, flow.input)
    gradients = {serial: observation.gradient(x) for serial, x in found.items()}
    return {serial: gradient for serial, gradient in gradients.items() if gradient is not None}


def layer_statistics(observation: Observation) -> list[LayerStatistics]:
    """Those of all layers, in the order in which their outputs were made."""
    calls = list(_layers(observation.record.calls))
    found = [(y.serial, call, y) for call in calls if (y := _first_float(call.outputs)) is not None]
    found += [(y.serial, call, y) for call, y in _applied(observation, calls)]
    count: dict[tuple[str, str], int] = {}
    makers: dict[int, str] = {}  # the layers that made tensors
    layers = []
    for serial, call, y in sorted(found, key=lambda item: item[0]):
        path = inner(call.path)
        number = count[path, call.layer] = count.get((path, call.layer), -1) + 1
        x = _first_float(call.inputs)
        before = makers.get(x.serial, "") if x is not None else ""
        makers[serial] = before if _keeps_axes(call.layer) else call.layer
        file, line = (y.location.file, y.location.line) if y.location is not None else ("", 0)
        given = None if x is None else observation.value(x)
        output = observation.value(y)
        layers.append(
            LayerStatistics(
                path, call.layer, number, file, line, call.module, given, output, observation.gradient(y),
                None if x is None else observation.gradient(x), _slope(call, given, output),
                _unit_axis(output.ndim, makers[serial]),
            )
        )  # fmt: skip
    return layers


def _keeps_axes(layer: str) -> bool:
    return layer in RECTIFIERS | SQUASHING | SMOOTH or layer.startswith(("Dropout", "Identity"))


def _layers(calls: list[Call]) -> Iterator[Call]:
    """The calls that are layers. Modules that are no argument, such as a loss, have no path; the model itself has one
    without a dot."""
    composed: list[str] = [call.path for call in calls if call.layer in COMPOSED]
    for call in calls:
        inside = any([call.path.startswith(f"{path}.") for path in composed])
        leaf = call.layer in COMPOSED or next(call.module.children(), None) is None
        if call.path and leaf and not inside:
            yield call


def _applied(observation: Observation, layers: list[Call]) -> Iterator[tuple[Call, Tensor]]:
    """ReLU, sigmoid and tanh that modules apply as functions, as if they were calls."""
    known = {call.path for call in layers}
    for (serial, _), flow in observation.record.flows.items():
        y = flow.node
        name = _activation(y)
        where = y.location.module if y.location is not None else ""
        inside = any([where == path or where.startswith(f"{path}.") for path in known])
        if name and where and not inside and serial == y.serial:
            x = y.inputs[2] if name == "relu" else y.inputs[0]
            yield Call(where, name, None, (x,), (y,)), y


def _activation(y: Tensor) -> str:
    if y.primitive is e.sigmoid or y.primitive is e.tanh:
        return y.primitive.name
    if y.primitive is e.where and y.inputs[0].primitive is e.less_equal and y.inputs[0].inputs:
        zero = y.inputs[1].value
        if y.inputs[0].inputs[0] is y.inputs[2] and zero is not None and not zero.any():
            return "relu"
    return ""


def _first_float(tensors: tuple[Tensor, ...]) -> Tensor | None:
    return next((x for x in tensors if dtypes.is_float(x.dtype)), None)


def _unit_axis(ndim: int, maker: str) -> int:
    """Where the units stand: pictures and signals have their channels second, all else has features last."""
    if ndim <= 1:
        return max(ndim - 1, 0)
    if ndim == 3:
        return 1 if maker.startswith(("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "MaxPool", "AvgPool")) else 2
    return ndim - 1 if ndim == 2 or maker in FEATURES_LAST else 1


def _slope(call: Call, given: Array | None, output: Array) -> Array | None:
    """The derivative of an activation function, element by element, by its own rule."""
    if given is None:
        return None
    if call.module is None:
        y, one = np.asarray(output), output.dtype.type(1)
        return {"relu": (y != 0) * one, "sigmoid": y * (one - y), "tanh": one - y * y}[call.layer]
    if call.layer not in RECTIFIERS | SQUASHING | SMOOTH:
        return None
    y, pull = vjp(call.module, wrap(given))
    return np.asarray(pull(wrap(np.ones(output.shape, output.dtype)))[0])
