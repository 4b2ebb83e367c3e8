"""Programs cut into kernels: what is computed in one go, while it is at hand.

    contract   one product; elementwise nodes of its shape follow while the result is in registers (the epilogue)
    rows       elementwise nodes over R rows of C columns, and reductions along the rows; a row is worked on as a whole
    columns    reductions down the rows, and elementwise nodes on what comes out
    single     one node that no other kind takes: pad, concat, take, scatter_add, running sums, sorting

Rules, applied to the nodes in the order of their depth (the contractions and reductions above them):
  1  A contraction opens a kernel. One into few columns is a row operation instead.
  2  A reduction joins the latest kernel of its kind and shape that its operand allows, or opens one. A sum down the
     columns of a product's result joins the product, if threads can share that out without splitting the sum.
  3  An elementwise node joins the latest of the kernels that make its operands, if its shape fits; else it waits. Edges
     thus point from earlier kernels to later ones: no cycle can arise. For a number alone it does not join.
  4  What waits is pulled into the first kernel that asks for it and that it fits, else it gets a kernel.
  5  What is cheap and depends on inputs alone is computed again by every kernel that asks.
  6  A value that a later kernel reads is stored, unless a short chain of cheap nodes over stored values makes it again.
  7  Values that are joined, all made by one row kernel, are written where they are to stand: the join is done there.
  8  Where slices of a product's columns meet each other, as the gates of an LSTM do, the product makes columns of all
     of them at once, and what follows happens there, too.
"""

from chainrule import dtypes
from chainrule.passes.convolutions import by_places, patches
from chainrule.passes.disjoint import join
from chainrule.passes.gates import gate_of, gates_for
from chainrule.passes.kernels import Kernel, Kind, Level, along_rows, few_columns, reduction_sizes, rows_of
from chainrule.passes.reorder import reorder
from chainrule.passes.stored import CHEAP, settle
from chainrule.passes.views import View, is_lookup, split, views
from chainrule.passes.winograd import winograd_convolution
from chainrule.primitives import contract
from chainrule.primitives.layout import concat
from chainrule.primitives.window import window_argmax, window_take
from chainrule.program.program import Program

BEFORE = (0, 1 << 30)  # the place of what depends on inputs alone
PRODUCTS = (contract.matmul, winograd_convolution)
WIDE = 128  # columns of a product from which on threads may share these, so that sums down them can join it,
TALL = 4  # if it has no more than so many times as many rows: those are for more threads
HIGH = 48  # rows of each product of a stack that is made for sums to join
REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")


