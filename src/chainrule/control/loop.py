"""The primitive `scan`: a loop whose body is a Program. Its graph does not grow with the number of steps.

A step takes the carries, and a slice of each sequence, to new carries and to what it produces. A primitive has one
result; this one's is flat:

    [ last carries | first product of all steps | second product of all steps | … ]

so that each part is dense memory, and taking it out costs nothing. The products of step t stand at position t, also
when the loop runs backwards.

The derivative is a loop in the opposite direction, whose carries are the gradients of the carries (pullback.py). What
it needs from the forward pass are further products of the steps, which the loop has from the start if a derivative may
be asked for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.control.body import Body, is_open, make_body, outside
from chainrule.control.pullback import Along, Step
from chainrule.core.primitive import Primitive, Shape, TypeOf
from chainrule.core.tensor import Tensor, full, symbol
from chainrule.errors import DTypeError, ShapeError
from chainrule.primitives import contract, layout
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import cast_to
from chainrule.primitives.samples import Sample, double, sample
from chainrule.program.interpret import interpreter
from chainrule.program.program import Node, Program


class Part(NamedTuple):
    """Where one of the results stands."""

    start: int
    stop: int
    shape: Shape


def parts(body: Program, carries: int, length: int) -> list[Part]:
    """Where the results stand: the last carries, then for all steps what they produce."""
    found, start = [], 0
    for k, out in enumerate(body.outputs):
        node = body.nodes[out.node]
        shape = node.shape if k < carries else (length, *node.shape)
        size = node.size if k < carries else length * node.size
        found.append(Part(start, start + size, shape))
        start += size
    return found


def _type(x: Tensor | Node) -> TypeOf:
    return x.shape, x.dtype


def _infer(*inputs: Tensor, body: Program, constants: int, carries: int, length: int, reverse: bool) -> TypeOf:
    wanted = [_type(body.nodes[i]) for i in body.inputs]
    first = constants + carries
    wanted[first:] = [((length, *shape), dtype) for shape, dtype in wanted[first:]]
    given = [_type(x) for x in inputs]
    if given != wanted:
        raise ShapeError(f"scan: the inputs are {given}; expected are {wanted}.")
    made = [_type(body.nodes[out.node]) for out in body.outputs]
    if made[:carries] != wanted[constants:first]:
        raise ShapeError(f"scan: the carries are {wanted[constants:first]} before a step and {made[:carries]} after.")
    stored = {dtype for _, dtype in made}
    if len(stored) != 1 or not dtypes.is_float(made[0][1]):
        raise DTypeError("scan: all that comes out of a step must have one floating-point dtype.")
    return (parts(body, carries, length)[-1].stop,), made[0][1]


def _meaning(
    m: Any, *arrays: Any, body: Program, constants: int, carries: int, length: int, reverse: bool
) -> np.ndarray:
    run, places, first = interpreter(body), parts(body, carries, length), constants + carries
    given = [a.astype(body.nodes[i].dtype, copy=False) for a, i in zip(arrays, body.inputs, strict=True)]
    steady, carry, sequences = given[:constants], given[constants:first], given[first:]
    result = np.empty(places[-1].stop, body.nodes[body.outputs[0].node].dtype)
    products = [result[p.start : p.stop].reshape(p.shape) for p in places[carries:]]
    for t in reversed(range(length)) if reverse else range(length):
        made = run([*steady, *carry, *[x[t] for x in sequences]])
        carry = made[:carries]
        for product, y in zip(products, made[carries:], strict=True):
            product[t] = y
    for place, last in zip(places, carry, strict=False):
        result[place.start : place.stop] = last.reshape(-1)
    return result


def _vjp(
    dy: Tensor, y: Tensor, *inputs: Tensor, body: Body, constants: int, carries: int, length: int, reverse: bool
) -> tuple[Tensor | None, ...]:
    given = [_present(part(dy, place)) for place in parts(body, carries, length)]
    wanted = [dtypes.is_float(x.dtype) and bool(x.scopes) for x in inputs]
    present = [k for k in range(carries, len(given)) if given[k] is not None]
    step = Step(body, constants, carries, present, wanted, length)
    if step.lacks():  # nobody said that there would be a derivative: the loop is run once more, to save for it
        body = step.saving()
        y = scan(*inputs, body=body, constants=constants, carries=carries, length=length, reverse=reverse)
        step = Step(body, constants, carries, present, wanted, length)
    return _backward(step, y, given, inputs, not reverse)


def _backward(
    step: Step, y: Tensor, given: list[Tensor | None], inputs: tuple[Tensor, ...], reverse: bool
) -> tuple[Tensor | None, ...]:
    """Run the backward loop, and do what is left after it: the gradients of the inputs."""
    body, carries, first = step.body, step.carries, step.constants + step.carries
    places = parts(body, carries, step.length)
    number = {x.serial: k for k, x in enumerate(body.results) if k >= carries}
    slices = {x.serial: all_steps for x, all_steps in zip(step.slices, inputs[first:], strict=True)}
    slices.update({x.serial: _as(given[k], x) for k, x in step.produced.items()})

    def at_hand(x: Tensor) -> Tensor:
        return slices[x.serial] if x.serial in slices else _as(part(y, places[number[x.serial]]), x)

    made = _run_backward(step, at_hand, given, inputs, reverse)
    before, rest = made[:carries], made[carries:]
    sums = {g.serial: _as(x, g) for x, (_, g) in zip(rest, step.sums, strict=False)}
    emitted = {
        x.serial: _as(all_steps, x) for all_steps, x in zip(rest[len(sums) :], step.emitted.values(), strict=True)
    }

    def of_all(x: Tensor) -> Tensor:
        return emitted[x.serial] if x.serial in emitted else at_hand(x)

    def total(g: Tensor) -> Tensor:
        if not step.is_produced(g):
            return sums[g.serial]
        return layout.reshape(layout.sum(step.along(g, of_all), axes=(0,)), shape=g.shape)

    grads = step.gradients(of_all, total)
    return (*grads[: step.constants], *before, *grads[step.constants :])


def _run_backward(
    step: Step, at_hand: Along, given: list[Tensor | None], inputs: tuple[Tensor, ...], reverse: bool
) -> list[Tensor | None]:
    """What comes out of the backward loop. There is none where nothing is carried and all is at hand."""
    if not step.results:
        return []
    body = step.body
    constants, slices = step.read()
    sums = [x for x, _ in step.sums]
    own = [*constants, *step.seeds, *sums, *slices]
    lifted = outside(step.results, own, body.start)
    arguments = {f"constant.{i}": x for i, x in enumerate((*lifted, *constants))}
    carried = {x.attributes["name"]: x for x in (*step.seeds, *sums)}
    produced = {x.serial for x in step.produced.values()}
    arguments |= carried
    arguments |= {x.attributes["name"] if x.serial in produced else f"saved.{i}": x for i, x in enumerate(slices)}
    name = f"backward of {body.name}"
    backward_body = make_body(name, arguments, list(carried), step.results, body.stored, body.start)
    at = {x.serial: k for k, x in enumerate(body.symbols)}
    init = [full(x.shape, 0, x.dtype) if g is None else g for x, g in zip(step.seeds, given, strict=False)]
    init += [full(x.shape, 0, x.dtype) for x in sums]
    steady = [*lifted, *[inputs[at[x.serial]] for x in constants]]
    y = loop(backward_body, steady, init, [at_hand(x) for x in slices], step.length, reverse)
    return [part(y, place) for place in parts(backward_body, len(init), step.length)]


def _samples() -> tuple[Sample, ...]:
    """A recurrent layer with its weight as a constant; two carries, backwards, one of them a product."""
    w, h, x = (symbol(n, (3, 3) if n == "w" else (2, 3), dtypes.float64) for n in ("w", "h", "x"))
    new = e.tanh(contract.matmul(h, w) + x)
    recurrent = make_body("recurrent", {"w": w, "h": h, "x": x}, ["h"], (new, new), dtypes.float64, w.serial)
    a, b, u, v = (symbol(n, (2,), dtypes.float64) for n in ("a", "b", "u", "v"))
    both = (e.sin(a * b) + u, a + v * b, a * b)
    product = make_body("product", {"a": a, "b": b, "u": u, "v": v}, ["a", "b"], both, dtypes.float64, a.serial)
    return (
        sample(
            double(3, 3), double(2, 3), double(4, 2, 3), body=recurrent, constants=1, carries=1, length=4, reverse=False
        ),
        sample(
            double(2),
            double(2),
            double(3, 2),
            double(3, 2),
            body=product,
            constants=0,
            carries=2,
            length=3,
            reverse=True,
        ),
    )


scan: Primitive = Primitive(
    "scan",
    "control",
    _meaning,
    _infer,
    _vjp,
    "a loop in the opposite direction: the gradients of the carries are carried, those of the constants added up",
    _samples(),
)


def loop(
    body: Body,
    constants: Sequence[Tensor],
    init: Sequence[Tensor],
    sequences: Sequence[Tensor],
    length: int,
    reverse: bool,
) -> Tensor:
    """The flat result of a loop; with what its derivative will read, where somebody may ask for one."""
    inputs = (*constants, *init, *sequences)
    wanted = [dtypes.is_float(x.dtype) and is_open(x) for x in inputs]
    if any(wanted):
        present = range(len(init), len(body.results))
        body = Step(body, len(constants), len(init), present, wanted, length).saving()
    return scan(*inputs, body=body, constants=len(constants), carries=len(init), length=length, reverse=reverse)


# -- taking parts out of flat tensors, and looking through what put them in


def part(x: Tensor, place: Part) -> Tensor | None:
    """The part of a flat tensor; None where it is known to be zero, as most of a gradient is."""
    found = _piece(x, place.start, place.stop)
    if found is None or found.shape == place.shape:
        return found
    if found.primitive is layout.reshape and found.inputs and found.inputs[0].shape == place.shape:
        return found.inputs[0]
    return layout.reshape(found, shape=place.shape)


def _piece(x: Tensor, start: int, stop: int) -> Tensor | None:
    if (start, stop) == (0, x.size):
        return x
    if x.primitive is e.add and x.inputs:
        pieces = [p for p in (_piece(operand, start, stop) for operand in x.inputs) if p is not None]
        return pieces[0] + pieces[1] if len(pieces) == 2 else pieces[0] if pieces else None
    if x.primitive is layout.pad and x.inputs and x.attributes["interior"] == (0,):
        begin = x.attributes["low"][0]
        end = begin + x.inputs[0].size
        if stop <= begin or end <= start:
            return None
        if (start, stop) == (begin, end):
            return x.inputs[0]
    return layout.slice(x, start=(start,), stop=(stop,), step=(1,))


def _present(x: Tensor | None) -> Tensor | None:
    """None for a gradient that is zero, and on which nothing depends."""
    if x is not None and x.value is not None and not is_open(x) and not x.value.any():
        return None
    return x


def _as(x: Tensor | None, like: Tensor) -> Tensor:
    assert x is not None
    return cast_to(x, like.dtype)
