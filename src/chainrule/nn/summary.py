"""A table of a model: for each module its output shape, its parameters and what they take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_tensor
from chainrule.core.primitive import Shape
from chainrule.core.tensor import Tensor, symbol
from chainrule.nn.module import Module


@dataclass(frozen=True)
class Row:
    """One module: what it is, what comes out, and the parameters and buffers that it holds itself.

    output   the shape of what it returned, several joined by commas; '' when there was no input or it was not called
    tied     {name: path} of parameters that were counted before, under that path

    >>> from chainrule import nn
    >>> row = nn.summary(nn.Linear(4, 8)).rows[0]
    >>> row.layer, row.parameters, row.count, row.bytes
    ('Linear', {'weight': (8, 4), 'bias': (8,)}, 40, 160)
    """

    path: str
    layer: str
    output: str
    parameters: dict[str, Shape]
    tied: dict[str, str]
    count: int
    trained: int
    bytes: int

    def described(self) -> str:
        """The parameters as text: `weight (8, 4), bias (8,)`."""
        return ", ".join(
            f"{name} = {self.tied[name]}" if name in self.tied else f"{name} {shape}"
            for name, shape in self.parameters.items()
        )


@dataclass(frozen=True)
class Summary:
    """The rows, outermost module first, and the totals; `str` gives the table.

    >>> from chainrule import nn
    >>> table = nn.summary(nn.Linear(4, 8).requires_grad_(False))
    >>> table.count, table.trained, table.totals()
    (40, 0, '40 parameters (0 trained, 40 frozen), 160 B')
    """

    rows: tuple[Row, ...]
    count: int
    trained: int
    parameter_bytes: int
    buffer_bytes: int

    def cells(self) -> list[tuple[str, str, str, str, str, str]]:
        """The rows as text: path, layer, output, parameters, count, size."""
        return [
            (
                row.path or "(model)",
                row.layer,
                row.output,
                row.described(),
                f"{row.count:,}" if row.count else "",
                size_text(row.bytes) if row.bytes else "",
            )
            for row in self.rows
        ]

    def totals(self) -> str:
        """The totals in one line."""
        left = self.count - self.trained
        frozen = f" ({self.trained:,} trained, {left:,} frozen)" if left else ""
        buffers = f", buffers {size_text(self.buffer_bytes)}" if self.buffer_bytes else ""
        return f"{self.count:,} parameters{frozen}, {size_text(self.parameter_bytes)}{buffers}"

    def __str__(self) -> str:
        header = ("path", "layer", "output", "parameters", "count", "size")
        lines = [header, *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        shown = [i for i in range(len(header)) if any(line[i] for line in lines[1:])]
        text = [
            "  ".join(line[i].rjust(widths[i]) if i >= 4 else line[i].ljust(widths[i]) for i in shown).rstrip()
            for line in lines
        ]
        return "\n".join([*text, self.totals()])

    __repr__ = __str__


def summary(model: Module, *inputs: Any) -> Summary:
    """Describe a model; with inputs also the shape that comes out of each module.

    An input is a tensor or an array, for which the model is run, or a shape, for which it is only traced, so that
    nothing is computed. The model is copied before, in evaluation mode: it stays as it was.

    >>> from chainrule import nn
    >>> nn.summary(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), (32, 4))
    path     layer       output   parameters              count   size
    (model)  Sequential  (32, 8)
    0        Linear      (32, 8)  weight (8, 4), bias (8,)   40  160 B
    1        ReLU        (32, 8)
    40 parameters, 160 B
    """
    outputs = _outputs(model, inputs) if inputs else {}
    modules: dict[int, tuple[str, Module]] = {}
    first: dict[int, str] = {}  # the path under which a tensor is counted
    for place in model._places():
        if place.name:
            first.setdefault(id(place.tensor), place.path)
        else:
            modules.setdefault(id(place.module), (place.path, place.module))
    rows = [_row(module, path, outputs.get(path, ""), first) for path, module in modules.values()]
    return Summary(
        tuple(rows),
        sum(row.count for row in rows),
        sum(row.trained for row in rows),
        sum(row.bytes for row in rows),
        sum(_bytes(x) for _, x in model.named_buffers()),
    )


def _row(module: Module, path: str, output: str, first: dict[int, str]) -> Row:
    own = {name: vars(module)[name] for name in module._parameters if vars(module)[name] is not None}
    at = {name: first[id(x)] for name, x in own.items()}
    tied = {name: other for name, other in at.items() if other != tree.join(path, name)}
    counted = {name: x for name, x in own.items() if name not in tied}
    return Row(
        path,
        type(module).__name__,
        output,
        {name: x.shape for name, x in own.items()},
        tied,
        sum(x.size for x in counted.values()),
        sum(x.size for name, x in counted.items() if module.role(name) == "parameter"),
        sum(_bytes(x) for x in counted.values()),
    )


def _bytes(x: Tensor) -> int:
    return x.size * x.dtype.itemsize


def _outputs(model: Module, inputs: tuple[Any, ...]) -> dict[str, str]:
    """Run or trace a copy, and note by path what each module returns."""
    flat = tree.flatten(model)
    copy = tree.build(flat, [leaf.value for leaf in flat.leaves])
    outputs: dict[str, str] = {}
    for module in list(copy.modules()):
        vars(module).update(training=False, forward=_recording(module, outputs))
    floats = [p.dtype for p in model.parameters() if dtypes.is_float(p.dtype)] or [dtypes.default_float]
    copy(*[_input(i, x, floats[0]) for i, x in enumerate(inputs)])
    return outputs


def _input(i: int, given: Any, dtype: dtypes.DType) -> Tensor:
    if isinstance(given, tuple) and all(isinstance(n, int) for n in given):
        return symbol(f"input {i}", given, dtype)
    return as_tensor(given)


def _recording(module: Module, outputs: dict[str, str]) -> Callable[..., Any]:
    forward = module.forward

    def recording(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        shapes = ", ".join(str(tuple(leaf.value.shape)) for leaf in tree.flatten(result).leaves)
        outputs.setdefault(module.path, shapes)
        return result

    return recording


def size_text(number: int) -> str:
    """Bytes as people read them, in powers of 1000: 950 B, 412 kB, 1.3 MB.

    >>> from chainrule.nn.summary import size_text
    >>> size_text(1_300_000)
    '1.3 MB'
    """
    size, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{number} B" if unit == "B" else f"{size:.3g} {unit}"
