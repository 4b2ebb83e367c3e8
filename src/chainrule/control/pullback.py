"""The body of a loop differentiated: what a step of the backward loop computes, and what is left to do after it.

The gradient of a step is traced on the tensors of the body itself. What it reads of the forward pass is taken from
outside where it is at hand for all steps (the sequences, what the steps produced, what they saved for this), and else
computed again in the backward step.

The gradient of a constant is the sum of what each step adds to it, but is not added up step by step where it need not
be. A product of matrices is left out of the backward step, which produces the operands instead: they are multiplied
once, after the loop, with the steps as a part of the inner axis. What steps produce anyway is added up after the loop
as well. Only the rest is carried along.
"""

from collections.abc import Callable, Iterable, Sequence

from chainrule import dtypes
from chainrule.control.body import Body, dependent, make_body
from chainrule.core.autodiff import ALIAS, STOP, backward
from chainrule.core.tensor import Tensor, apply, full, serials, symbol
from chainrule.functions.custom import AFTER
from chainrule.primitives import contract, index, layout
from chainrule.primitives import elementwise as e
from chainrule.primitives.operators import cast_to

Along = Callable[[Tensor], Tensor]
CHEAP = (  # quicker to compute again than to store and to load
    e.add, e.sub, e.mul, e.neg, e.abs, e.sign, e.maximum, e.minimum, e.where, e.cast, e.copysign, e.floor, e.ceil,
    e.round, e.equal, e.less, e.less_equal, e.bit_and, e.bit_or, e.bit_xor, e.bit_not, ALIAS, STOP, AFTER,
)  # fmt: skip


