"""The layers of which networks are made here, said once for all libraries.

Each knows its weights, the shape that comes out, and its products; how to build it is the matter of `peers/`. Shapes
are those of one row, in PyTorch's order: (channels, height, width) of images, (steps, features) of sequences. Weights
have PyTorch's names and shapes; those that start as 0 or 1 in every library (norms) are not listed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
Weights = dict[str, tuple[Shape, float]]  # name: its shape, and the bound of the uniform numbers that it starts with
GATES = {"lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Layer:
    """A layer without weights that keeps the shape."""

    def output(self, shape: Shape) -> Shape:
        """The shape that comes out."""
        return shape

    def weights(self, shape: Shape) -> Weights:
        """The weights that are drawn."""
        return {}

    def norms(self, shape: Shape) -> int:
        """How many further numbers are trained, which start as 0 or 1."""
        return 0

    def products(self, shape: Shape) -> tuple[int, int]:
        """Multiplications with a weight or of two values, forward, for one row: those by the layer's input, others."""
        return 0, 0


@dataclass(frozen=True)
class Activation(Layer):
    """relu, tanh, sigmoid or gelu (by erf)."""

    kind: str


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeros with probability p."""

    p: float


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Over the batch and all axes behind the channels."""

    def norms(self, shape: Shape) -> int:
        """Weight and bias."""
        return 2 * shape[0]


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Over the last axis."""

    def norms(self, shape: Shape) -> int:
        """Weight and bias."""
        return 2 * shape[-1]


@dataclass(frozen=True)
class Linear(Layer):
    """On the last axis."""

    out: int

    def output(self, shape: Shape) -> Shape:
        """Another last axis."""
        return (*shape[:-1], self.out)

    def weights(self, shape: Shape) -> Weights:
        """weight (out, in), bias (out,)."""
        bound = 1 / math.sqrt(shape[-1])
        return {"weight": ((self.out, shape[-1]), bound), "bias": ((self.out,), bound)}

    def products(self, shape: Shape) -> tuple[int, int]:
        """in · out for each vector."""
        return math.prod(shape) * self.out, 0


@dataclass(frozen=True)
class Conv(Layer):
    """2-D convolution with a square kernel."""

    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = True

    def output(self, shape: Shape) -> Shape:
        """(out, height, width)."""
        return (self.out, *((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape[1:]))

    def weights(self, shape: Shape) -> Weights:
        """weight (out, in / groups, kernel, kernel), bias (out,)."""
        inputs = shape[0] // self.groups
        bound = 1 / math.sqrt(inputs * self.kernel**2)
        weight = {"weight": ((self.out, inputs, self.kernel, self.kernel), bound)}
        return weight | ({"bias": ((self.out,), bound)} if self.bias else {})

    def products(self, shape: Shape) -> tuple[int, int]:
        """A kernel for each output, zeros of the padding included."""
        return math.prod(self.output(shape)) * shape[0] // self.groups * self.kernel**2, 0


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """The transpose of a 2-D convolution with a square kernel."""

    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    output_padding: int = 0

    def output(self, shape: Shape) -> Shape:
        """(out, height, width)."""
        more = self.kernel - 2 * self.padding + self.output_padding
        return (self.out, *((n - 1) * self.stride + more for n in shape[1:]))

    def weights(self, shape: Shape) -> Weights:
        """weight (in, out, kernel, kernel), bias (out,)."""
        bound = 1 / math.sqrt(self.out * self.kernel**2)
        return {"weight": ((shape[0], self.out, self.kernel, self.kernel), bound), "bias": ((self.out,), bound)}

    def products(self, shape: Shape) -> tuple[int, int]:
        """A kernel for each input."""
        return math.prod(shape) * self.out * self.kernel**2, 0


@dataclass(frozen=True)
class MaxPool(Layer):
    """Windows side by side; what does not fill one is dropped."""

    size: int

    def output(self, shape: Shape) -> Shape:
        """(channels, height / size, width / size)."""
        return (shape[0], *(n // self.size for n in shape[1:]))


@dataclass(frozen=True)
class GlobalAverage(Layer):
    """The mean of each channel."""

    def output(self, shape: Shape) -> Shape:
        """(channels,)."""
        return shape[:1]


@dataclass(frozen=True)
class Flatten(Layer):
    """One axis."""

    def output(self, shape: Shape) -> Shape:
        """(numbers,)."""
        return (math.prod(shape),)


@dataclass(frozen=True)
class Residual(Layer):
    """body(x) + shortcut(x), or + x where there is no shortcut. Weights: body.0.weight, ..., shortcut.0.weight, ..."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def parts(self, shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """Path, layer and the shape that goes in, for both branches."""
        for name, branch in (("body", self.body), ("shortcut", self.shortcut)):
            yield from ((f"{name}.{path}", layer, entering) for path, layer, entering in walk(branch, shape))

    def output(self, shape: Shape) -> Shape:
        """That of the body."""
        return output_shape(self.body, shape)

    def weights(self, shape: Shape) -> Weights:
        """Those of both."""
        return {
            f"{path}.{name}": drawn
            for path, layer, entering in self.parts(shape)
            for name, drawn in layer.weights(entering).items()
        }

    def norms(self, shape: Shape) -> int:
        """Those of both."""
        return sum(layer.norms(entering) for _, layer, entering in self.parts(shape))

    def products(self, shape: Shape) -> tuple[int, int]:
        """Those of both. They count as inner ones: a network here never begins with such a layer."""
        return 0, sum(sum(layer.products(entering)) for _, layer, entering in self.parts(shape))


@dataclass(frozen=True)
class Embedding(Layer):
    """Looks up tokens: (steps,) -> (steps, width)."""

    rows: int
    width: int

    def output(self, shape: Shape) -> Shape:
        """(steps, width)."""
        return (*shape, self.width)

    def weights(self, shape: Shape) -> Weights:
        """weight (rows, width)."""
        return {"weight": ((self.rows, self.width), 1.0)}


@dataclass(frozen=True)
class Positions(Layer):
    """Adds learned numbers to each step."""

    def weights(self, shape: Shape) -> Weights:
        """weight (steps, width)."""
        return {"weight": (shape, 0.03)}


@dataclass(frozen=True)
class Recurrent(Layer):
    """An LSTM or a GRU over the steps, from a state of zeros; all outputs: (steps, features) -> (steps, hidden)."""

    kind: str
    hidden: int
    layers: int = 1
    bidirectional: bool = False

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    def passes(self, features: int) -> Iterator[tuple[str, int]]:
        """The suffix of the weights' names and the number of inputs, for each layer and direction."""
        for layer in range(self.layers):
            inputs = self.hidden * self.directions if layer else features
            for suffix in ("", "_reverse")[: self.directions]:
                yield f"_l{layer}{suffix}", inputs

    def output(self, shape: Shape) -> Shape:
        """(steps, hidden · directions)."""
        return (shape[0], self.hidden * self.directions)

    def weights(self, shape: Shape) -> Weights:
        """weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ..., gates one below the other."""
        rows, bound, result = GATES[self.kind] * self.hidden, 1 / math.sqrt(self.hidden), {}
        for suffix, inputs in self.passes(shape[1]):
            result[f"weight_ih{suffix}"] = ((rows, inputs), bound)
            result[f"weight_hh{suffix}"] = ((rows, self.hidden), bound)
            result[f"bias_ih{suffix}"] = result[f"bias_hh{suffix}"] = ((rows,), bound)
        return result

    def products(self, shape: Shape) -> tuple[int, int]:
        """Inputs and states times the gates, at each step."""
        gates = shape[0] * GATES[self.kind] * self.hidden
        by_input = self.directions * gates * shape[1]
        deeper = (self.layers - 1) * self.directions * gates * self.hidden * self.directions
        return by_input, deeper + self.layers * self.directions * gates * self.hidden


