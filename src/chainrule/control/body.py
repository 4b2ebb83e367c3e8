"""The body of a loop: what one step computes, as a Program with inputs for all that it reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chainrule import dtypes
from chainrule.core.tensor import VALUE, Tensor
from chainrule.primitives.operators import cast_to
from chainrule.program.build import Result, build, is_uniform
from chainrule.program.program import Program


@dataclass(frozen=True, eq=False, repr=False)
class Body(Program):
    """A Program that still has the tensors it was traced from, since derivatives are taken of tensors.

    symbols  what its inputs stand for: constants, carries, slices of the sequences
    results  what its outputs are: new carries, what the step produces. As outputs they are converted to one dtype
    start    the serial number before which tensors are older than the body: they come from outside
    """

    symbols: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    start: int

    @property
    def stored(self) -> dtypes.DType:
        """The dtype of all outputs."""
        return self.nodes[self.outputs[0].node].dtype

    @property
    def arguments(self) -> dict[str, Tensor]:
        """The symbols by the names of the inputs."""
        return dict(zip([self.nodes[i].name for i in self.inputs], self.symbols, strict=True))


def make_body(
    name: str,
    inputs: Mapping[str, Tensor],
    carries: Sequence[str],
    results: Sequence[Tensor],
    stored: dtypes.DType,
    start: int,
) -> Body:
    """The Program from `inputs` to `results`, which come out as `stored`. The first are those inputs that are `carries`
    after a step."""
    symbols = tuple(inputs.values())
    updated = [*carries, *[None] * (len(results) - len(carries))]
    outputs = [
        Result(f"y.{k - len(carries)}", cast_to(y, stored)) if old is None else Result(old, y, inputs[old])
        for k, (y, old) in enumerate(zip(results, updated, strict=True))
    ]
    computed = dependent([out.tensor for out in outputs], symbols, start)[0]
    program = build(name, symbols, outputs, tuple(inputs), computed)
    nodes, places = program.nodes, program.places
    return Body(name, nodes, program.inputs, program.outputs, symbols, tuple(results), start, places=places)


def is_open(x: Tensor) -> bool:
    """Whether somebody may ask for a derivative by what `x` depends on."""
    return any([scope.open for scope in x.scopes])


def dependent(roots: Sequence[Tensor], symbols: Sequence[Tensor], start: int) -> tuple[set[int], dict[int, Tensor]]:
    """Which of the tensors that `roots` are made of depend on `symbols` (which count); and all that were met."""
    known = {x.serial for x in symbols}
    met: dict[int, Tensor] = {}
    stack = list(roots)
    while stack:
        x = stack.pop()
        if x.serial not in met:
            met[x.serial] = x
            if x.serial >= start and x.serial not in known:
                stack.extend(x.inputs)
    inside = set(known)
    for serial in sorted(met):
        if serial >= start and any([x.serial in inside for x in met[serial].inputs]):
            inside.add(serial)
    return inside, met


def outside(roots: Sequence[Tensor], symbols: Sequence[Tensor], start: int) -> list[Tensor]:
    """What `roots` need that does not depend on `symbols` and has to come in: what others trace or differentiate, and
    arrays. Single numbers, stretched or not, and positions stay inside."""
    inside, met = dependent(roots, symbols, start)
    computed = inside & met.keys() - {x.serial for x in symbols}
    border = {x.serial for x in roots}.union([x.serial for serial in computed for x in met[serial].inputs])
    return [met[serial] for serial in sorted(border - inside) if _comes_in(met[serial])]


def _comes_in(x: Tensor) -> bool:
    if x.value is None or is_open(x):
        return True
    made = x.primitive.kind == "source" and x.primitive is not VALUE
    return not made and bool(x.value.ndim and x.value.size) and not is_uniform(x.value)