class Step:
    """One step of the backward loop, on the tensors of the body.

    seeds     symbols for the gradients of the new carries; `before` are the gradients of the carries
    produced  symbols for the gradients of what the step produced, by its number among the results
    sums      symbols for the gradients of constants that are carried along, each with what a step adds
    emitted   what comes out of each step, by serial number
    grads     the gradient of each input of the body, where it is wanted
    at_hand   the serial numbers of what is known of all steps
    """

    def __init__(
        self, body: Body, constants: int, carries: int, present: Sequence[int], wanted: Sequence[bool], length: int
    ) -> None:
        self.body, self.constants, self.carries, self.length = body, constants, carries, length
        self.start = next(serials)  # tensors of the body are older than this
        self.slices = body.symbols[constants + carries :]
        self.names, results = list(body.arguments)[constants : constants + carries], body.results
        self.seeds = [symbol(f"d.{n}", y.shape, y.dtype) for n, y in zip(self.names, results, strict=False)]
        self.produced = {k: symbol(f"d.y.{k - carries}", results[k].shape, results[k].dtype) for k in present}
        found = backward(
            [*results[:carries], *[results[k] for k in present]], [*self.seeds, *self.produced.values()], body.symbols
        )
        pairs = zip(body.symbols, found, strict=True)
        filled = [full(x.shape, 0, x.dtype) if g is None else g for x, g in pairs]
        self.before = filled[constants : constants + carries]
        self.grads = [g if w else None for g, w in zip(found, wanted, strict=True)]
        self.varying = self._varying()
        known = [*self.slices, *results[carries:], *self.produced.values()]
        self.at_hand = {x.serial for x in known} & self.varying
        self.emitted: dict[int, Tensor] = {}
        leaves: dict[int, Tensor] = {}
        self.gradients(self._emit, lambda g: leaves.setdefault(g.serial, g))
        added = {serial: g for serial, g in leaves.items() if not self.is_produced(g)}
        self.sums = [(symbol(f"sum.{i}", g.shape, body.stored), g) for i, g in enumerate(added.values())]
        sums = [x + cast_to(g, x.dtype) for x, g in self.sums]
        self.results = [*self.before, *sums, *self.emitted.values()]  # what a step returns: new carries, products

    def _varying(self) -> set[int]:
        """What is not the same in each step."""
        roots = [g for g in (*self.grads, *self.body.results) if g is not None]
        symbols = [*self.body.symbols[self.constants :], *self.seeds, *self.produced.values()]
        return dependent(roots, symbols, self.body.start)[0]

    def _emit(self, x: Tensor) -> Tensor:
        if x.serial not in self.at_hand:
            self.emitted[x.serial] = x
        return symbol("all", (self.length, *x.shape), x.dtype)

    # -- what is left to do after the loop

    def gradients(self, of_all: Along, total: Along) -> list[Tensor | None]:
        """The gradients of the constants, then of the sequences. `of_all` gives for a tensor of one step that of all
        steps, `total` the sum over them."""
        first = self.constants + self.carries
        steady = [None if g is None else self._summed(g, of_all, total) for g in self.grads[: self.constants]]
        return [*steady, *[None if g is None else self.along(g, of_all) for g in self.grads[first:]]]

    def along(self, x: Tensor, of_all: Along) -> Tensor:
        """`x` of all steps, where only its memory is in another order than that of what steps produce."""
        if x.serial not in self.at_hand and x.inputs:
            if x.primitive is layout.transpose:
                axes = (0, *[a + 1 for a in x.attributes["axes"]])
                return layout.transpose(self.along(x.inputs[0], of_all), axes=axes)
            if x.primitive is layout.reshape:
                return layout.reshape(self.along(x.inputs[0], of_all), shape=(self.length, *x.shape))
            if not dtypes.is_float(x.dtype):
                return apply(x.primitive, *[self.along(i, of_all) for i in x.inputs], **x.attributes)
        if x.serial not in self.varying and is_one_number(x):
            assert x.value is not None
            return full((self.length, *x.shape), x.value.reshape(-1)[0], x.dtype)
        return of_all(x)

    def _follows(self, x: Tensor) -> bool:
        """Whether integers of all steps follow from what is at hand, element by element: they cannot be produced."""
        if x.serial in self.at_hand or is_one_number(x):
            return True
        moved = x.primitive.kind == "elementwise" or x.primitive in (layout.transpose, layout.reshape)
        return moved and bool(x.inputs) and not dtypes.is_float(x.dtype) and all(map(self._follows, x.inputs))

    def is_produced(self, x: Tensor) -> bool:
        """Whether `along` needs nothing that is not there."""
        while x.serial not in self.at_hand and x.inputs and x.primitive in (layout.transpose, layout.reshape):
            x = x.inputs[0]
        return x.serial in self.at_hand or x.serial in self.emitted

    def _summed(self, g: Tensor, of_all: Along, total: Along) -> Tensor:
        """The sum of `g` over the steps."""
        if not self._contracts(g):
            return total(g)
        if g.primitive is e.add:
            return self._summed(g.inputs[0], of_all, total) + self._summed(g.inputs[1], of_all, total)
        if g.primitive is contract.matmul:
            return _product(*[self.along(x, of_all) for x in g.inputs])
        if g.primitive is index.scatter_add:
            _, rows, updates = [x if i == 0 else self.along(x, of_all) for i, x in enumerate(g.inputs)]
            return index.scatter_add(full(g.shape, 0, g.dtype), rows, updates)
        return apply(g.primitive, self._summed(g.inputs[0], of_all, total), **g.attributes)

    def _contracts(self, g: Tensor) -> bool:
        """Whether the sum of `g` over the steps is made of products that may be left for after the loop."""
        if g.serial < self.start or g.serial in self.at_hand:
            return False
        if g.primitive is contract.matmul:
            return all([x.serial in self.varying and self._storable(x) for x in g.inputs])
        if g.primitive is index.scatter_add:  # into zeros, at rows that are known
            table, rows, updates = g.inputs
            zero = is_one_number(table) and table.value is not None and not table.value.any()
            return zero and self._follows(rows) and self._storable(updates)
        if g.primitive is e.add:
            return any([self._contracts(x) for x in g.inputs])
        return g.primitive in (layout.transpose, layout.reshape) and self._contracts(g.inputs[0])

    # -- what is read of the forward pass

    def read(self) -> tuple[list[Tensor], list[Tensor]]:
        """The constants, and what is at hand, that the step reads."""
        met, _ = self._walk(lambda x: False)
        constants = {x.serial for x in self.body.symbols[: self.constants]}
        return [x for x in met if x.serial in constants], [x for x in met if x.serial in self.at_hand]

    def lacks(self) -> bool:
        """Whether a carry is read that was not saved."""
        carries = {x.serial for x in self.body.symbols[self.constants : self.constants + self.carries]}
        return any([x.serial in carries for x in self._walk(lambda x: False)[0]])

    def saving(self) -> Body:
        """The body that also produces what is worth saving for this step."""
        body = self.body
        carries = {x.serial for x in body.symbols[self.constants : self.constants + self.carries]}
        ends = carries | self.at_hand

        def saved(x: Tensor) -> bool:
            if x.serial in carries:
                return True
            if x.primitive is layout.slice and body.start <= x.serial < self.start:
                whole = x.inputs[0]  # of a product no more is saved than what is read of it
                return whole.primitive.kind != "control" and whole.serial not in ends and saved(whole)
            cheap = x.primitive in CHEAP or x.primitive.kind in ("layout", "source")
            forward = body.start <= x.serial < self.start and x.serial in self.varying
            return forward and not cheap and self._storable(x)

        found = self._walk(saved)[1]
        return make_body(body.name, body.arguments, self.names, [*body.results, *found], body.stored, body.start)

    def _storable(self, x: Tensor) -> bool:
        return dtypes.is_float(x.dtype) and dtypes.promote(x.dtype, self.body.stored) == self.body.stored

    def _walk(self, saved: Callable[[Tensor], bool]) -> tuple[list[Tensor], list[Tensor]]:
        """Down from the results of the step: the symbols and what is at hand, and what is `saved`."""
        ends = {x.serial for x in (*self.body.symbols, *self.seeds, *[x for x, _ in self.sums])} | self.at_hand
        met: dict[int, Tensor] = {}
        kept: dict[int, Tensor] = {}
        stack = list(self.results)
        while stack:
            x = stack.pop()
            if x.serial in met:
                continue
            met[x.serial] = x
            if x.serial not in self.at_hand and saved(x):
                kept[x.serial] = x
            elif x.serial not in ends and x.serial >= self.body.start:
                stack.extend(x.inputs)
        return _sorted(x for x in met.values() if x.serial in ends), _sorted(kept.values())


def is_one_number(x: Tensor) -> bool:
    """Whether it is a known number, stretched."""
    return x.value is not None and x.size > 0 and not any(x.value.strides)


def _sorted(tensors: Iterable[Tensor]) -> list[Tensor]:
    return sorted(tensors, key=lambda x: x.serial)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Σ over the first axis of a · b, as one product: (steps, ..., m, k) and (steps, ..., k, n) to (..., m, n)."""
    stack = tuple(range(1, a.ndim - 2))
    row, column = a.ndim - 2, a.ndim - 1
    left = layout.transpose(a, axes=(*stack, row, 0, column))
    right = layout.transpose(b, axes=(*stack, 0, row, column))
    depth = a.shape[0] * a.shape[-1]
    return contract.matmul(
        layout.reshape(left, shape=(*a.shape[1:-1], depth)),
        layout.reshape(right, shape=(*b.shape[1:-2], depth, b.shape[-1])),
    )
