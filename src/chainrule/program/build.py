"""From traced tensors to a Program."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np

from chainrule.core.autodiff import ALIAS, STOP
from chainrule.core.tensor import LEAVES, SYMBOL, VALUE, Tensor, context
from chainrule.errors import TracedValueError
from chainrule.functions.custom import CUSTOM
from chainrule.primitives.layout import broadcast
from chainrule.program.program import CONSTANT, INPUT, Builder, Node, Output, Part, Program, verify

TRANSPARENT = (ALIAS, STOP, CUSTOM)  # they matter to derivatives only: a Program reads through them


class Result(NamedTuple):
    """A tensor that comes out, under a name; `updates` is the symbol whose new value it is."""

    name: str
    tensor: Tensor
    updates: Tensor | None = None


def build(
    name: str,
    symbols: Sequence[Tensor],
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    computed: AbstractSet[int] = frozenset(),
) -> Program:
    """The Program that computes `results` from `symbols`; verified. Unused symbols stay inputs.

    With `names` for them, `symbols` may be any tensors, and how they were made is left out. A tensor with a value is a
    constant, unless it is among those (by serial number) that are `computed` from symbols with values.
    Raises TracedValueError when a result depends on a symbol of another trace, or on a parameter that is no argument.
    """
    nodes = _below([r.tensor for r in results], {x.serial for x in symbols}, computed)
    parts = _parts(nodes, results)
    builder = Builder()
    number: dict[int, int] = {}
    for i, x in enumerate(symbols):
        attributes = {"name": x.attributes["name"] if names is None else names[i], "shape": x.shape, "dtype": x.dtype}
        number[x.serial] = builder.add(Node(INPUT, (), attributes, x.shape, x.dtype))
    for x in nodes:
        if x.serial in number:
            continue
        of = number.get(x.of.serial) if x.of is not None else None
        if x.value is not None and x.serial not in computed:
            number[x.serial] = _constant(builder, x)
        elif x.primitive in TRANSPARENT:
            number[x.serial] = number[x.inputs[0].serial]
        else:
            inputs = tuple(number[i.serial] for i in x.inputs)
            node = Node(x.primitive, inputs, x.attributes, x.shape, x.dtype, x.location, parts[x.serial], of)
            number[x.serial] = builder.add(node)
    outputs = tuple(
        Output(r.name, number[r.tensor.serial], None if r.updates is None else number[r.updates.serial])
        for r in results
    )
    places = {} if context.witness is None else number
    return verify(Program(name, tuple(builder.nodes), tuple(number[x.serial] for x in symbols), outputs, places=places))


def _below(outputs: Sequence[Tensor], symbols: AbstractSet[int], computed: AbstractSet[int]) -> list[Tensor]:
    """Every tensor that the outputs are made of, inputs first; not what the symbols are made of."""
    found: dict[int, Tensor] = {}
    stack = list(outputs)
    while stack:
        x = stack.pop()
        if x.serial in found:
            continue
        found[x.serial] = x
        if x.serial in symbols:
            continue
        if x.value is None or x.serial in computed:
            if x.primitive is SYMBOL:
                raise TracedValueError(
                    f"A tensor of another traced function ({x.attributes['name']}) was used here. Traced tensors must "
                    "not be kept outside of the function that they were made in; return them instead."
                )
            stack.extend(x.inputs[:1] if x.primitive in TRANSPARENT else x.inputs)
        elif LEAVES in x.scopes:
            raise TracedValueError(
                "The compiled function uses a parameter (a tensor with requires_grad=True) that is not an argument. "
                "Its present value would be built in for ever. Pass the module or tensor as an argument."
            )
    return [found[serial] for serial in sorted(found)]


def _constant(builder: Builder, x: Tensor) -> int:
    value = x.value
    assert value is not None
    if x.primitive.kind == "source" and x.primitive is not VALUE:  # positions: cheaper to make than to store
        return builder.add(Node(x.primitive, (), x.attributes, x.shape, x.dtype))
    if value.ndim and value.size and is_uniform(value):  # equal elements: one number, stretched
        one = np.array(value[(0,) * value.ndim])
        scalar = builder.add(Node(CONSTANT, (), {"value": one}, (), x.dtype))
        return builder.add(Node(broadcast, (scalar,), {"shape": x.shape}, x.shape, x.dtype))
    return builder.add(Node(CONSTANT, (), {"value": value}, x.shape, x.dtype))


def is_uniform(value: np.ndarray) -> bool:
    """Whether all elements have the same bits: then a Program holds them as one number, stretched."""
    return not any(value.strides) or value.tobytes() == value[(0,) * value.ndim].tobytes() * value.size


def _parts(nodes: Sequence[Tensor], results: Sequence[Result]) -> dict[int, Part]:
    """Backward: made by a vjp rule. Forward: what that, or a result that is no gradient, needs. Update: the rest.

    Where nothing is differentiated, everything is forward.
    """
    if not any(x.of is not None for x in nodes):
        return {x.serial: "forward" for x in nodes}
    after: set[int] = set()  # made of gradients
    for x in nodes:
        if x.of is not None or any(i.serial in after for i in x.inputs):
            after.add(x.serial)
    needed = {r.tensor.serial for r in results if r.updates is None} - after
    parts: dict[int, Part] = {}
    for x in reversed(nodes):
        if x.of is not None:
            needed.add(x.of.serial)
        if x.of is not None or x.serial in needed:
            needed.update(i.serial for i in x.inputs)
        parts[x.serial] = "backward" if x.of is not None else "forward" if x.serial in needed else "update"
    return parts