class Grouping:
    """The kernels of a Program, in an order that can be run."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = program.nodes
        self.views = views(program)
        self.early: list[Kernel] = []  # those that depend on inputs alone
        self.late: list[Kernel] = []
        self.home: dict[int, Kernel] = {}
        self.placed: set[tuple[int, int]] = set()
        self.readers: dict[int, list[int]] = {}  # who computes something from a value
        for n in filter(self.computed, range(len(self.nodes))):
            for x in self.bases(n):
                self.readers.setdefault(x, []).append(n)
        self.order = self._by_depth()
        self.rank = {n: k for k, n in enumerate(self.order)}
        for n in self.order:
            self._place(n)
        for out in program.outputs:
            self._store(self.views[out.node].base)
        self.kernels = self.early + self.late
        settle(self)

    # -- what nodes are

    def _by_depth(self) -> list[int]:
        depth: list[int] = []
        for node in self.nodes:
            deeper = node.primitive.kind in ("contract", "reduce", "index", "scan")
            depth.append(max([depth[x] for x in node.inputs], default=0) + deeper)
        return sorted(range(len(self.nodes)), key=lambda n: (depth[n], n))

    def computed(self, n: int) -> bool:
        """Whether a kernel has to compute it: not inputs, constants, positions, and views of other nodes."""
        return self.nodes[n].primitive.kind != "source" and self.views[n].base == n

    def elementwise(self, n: int) -> bool:
        """Whether each element follows from the elements at the same place of the operands."""
        return self.nodes[n].primitive.kind == "elementwise" or is_lookup(self.nodes, self.nodes[n])

    def reduces(self, n: int) -> bool:
        """Whether it puts elements along some axes together."""
        return self.nodes[n].primitive.kind == "reduce"

    def multiplies(self, n: int) -> bool:
        """Whether it is a product that opens a kernel."""
        return self.nodes[n].primitive in PRODUCTS

    def joins(self, n: int) -> bool:
        """Whether it puts values side by side."""
        return self.nodes[n].primitive in (join, concat)

    def virtual(self, n: int) -> bool:
        """Whether it is never stored: windows in rows, made by the product that reads them."""
        return self.nodes[n].primitive is patches

    def slides(self, n: int) -> bool:
        """Whether it goes through the windows of images."""
        return self.nodes[n].primitive.kind == "window" or self.nodes[n].primitive in (patches, winograd_convolution)

    def operands(self, n: int) -> list[View]:
        """The views of the inputs of a node, without a table that it looks things up in."""
        inputs = self.nodes[n].inputs
        return [self.views[x] for x in (inputs[1:] if is_lookup(self.nodes, self.nodes[n]) else inputs)]

    def bases(self, n: int) -> list[int]:
        """The nodes in memory or registers that a node reads."""
        return [self.views[x].base for x in self.nodes[n].inputs]

    def level(self, kernel: Kernel, n: int) -> Level | None:
        """What a node is in a kernel: an element, a value of a row or of a column. None where it does not belong."""
        node, sizes = self.nodes[n], kernel.sizes
        if self.joins(n) and kernel.kind == "rows":
            return "joined"
        if node.primitive.kind == "reduce" and kernel.kind != "single":
            return "row" if kernel.kind == "rows" else "column"
        if node.primitive in PRODUCTS and kernel.kind == "contract":  # whose rows may be those of a stack
            return "full"
        if node.size == kernel.size and split(node.shape, (0,) * node.ndim, sizes) is not None:
            return "full"
        if kernel.gates > 1:
            gate = (*sizes[:2], kernel.width)
            fits = node.size * kernel.gates == kernel.size and split(node.shape, (0,) * node.ndim, gate) is not None
            return "gate" if fits else None
        if kernel.kind == "rows" and node.size == sizes[0]:
            return "row"
        if kernel.kind == "columns" and node.size == sizes[0] * sizes[2]:
            return "column" if split(node.shape, (0,) * node.ndim, (sizes[0], sizes[2])) is not None else None
        return None

    def blocks(self, kernel: Kernel, level: Level, view: View) -> list[list[tuple[int, int]]] | None:
        """The index map of an operand of a node at `level`: for each size of the kernel the (extent, stride)s."""
        sizes = kernel.sizes
        if level == "row":
            sizes = (sizes[0],)
        if level == "column":
            sizes = (sizes[0], sizes[2])
        if level == "gate":
            sizes = (*sizes[:2], kernel.width)
        found = split(view.shape, view.strides, sizes)
        return found if found is not None and (level == "row" or len(found[-1]) <= 1) else None

    # -- where nodes may go

    def position(self, n: int) -> tuple[int, int]:
        """The place of the latest kernel that a node needs; (0, −1) where inputs are enough."""
        if n in self.home:
            return self.home[n].place
        return max([self.home[x].place for x in self._below(n)], default=(0, -1))

    def free(self, n: int) -> bool:
        """Rule 5: whether it is computed again by every kernel that asks."""
        if self.virtual(n):
            return True
        cheap = self.nodes[n].primitive.name in CHEAP and self.nodes[n].size > 1
        return cheap and n not in self.home and self.position(n) == (0, -1)

    def _new(self, kind: Kind, sizes: tuple[int, ...], early: bool = False) -> Kernel:
        kernels = self.early if early else self.late
        kernel = Kernel(kind, sizes, (0, len(self.early)) if early else (1, len(self.late)))
        kernels.append(kernel)
        return kernel

    def fits(self, kernel: Kernel, n: int, depth: int = 40) -> bool:
        """Whether a kernel can compute a node, pulling in what waits."""
        if not self.elementwise(n) or kernel.kind == "single" or depth == 0:
            return False
        if kernel.nodes and self.nodes[kernel.nodes[0]].primitive is reorder:
            return False
        level = self.level(kernel, n)
        if level is None or (kernel.kind == "contract" and self.sums_places(kernel)):
            return False
        if is_lookup(self.nodes, self.nodes[n]) and not self._table_at_hand(kernel, n):
            return False
        return all(self._operand_fits(kernel, level, view, depth) for view in self.operands(n))

    def sums_places(self, kernel: Kernel) -> bool:
        """Whether a product is over the places of windows: so many that partial sums have to be stored."""
        for n in kernel.nodes:
            if self.nodes[n].primitive is contract.matmul:
                a = self.views[self.nodes[n].inputs[0]]
                return self.virtual(a.base) and by_places(a.shape, a.strides, self.nodes[a.base].shape)
        return False

    def _table_at_hand(self, kernel: Kernel, n: int) -> bool:
        table = self.views[self.nodes[n].inputs[0]].base
        if table in self.home:
            return self.home[table].place < kernel.place
        return self.nodes[table].primitive.kind == "source"

    def _operand_fits(self, kernel: Kernel, level: Level, view: View, depth: int) -> bool:
        x = view.base
        blocks = self.blocks(kernel, level, view)
        if blocks is None:
            return False
        if self.nodes[x].primitive.kind == "source":
            return True
        home = self.home.get(x)
        if home is not None and home is not kernel:
            return home.place < kernel.place
        if home is None and self.position(x) > kernel.place:
            return False
        of_x = self.level(kernel, x)
        if of_x == level:
            meets = view.dense
        elif (of_x, level) == ("full", "gate"):
            meets = gate_of(kernel, view) is not None
        else:
            meets = (of_x, level) == ("row", "full") and along_rows(kernel, view, blocks)
        if not meets:
            return False
        return home is kernel or self.fits(kernel, x, depth - 1)

    def _join(self, kernel: Kernel, n: int) -> None:
        """Put a node into a kernel, after the operands that wait."""
        if (id(kernel), n) in self.placed:
            return
        self.placed.add((id(kernel), n))
        for x in self.bases(n):
            if self.computed(x) and x not in self.home:
                self._join(kernel, x)
        kernel.nodes.append(n)
        if not self.free(n):
            self.home[n] = kernel

    def _store(self, n: int) -> None:
        """Make sure that some kernel computes a node, since its stored value is wanted."""
        if not self.computed(n) or n in self.home:
            return
        position = self.position(n)
        early = position == (0, -1)
        for kernel in self.early + self.late:
            if (id(kernel), n) in self.placed:  # it is computed there already: that value is stored
                self.home[n] = kernel
                return
        sizes = rows_of(self.nodes[n])
        for kernel in self.late if not early else self.early:  # with others of its shape
            plain = all(self.elementwise(k) or self.joins(k) for k in kernel.nodes)
            alike = kernel.kind == "rows" and kernel.sizes == sizes and plain and kernel.place >= position
            if alike and self.fits(kernel, n):
                self._join(kernel, n)
                self.home[n] = kernel
                return
        self._open(n, sizes)

    def _open(self, n: int, sizes: tuple[int, ...]) -> None:
        """A kernel of its own for an elementwise node; what waits and does not fit in there is stored first."""
        trial = Kernel("rows", sizes, BEFORE if self.position(n) == (0, -1) else (1, 1 << 30))
        for view in self.operands(n):
            if not self._operand_fits(trial, "full", view, 40):
                self._store(view.base)
        for x in self.bases(n):
            if self.computed(x) and is_lookup(self.nodes, self.nodes[n]) and x == self.bases(n)[0]:
                self._store(x)
        early = all(self.home[x].place[0] == 0 for x in self._below(n))
        kernel = self._new("rows", sizes, early)
        self._join(kernel, n)
        self.home[n] = kernel

    def _below(self, n: int) -> list[int]:
        """The placed nodes that a waiting node needs, through those that wait, too."""
        found, todo, seen = [], list(self.bases(n)), set()
        while todo:
            x = todo.pop()
            if x in seen:
                continue
            seen.add(x)
            if x in self.home:
                found.append(x)
            else:
                todo += self.bases(x)
        return found

    # -- the rules

    def _place(self, n: int) -> None:
        node = self.nodes[n]
        if not self.computed(n) or n in self.home or self.virtual(n):
            return
        if node.primitive is contract.matmul:
            self._place_product(n)
        elif node.primitive is winograd_convolution:
            self._place_convolution(n)
        elif node.primitive.name in REDUCTIONS:
            self._place_reduction(n)
        elif not self.elementwise(n):
            self._place_single(n)
        elif node.primitive is reorder:
            self._store(n)
        elif node.size == 1:
            self._place_scalar(n)
        else:
            place = self.position(n)
            if place != (0, -1):
                kernel = (self.early, self.late)[place[0]][place[1]]
                if self._wants_numbers(kernel, n):
                    return
                if not self.fits(kernel, n):
                    self._store_small(n)
                    self._open_gates(kernel, n)
                if self.fits(kernel, n):
                    self._join(kernel, n)

    def _wants_numbers(self, kernel: Kernel, n: int) -> bool:
        """Whether a node needs nothing but numbers of a kernel of one row, which one thread computes: it waits."""
        if kernel.kind != "rows" or kernel.sizes[0] != 1:
            return False
        met = {x for k in kernel.nodes for x in (k, *self.bases(k)) if self.nodes[x].size > 1}
        todo = [n]
        while todo:
            below = self.bases(todo.pop())
            if met.intersection(below):
                return False
            todo += [x for x in below if self.computed(x) and x not in self.home]
        return True

    def _open_gates(self, kernel: Kernel, n: int) -> None:
        """Rule 8: a product whose columns are so many gates, if `n` takes one of them."""
        if kernel.gates > 1:  # opened by another node
            return
        kernel.gates = gates_for(self, kernel, n)
        if not self.fits(kernel, n):
            kernel.gates = 1

    def _store_small(self, n: int) -> None:
        """Store what a node reads over and over, and what depends on inputs alone: it may fit then."""
        for x in self.bases(n):
            if self.nodes[x].size < self.nodes[n].size and self.position(x) == (0, -1):
                self._store(x)

    def _place_single(self, n: int) -> None:
        for x in self.bases(n):
            self._store(x)
        if self._beside_parts(n):
            return
        found = self._search_of(n)
        self._join(self._new("single", (self.nodes[n].size,)) if found is None else self.home[found], n)

    def _beside_parts(self, n: int) -> bool:
        """Rule 7: values that one row kernel makes, side by side in each row, are written where they are to stand."""
        node, parts = self.nodes[n], self.operands(n)
        kernel = self.home.get(parts[0].base)
        if not self.joins(n) or kernel is None or kernel.kind != "rows" or node.attributes["axis"] != node.ndim - 1:
            return False
        for part in parts:
            alike = part.dense and part.shape == parts[0].shape and part.shape[-1] == kernel.sizes[1]
            if not alike or self.home.get(part.base) is not kernel or self.level(kernel, part.base) != "full":
                return False
        self._join(kernel, n)
        return True

    def _search_of(self, n: int) -> int | None:
        """The search for the largest elements of windows, where a node reads these: both are done at once."""
        node = self.nodes[n]
        if node.primitive is not window_take:
            return None
        x, winners = (self.views[i] for i in node.inputs)
        search = self.nodes[winners.base]
        same = search.primitive is window_argmax and winners.dense and self.views[search.inputs[0]] == x
        alone = same and self.home[winners.base].nodes == [winners.base]
        return winners.base if alone and search.attributes == node.attributes else None

    def _place_convolution(self, n: int) -> None:
        """Its results are the rows of a matrix, one for each place: what follows can be computed with it."""
        for x in self.bases(n):
            self._store(x)
        columns = self.nodes[n].shape[-1]
        self._join(self._new("contract", (1, self.nodes[n].size // columns, columns)), n)

    def _place_product(self, n: int) -> None:
        node = self.nodes[n]
        for x in self.bases(n):
            self._store(self.bases(x)[0] if self.virtual(x) else x)
        rows, columns = node.shape[-2:]
        kernel = self._new("contract", (node.size // (rows * columns), rows, columns))
        if few_columns(self.program, self.views, n):
            kernel.kind, kernel.sizes = "rows", (rows, columns)
        self._join(kernel, n)

    def _place_reduction(self, n: int) -> None:
        node = self.nodes[n]
        view = self.views[node.inputs[0]]
        kind, sizes = reduction_sizes(view.shape, node.attributes["axes"])
        candidates = [k for k in self.late if k.kind == kind and k.sizes == sizes]
        x = view.base
        if kind == "columns" and self._beside_product(n, view, sizes):
            return
        for kernel in candidates:
            if self._reduction_fits(kernel, view):
                self._join(kernel, n)
                return
        trial = Kernel(kind, sizes, (1, 1 << 30))
        if self.computed(x) and x not in self.home and not self._reduction_fits(trial, view):
            self._store(x)
        self._join(self._new(kind, sizes), n)

    def _beside_product(self, n: int, view: View, sizes: tuple[int, ...]) -> bool:
        """Rule 2: a sum down columns joins the product that makes its addends, as a stack of products if need be."""
        place = self.position(view.base)
        if place == (0, -1):
            return False
        kernel = (self.early, self.late)[place[0]][place[1]]
        if not self._adds_up(kernel, n, sizes):
            return False
        before, kernel.sizes = kernel.sizes, sizes
        views = [v for x in kernel.nodes if self.elementwise(x) for v in self.operands(x)]
        if all(self.blocks(kernel, "full", v) is not None for v in views) and self._reduction_fits(kernel, view):
            self._join(kernel, n)
            return True
        kernel.sizes = before
        return False

    def _adds_up(self, kernel: Kernel, n: int, sizes: tuple[int, ...]) -> bool:
        """Whether a product can be made so that a thread meets all addends of each sum down its columns."""
        stack, rows, columns = sizes
        plain = kernel.kind == "contract" and kernel.gates == 1
        alike = plain and kernel.sizes in (sizes, (1, stack * rows, columns))
        if not alike or self.nodes[n].primitive.name != "sum" or self.nodes[n].dtype in dtypes.HALVES:
            return False
        product = next(self.nodes[x] for x in kernel.nodes if self.nodes[x].primitive in PRODUCTS)
        if product.primitive is winograd_convolution:
            return stack == product.shape[0] and stack > 1
        shared = columns >= max(WIDE, rows // TALL) if stack == 1 else rows >= HIGH
        return shared and not self.sums_places(kernel)

    def _reduction_fits(self, kernel: Kernel, view: View) -> bool:
        return self._operand_fits(kernel, "full", view, 40)

    def _place_scalar(self, n: int) -> None:
        place = self.position(n)
        for kernel in self.early + self.late:
            near = kernel.sizes == (1, 1) or kernel.place == place
            one_row = kernel.kind == "rows" and kernel.sizes[0] == 1 and kernel.place >= place
            if near and one_row and self.fits(kernel, n):
                self._join(kernel, n)
                return
        self._open(n, (1, 1))
