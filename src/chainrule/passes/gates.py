"""Gates: slices of a product's columns that meet each other element by element.

The four gates of an LSTM come out of one product, as columns 0 … W−1, W … 2W−1, and so on. Element c of the next state
needs element c of each gate: columns c, W + c, 2W + c and 3W + c of the product. A kernel that computes these together
has all that it needs in registers. The product itself is stored only if somebody else reads it.
"""

from typing import TYPE_CHECKING

from chainrule import dtypes
from chainrule.passes.copies import matrix
from chainrule.passes.kernels import Kernel
from chainrule.passes.views import View, split
from chainrule.primitives import contract

if TYPE_CHECKING:
    from chainrule.passes.grouping import Grouping

MOST = 4  # gates of a product: their columns have to find room in registers
NARROWEST = 8  # columns of a gate


def gate_of(kernel: Kernel, view: View) -> int | None:
    """Which gate of a full value a view shows; None where it shows something else."""
    _, rows, columns = kernel.sizes
    blocks = split(view.shape, view.strides, (rows, kernel.width))
    if blocks not in ([[(rows, columns)], [(kernel.width, 1)]], [[], [(kernel.width, 1)]]):
        return None
    gate, within = divmod(view.offset, kernel.width)
    return gate if not within and gate < kernel.gates and (blocks[0] or rows == 1) else None


def gates_for(grouping: "Grouping", kernel: Kernel, n: int) -> int:
    """How many gates the columns of a kernel are, if `n` takes one of them and all others who read it do as well."""
    node = grouping.nodes[n]
    if kernel.kind != "contract" or kernel.sizes[0] != 1 or not node.ndim or not kernel.size:
        return 1
    gates, rest = divmod(kernel.sizes[2], max(node.shape[-1], 1))
    if rest or not 2 <= gates <= MOST or node.shape[-1] < NARROWEST or node.size * gates != kernel.size:
        return 1
    trial = Kernel("contract", kernel.sizes, kernel.place, gates=gates)
    read = {x for x in grouping.bases(n) if grouping.home.get(x) is kernel}
    split_up = _multiplies_straight(grouping, kernel) and all(_gates_alone(grouping, trial, x) for x in read)
    return gates if read and split_up else 1


def _multiplies_straight(grouping: "Grouping", kernel: Kernel) -> bool:
    """Whether it is a product of floats whose right operand has its columns side by side, and nothing but elementwise
    nodes follow."""
    product = next(n for n in kernel.nodes if grouping.multiplies(n))
    node = grouping.nodes[product]
    if node.primitive is not contract.matmul or node.dtype not in (dtypes.float32, dtypes.float64):
        return False
    right = grouping.views[node.inputs[1]]
    updated = {out.updates for out in grouping.program.outputs}
    if right.base in updated:  # a weight lies as its other products want it
        return False
    strides = matrix(right)
    alone = not any(grouping.reduces(n) for n in kernel.nodes) and not grouping.virtual(grouping.bases(product)[0])
    return alone and strides is not None and strides[2] == 1


def _gates_alone(grouping: "Grouping", kernel: Kernel, x: int) -> bool:
    """Whether all who read a value do so element by element, one gate or another."""
    for n in grouping.readers.get(x, ()):
        views = [view for view in grouping.operands(n) if view.base == x]
        if not grouping.elementwise(n) or not views or any(gate_of(kernel, view) is None for view in views):
            return False
    return True
