"""What kernels store: the values that another kernel reads, unless a few cheap nodes make them there again.

The last step of grouping. It settles the outputs and inputs of each kernel, and drops the nodes that nobody needs.
"""

from typing import TYPE_CHECKING

from chainrule.passes.kernels import Kernel
from chainrule.passes.views import in_memory, is_lookup

if TYPE_CHECKING:
    from chainrule.passes.grouping import Grouping

CHEAP = {"add", "sub", "mul", "neg", "less", "less_equal", "equal", "where", "maximum", "minimum", "cast", "fma", "fms",
         "fnma", "copy", "and", "or", "not", "abs"}  # fmt: skip
AGAIN = 3  # nodes of a chain that is rather computed again than stored


def settle(grouping: "Grouping") -> None:
    """Settle what each kernel of a grouping reads and stores."""
    keep = {grouping.views[out.node].base for out in grouping.program.outputs}
    readers: dict[int, dict[int, Kernel]] = {}
    for kernel in grouping.kernels:
        members = set(kernel.nodes)
        for n in kernel.nodes:
            direct = kernel.kind == "single" or grouping.multiplies(n)
            for k, x in enumerate(grouping.bases(n)):
                table = k == 0 and is_lookup(grouping.nodes, grouping.nodes[n])
                if grouping.virtual(x):
                    continue
                if (
                    grouping.computed(x)
                    and (direct or table or grouping.virtual(n))
                    and not (kernel.kind == "single" and x in members)
                ):
                    keep.add(x)
                elif grouping.computed(x) and x not in members:
                    readers.setdefault(x, {})[id(kernel)] = kernel
    for x in grouping.order:
        if x not in readers or x in keep:
            continue
        asking = list(readers[x].values())
        if all(_meets(grouping, k, x) and _cheap_again(grouping, k, x, keep, AGAIN) for k in asking):
            for kernel in asking:
                _again(grouping, kernel, x, keep)
        else:
            keep.add(x)
    _drop_dead(grouping, keep)
    for kernel in grouping.kernels:
        members = set(kernel.nodes)
        kernel.outputs = [n for n in kernel.nodes if n in keep and grouping.home.get(n) is kernel]
        if kernel.kind == "contract" and all(grouping.reduces(n) for n in kernel.outputs):  # partial sums need memory
            kernel.outputs.insert(0, next(n for n in kernel.nodes if grouping.multiplies(n)))
        read = [x for n in kernel.nodes for x in grouping.bases(n) if x not in members and in_memory(grouping.nodes[x])]
        kernel.inputs = list(dict.fromkeys(read))


def _meets(grouping: "Grouping", kernel: Kernel, x: int) -> bool:
    """Whether a kernel reads a value only element by element, where it would compute it."""
    read = [(n, v) for n in kernel.nodes for v in grouping.operands(n) if v.base == x]
    return all(view.dense and (grouping.reduces(n) or grouping.level(kernel, n) == "full") for n, view in read)


def _cheap_again(grouping: "Grouping", kernel: Kernel, x: int, keep: set[int], depth: int) -> bool:
    """Rule 6: a short chain of cheap nodes, element by element, that ends in stored values."""
    if depth == 0 or grouping.nodes[x].primitive.name not in CHEAP or grouping.level(kernel, x) != "full":
        return False
    for view in grouping.operands(x):
        b = view.base
        if b in keep or grouping.nodes[b].primitive.kind == "source":
            if grouping.blocks(kernel, "full", view) is None:
                return False
        elif not (view.dense and _cheap_again(grouping, kernel, b, keep, depth - 1)):
            return False
    return True


def _again(grouping: "Grouping", kernel: Kernel, x: int, keep: set[int]) -> None:
    todo, members = [x], set(kernel.nodes)
    while todo:
        y = todo.pop()
        if y in members:
            continue
        members.add(y)
        kernel.nodes.append(y)
        todo += [b for b in grouping.bases(y) if grouping.computed(b) and b not in keep]


def _drop_dead(grouping: "Grouping", keep: set[int]) -> None:
    for kernel in grouping.kernels:
        kernel.nodes.sort(key=grouping.rank.__getitem__)
        used: set[int] = set()
        alive = []
        for n in reversed(kernel.nodes):
            if n in used or (n in keep and grouping.home.get(n) is kernel):
                alive.append(n)
                used.update(grouping.bases(n))
        kernel.nodes = alive[::-1]
    grouping.kernels = [kernel for kernel in grouping.kernels if kernel.nodes]
