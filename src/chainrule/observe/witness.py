"""What a Program does not know of the function it was traced from: which gradient belongs to which node, and which
module was called with what."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chainrule import tree
from chainrule.core.tensor import Tensor, context


class Flow(NamedTuple):
    """A node hands a gradient to one of its inputs: downstream = upstream × local derivative.

    node        the node whose rule it is
    upstream    the gradient by it
    position    which of its inputs
    downstream  what that input gets
    """

    node: Tensor
    upstream: Tensor
    position: int
    downstream: Tensor

    @property
    def input(self) -> Tensor:
        """The input that gets it."""
        return self.node.inputs[self.position]


class Call(NamedTuple):
    """A call of a module: where it stands in the model, its class, what it got, what it returned.

    inputs and outputs are the tensors among the arguments and results, in order.
    """

    path: str
    layer: str
    module: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass
class Record:
    """A Witness that notes everything, by the serial numbers of tensors.

    flows   in the order in which they came about: from the loss back
    totals  the gradient by each tensor
    calls   in the order in which the modules returned
    """

    flows: dict[tuple[int, int], Flow] = field(default_factory=dict)
    totals: dict[int, Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def flow(self, node: Tensor, dy: Tensor, position: int, dx: Tensor, total: Tensor) -> None:
        """See chainrule.core.attached.Witness. Of a node that is met in two derivatives the outer one counts."""
        self.flows[node.serial, position] = Flow(node, dy, position, dx)
        self.totals.setdefault(node.serial, dy)  # the loss itself, to which nobody hands a gradient
        self.totals[node.inputs[position].serial] = total

    def called(self, path: str, module: Any, given: Any, result: Any) -> None:
        """See chainrule.core.attached.Witness."""
        self.calls.append(Call(path, type(module).__name__, module, _tensors(given), _tensors(result)))


def _tensors(values: Any) -> tuple[Tensor, ...]:
    return tuple([leaf.value for leaf in tree.flatten(values).leaves if isinstance(leaf.value, Tensor)])


@contextmanager
def witnessed() -> Iterator[Record]:
    """What is traced inside is noted in the Record."""
    outer, record = context.witness, Record()
    context.witness = record
    try:
        yield record
    finally:
        context.witness = outer
