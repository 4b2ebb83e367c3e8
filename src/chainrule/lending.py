"""Tensors that a Session has handed out, but whose values are still inside: copied out when somebody asks.

Whoever looks at one weight of a model gets tensors for everything that the Session has for it, moments of the optimiser
included, and asks for the values of few of them. The others need not be copied: when the next step is made on the same
state, or when another Session takes it over, nobody has these tensors any more. Those that somebody still has get their
values before the memory changes.
"""

import threading
import weakref
from collections.abc import Collection
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.primitive import Shape
from chainrule.core.tensor import LEAVES, NONE, VALUE, Tensor
from chainrule.engines import Session
from chainrule.engines.base import ChunkSession

handing = threading.RLock()  # held while values are copied; taken last: whoever holds it waits for nobody

_value: Any = Tensor.value  # type: ignore[misc]  # the slot itself


class LentTensor(Tensor):
    """A tensor whose value is in a Session. Once that is copied out, it is a Tensor like any other."""

    __slots__ = ()

    @property
    def value(self) -> np.ndarray:  # type: ignore[override]
        """The value, copied out now."""
        with handing:
            if type(self) is LentTensor:
                self.attributes["lender"].hand_over(self)
        array: np.ndarray = _value.__get__(self)
        return array


def _settle(x: LentTensor, array: np.ndarray) -> None:
    _value.__set__(x, array)
    x.attributes = {}
    x.__class__ = Tensor  # type: ignore[assignment]  # the same slots; and now nothing tells it from others


class Lender:
    """A Session, and the tensors whose values are in it alone.

    updated  which of its held inputs `fetch` gives, in that order
    """

    def __init__(self, session: Session, updated: list[int]) -> None:
        self.session, self.updated = session, updated
        self.able = session if isinstance(session, ChunkSession) else None  # asked once, since asking takes long
        self.lent: list[weakref.ref[Tensor]] = []

    def lend(self, number: int, shape: Shape, dtype: dtypes.DType, role: tree.Role) -> Tensor:
        """A tensor of the present value of the held input of this number."""
        scopes = frozenset([LEAVES]) if role == "parameter" else NONE
        x = Tensor(VALUE, (), {"lender": self, "number": number}, shape, dtype, None, scopes)
        x.__class__ = LentTensor
        with handing:
            self.lent.append(weakref.ref(x))
        return x

    def hand_over(self, x: LentTensor) -> None:
        """Give a tensor its value; all of them, where the Session has no other way."""
        if self.able is not None:
            _settle(x, self.able.get(x.attributes["number"]))
        else:
            self.recall()

    def recall(self, numbers: Collection[int] | None = None) -> None:
        """The memory is about to change: give their values to all tensors that somebody still has, or to those of
        these held inputs."""
        with handing:
            alive = self._alive()
            wanted = [x for x in alive if numbers is None or x.attributes["number"] in numbers]
            if self.able is not None:
                for x in wanted:
                    _settle(x, self.able.get(x.attributes["number"]))
            elif wanted:
                arrays = dict(zip(self.updated, self.session.fetch(), strict=True))
                for x in alive:
                    _settle(x, arrays[x.attributes["number"]])
            self.lent = [weakref.ref(x) for x in self._alive()]

    def _alive(self) -> list[LentTensor]:
        return [x for x in (ref() for ref in self.lent) if type(x) is LentTensor]

    def copy_in(self, x: Tensor, number: int) -> bool:
        """Copy the value of a tensor from the Session that has it straight into the held input of this number; False
        where that does not work: then it has to come as an array."""
        if type(x) is not LentTensor or self.able is None:
            return False
        lender, theirs = x.attributes["lender"], x.attributes["number"]
        return lender is not self and self.able.copy(lender.session, theirs, number)

    def take(self, other: "Lender") -> bool:
        """Have all that another Session holds, and its memory if possible; False where they do not hold the same."""
        with handing:
            if self.able is None or self._alive() or not self.able.take(other.session):
                return False
            for x in other._alive():
                x.attributes["lender"] = self
            self.lent, other.lent = other.lent, []
        return True