@dataclass(frozen=True)
class Attention(Layer):
    """Causal self-attention: one Linear for queries, keys and values, one behind."""

    heads: int

    def weights(self, shape: Shape) -> Weights:
        """qkv.weight (3 width, width), qkv.bias, out.weight (width, width), out.bias."""
        width, bound = shape[1], 1 / math.sqrt(shape[1])
        return {
            "qkv.weight": ((3 * width, width), bound),
            "qkv.bias": ((3 * width,), bound),
            "out.weight": ((width, width), bound),
            "out.bias": ((width,), bound),
        }

    def products(self, shape: Shape) -> tuple[int, int]:
        """The Linears; scores and weighted values where the mask lets them through."""
        steps, width = shape
        return 3 * steps * width**2, steps * width**2 + steps * (steps + 1) * width


@dataclass(frozen=True)
class TextConvolutions(Layer):
    """Convolutions over the steps with several lengths of kernels, ReLU, the maximum over time, side by side."""

    kernels: tuple[int, ...]
    out: int

    def output(self, shape: Shape) -> Shape:
        """(kernels · out,)."""
        return (len(self.kernels) * self.out,)

    def weights(self, shape: Shape) -> Weights:
        """0.weight (out, features, kernel), 0.bias (out,), 1.weight, ..."""
        result = {}
        for i, kernel in enumerate(self.kernels):
            bound = 1 / math.sqrt(shape[1] * kernel)
            result[f"{i}.weight"] = ((self.out, shape[1], kernel), bound)
            result[f"{i}.bias"] = ((self.out,), bound)
        return result

    def products(self, shape: Shape) -> tuple[int, int]:
        """A kernel for each output."""
        return sum((shape[0] - k + 1) * k * shape[1] * self.out for k in self.kernels), 0


def walk(layers: Sequence[Layer], shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
    """Number, layer, and the shape that goes in."""
    for i, layer in enumerate(layers):
        yield str(i), layer, shape
        shape = layer.output(shape)


def output_shape(layers: Sequence[Layer], shape: Shape) -> Shape:
    """The shape that comes out of the last one."""
    for layer in layers:
        shape = layer.output(shape)
    return shape
