"""Resident state: between the calls of a compiled function the tensors of its objects stay inside of the engine.

A training step replaces every tensor of a Module and an Optimizer. To hand them out after each step, only to take them
in again with the next, would cost more than the step of a small network. So they are left in the engine's Session, and
taken out of the objects' attributes; the objects refer to the `Resident`, which brings all of them back as soon as
somebody looks at one (`chainrule.tree.Stateful` says who looks, and how that is noticed). The objects keep the Session
alive, which keeps none of them alive.

Settings of the objects cannot change unseen in the meantime: setting an attribute brings the tensors back, and the
dicts and lists among the attributes are watched.
"""

import itertools
import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from chainrule import tree
from chainrule.core.tensor import Tensor
from chainrule.engines import Executable, Session
from chainrule.lending import Lender, handing

Result = TypeVar("Result")

moving = threading.RLock()  # held while attributes are taken out or put back; the lock of a Home is taken before it


class Place(NamedTuple):
    """An attribute that has tensors in it: of which object, its structure, its leaves; those of objects are their own.

    movable   whether it can be taken out: no other object in it, and none of its name in the class, which would then
              be found in its stead
    """

    owner: int
    name: str
    spec: tree.Spec
    leaves: tuple[int, ...]
    movable: bool


def places(spec: tree.Spec) -> Iterator[Place]:
    """All attributes of Stateful objects that have tensors in them."""
    if spec.kind == "object":
        for name, child in zip(spec.names, spec.children, strict=True):
            inside = list(_directly_inside(child))
            leaves = tuple([x.number for x in inside if x.kind == "leaf"])
            if leaves:
                movable = len(leaves) == len(inside) and not hasattr(spec.container, name)
                yield Place(spec.number, name, child, leaves, movable)
    for child in spec.children:
        yield from places(child)


def _directly_inside(spec: tree.Spec) -> Iterator[tree.Spec]:
    """The leaves and objects in a container, but not those in the objects."""
    if spec.kind in ("leaf", "object", "again"):
        yield spec
    elif spec.kind == "items":
        for child in spec.children:
            yield from _directly_inside(child)


class Watch:
    """Dicts and lists, and what they hold now."""

    def __init__(self, containers: Sequence[Any]) -> None:
        self.containers = containers
        self.parts = [*containers, *[dict.values(x) for x in containers if isinstance(x, dict)]]
        self.lengths = list(map(len, containers))
        self.elements = list(itertools.chain.from_iterable(self.parts))

    def unchanged(self) -> bool:
        """Whether all hold the very same things."""
        same = map(operator.is_, itertools.chain.from_iterable(self.parts), self.elements)
        return list(map(len, self.containers)) == self.lengths and all(same)


class Away:
    """What stands in an object in the place of its tensors: it belongs to the object, and knows what the Session does
    not: the order of its attributes, tensors that no step replaces, static values, and the dicts and lists to watch."""

    def __init__(
        self, resident: "Resident", thing: tree.Stateful, mine: Sequence[Place], flat: tree.Flat, watch: Watch | None
    ) -> None:
        self.resident, self.thing, self.places, self.watch = resident, weakref.ref(thing), mine, watch
        self.order = tree.names_of(thing)
        source = resident.home.source
        self.kept = {n: flat.leaves[n].value for place in mine for n in place.leaves if n not in source}
        self.statics = {n: flat.statics[n] for place in mine for n in _statics(place.spec)}

    def settle(self) -> None:
        """Bring the tensors of this object back, and of all that went with it."""
        asked = None
        while asked is not self.resident:  # meanwhile they may have been passed on to another Session
            asked = self.resident
            asked.settle()

    def begin(self) -> None:
        """Take the tensors out."""
        thing = self.thing()
        if thing is not None and tree.absent_of(thing) is None:
            tree.take_out(thing, [place.name for place in self.places], self)

    def end(self, new: Mapping[int, Tensor]) -> None:
        """Put the present tensors in, which are given by leaf."""
        thing = self.thing()
        if thing is not None and tree.absent_of(thing) is self:
            leaves = {**self.kept, **new}
            values = {place.name: tree.maker(place.spec, self.statics)(leaves) for place in self.places}
            tree.put_back(thing, values, self.order)


class Resident:
    """The objects whose tensors are in a Session, from one look at them to the next. It keeps none of them alive.

    current   the Session may make another step: nobody has looked
    away      the objects lack their tensors
    loaded    whether anything had to be copied in at the beginning: else it goes on where the Session was left
    """

    def __init__(self, home: "Home") -> None:
        self.home = home
        self.current = self.away = self.stepping = self.loaded = False
        self.objects: list[weakref.ref[Away]] = []
        self.watches: list[weakref.ref[Watch]] = []
        self.seen: list[Away] = []  # those that were brought back while a step ran

    def move_in(self, flat: tree.Flat, watches: Mapping[int, Watch], changes: dict[int, int]) -> bool:
        """Take the tensors out of the objects; False when another thread has moved one of them meanwhile. If one has
        set an attribute, unlike `changes` says, nobody knows what is in the Session: no step is to be made on it."""
        volatile = self.home.volatile
        with moving:
            if any(tree.absent_of(thing) is not None for thing in flat.objects):
                return False
            self.away = True
            for i, thing in enumerate(flat.objects):
                mine = [place for place in volatile if place.owner == i]
                away = Away(self, thing, mine, flat, watches.get(i))
                self.objects.append(weakref.ref(away))
                away.begin()
            self.watches = [weakref.ref(watch) for watch in watches.values()]
            self.current = tree.changes_elsewhere() == changes
        return True

    def ready(self) -> bool:
        """Whether the Session may make another step, since nobody has looked and no dict or list has changed."""
        for ref in self.watches:
            watch = ref()
            if watch is None or not watch.unchanged():
                return False
        return self.current

    def settle(self) -> None:
        """Bring all tensors back."""
        with self.home.lock:
            if self.away:
                self.current = False
                objects = self._bring_back()
                self.seen = objects if self.stepping else []
                if self.stepping:  # what is handed out has the values of before
                    self.home.lender.recall()
                self.away = False

    def step(self, passed: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """A step on what is in the Session; None if somebody has looked at it meanwhile."""
        with self.home.lock:
            if not self.current:
                return None
            if self.home.lender.lent:
                self.home.lender.recall()
            self.stepping = True
            try:
                return self.home.session.step(passed)
            finally:
                self.stepping = False
                if not self.current:
                    self._correct()

    def use(self, work: Callable[[Any], Result]) -> Result | None:
        """Like `step`, but what is done with the Session is up to `work`, and so is what comes out."""
        with self.home.lock:
            if not self.current:
                return None
            self.home.lender.recall()
            self.stepping = True
            try:
                return work(self.home.session)
            finally:
                self.stepping = False
                if not self.current:
                    self._correct()

    def pass_on(self, home: "Home") -> "Resident | None":
        """Have the objects in another Home, of a function of the same objects, without looking at them; None where
        somebody has looked already, or is at work in one of the two."""
        with self.home.lock:
            if not home.lock.acquire(blocking=False):  # waiting could be for ever: somebody may pass on the other way
                return None
            try:
                with moving:
                    return self._passed_on(home)
            finally:
                home.lock.release()

    def _passed_on(self, home: "Home") -> "Resident | None":
        if not self.ready() or not self.away or self.stepping or not home.succeed(self.home):
            return None
        heir = Resident(home)
        heir.objects, heir.watches, heir.away, heir.current = self.objects, self.watches, True, True
        home.tenant, self.home.tenant = weakref.ref(heir), None
        self.objects, self.away, self.current = [], False, False
        for away in (ref() for ref in heir.objects):
            if away is not None:
                away.resident = heir
        return heir

    def _correct(self) -> None:
        """Somebody looked while a step ran (a signal handler, a finaliser), maybe too early: bring back once more."""
        with moving:
            for away in self.seen:
                away.begin()
        self._bring_back()
        self.seen = []

    def _bring_back(self) -> list[Away]:
        objects = [away for away in (ref() for ref in self.objects) if away is not None]
        if objects:
            new = self.home.hand_out()
            with moving:
                for away in objects:
                    away.end(new)
        return objects


def _statics(spec: tree.Spec) -> Iterator[int]:
    if spec.kind == "static":
        yield spec.number
    for child in spec.children:
        yield from _statics(child)


class Home:
    """The Session of a signature, and what is known of the tensors in it.

    held       the leaves of the arguments that it holds, in order
    updated    those of them that a step replaces, in order
    source     which of these a leaf gets its new value from: itself, or the one that it is tied to
    volatile   the attributes that a step replaces
    known      the tensors that the held leaves are copies of; None where a step has made another value
    spec       the structure of the arguments
    """

    def __init__(self, session: Session, flat: tree.Flat, held: Sequence[int], source: Mapping[int, int]) -> None:
        self.session, self.held, self.source, self.spec = session, held, source, flat.spec
        self.updated = [i for i in held if source.get(i) == i]
        number = {i: k for k, i in enumerate(held)}
        self.lender = Lender(session, [number[i] for i in self.updated])
        leaves = [(i, flat.leaves[i]) for i in self.updated]
        self.lendable = [(i, number[i], tuple(x.value.shape), x.value.dtype, x.role) for i, x in leaves]
        self.roles = {i: flat.leaves[i].role for i in source}
        self.volatile = [place for place in places(flat.spec) if any(i in source for i in place.leaves)]
        self.names: dict[int, list[str]] = {}
        for place in self.volatile:
            self.names.setdefault(place.owner, []).append(place.name)
        self.known: dict[int, weakref.ref[Tensor] | None] = dict.fromkeys(held)
        self.lock = threading.RLock()
        self.tenant: weakref.ref[Resident] | None = None

    @staticmethod
    def of(executable: Executable, flat: tree.Flat, held: Sequence[int], source: Mapping[int, int]) -> "Home | None":
        """A Home for these arguments; None when the engine has no Session, or some tensor cannot be taken out."""
        if not all([place.movable for place in places(flat.spec) if any(i in source for i in place.leaves)]):
            return None
        session = executable.open()
        return None if session is None else Home(session, flat, held, source)

    def watch(self, flat: tree.Flat) -> dict[int, Watch] | None:
        """What is to be watched in each object while its tensors are here; None when they cannot be: one is an array,
        which others may write to, or there is something that cannot be watched."""
        if not all([isinstance(flat.leaves[i].value, Tensor) for i in self.held]):
            return None
        found: dict[int, Watch] = {}
        seen: set[int] = set()
        try:
            for i, thing in enumerate(flat.objects):
                ignored = {*self.names.get(i, ()), *thing._never_written}
                inside = [value for name, value in tree.attributes(thing).items() if name not in ignored]
                containers = {id(x): x for value in inside for x in tree.containers(value) if id(x) not in seen}
                if containers:
                    found[i] = Watch(list(containers.values()))
                    seen.update(containers)
        except TypeError:
            return None
        return found

    def run(
        self, flat: tree.Flat, watches: Mapping[int, Watch], passed: Sequence[np.ndarray], changes: dict[int, int]
    ) -> tuple[list[np.ndarray], Resident | dict[int, Tensor]]:
        """A step on the tensors of `flat`. The results, and who has the new tensors now: a Resident, or (when another
        thread is at the same objects) nobody yet: then these are the new tensors, by leaf."""
        with self.lock:
            self._take(flat)
            self.lender.recall()
            results = self.session.step(passed)
            resident = Resident(self)
            if not resident.move_in(flat, watches, changes):
                return results, self.hand_out()
            self.tenant = weakref.ref(resident)
            return results, resident

    def enter(
        self, flat: tree.Flat, watches: Mapping[int, Watch], changes: dict[int, int], after: "Home | None" = None
    ) -> Resident | None:
        """Take in the tensors of `flat` without a step; None when another thread is at the same objects. What the Home
        `after` has in its memory and needs no longer is taken over."""
        with self.lock:
            if after is not None and after is not self:
                self._take_over(after)
            loaded = self._take(flat)
            resident = Resident(self)
            resident.loaded = loaded
            if not resident.move_in(flat, watches, changes):
                return None
            self.tenant = weakref.ref(resident)
            return resident

    def empty(self) -> None:
        """Bring back the tensors that are here, with their values: nobody needs the Session after that."""
        with self.lock:
            tenant = None if self.tenant is None else self.tenant()
            if tenant is not None:
                tenant.settle()
            self.lender.recall()

    def _take(self, flat: tree.Flat) -> bool:
        """Get the Session ready for steps on the tensors of `flat`; whether anything had to be copied in."""
        tenant = None if self.tenant is None else self.tenant()
        if tenant is not None:
            tenant.settle()
        loaded = self._load(flat)
        for i in self.updated:
            self.known[i] = None
        return loaded

    def like(self, other: "Home") -> bool:
        """Whether the same objects could be in either, their leaves with the same numbers."""
        return self.held == other.held and self.source == other.source and self.spec == other.spec

    def succeed(self, other: "Home") -> bool:
        """Take over what another Home that is `like` this one has, its tenant's tensors; False where that fails."""
        tenant = None if self.tenant is None else self.tenant()
        return not (tenant is not None and tenant.away) and self._have(other)

    def _have(self, other: "Home") -> bool:
        if not self.lender.take(other.lender):
            return False
        self.known = dict(zip(self.held, [other.known[i] for i in other.held], strict=True))
        other.known = dict.fromkeys(other.held)
        return True

    def _take_over(self, other: "Home") -> None:
        if len(other.held) != len(self.held) or not other.lock.acquire(blocking=False):  # waiting could be for ever
            return
        try:
            tenants = [tenant for tenant in (home.tenant and home.tenant() for home in (self, other)) if tenant]
            if not any(tenant.away or tenant.stepping for tenant in tenants):
                self._have(other)
        finally:
            other.lock.release()

    def _load(self, flat: tree.Flat) -> bool:
        """Copy in what is not there yet; whether there was any."""
        now = {i: flat.leaves[i].value for i in self.held}
        known = {i: ref() for i, ref in self.known.items() if ref is not None}
        missing = {k for k, (i, x) in enumerate(now.items()) if known.get(i) is not x}
        self.lender.recall(missing)
        self.known = dict.fromkeys(self.held)
        arrays: list[np.ndarray | None] = [None] * len(now)
        with handing:
            for k, x in enumerate(now.values()):
                if k in missing and not self.lender.copy_in(x, k):
                    arrays[k] = np.asarray(x.value)
        self.session.load(arrays)
        self.known = {i: weakref.ref(x) for i, x in now.items()}
        return bool(missing)

    def hand_out(self) -> dict[int, Tensor]:
        """The updated leaves as they are now, as new tensors."""
        made = {}
        for i, *what in self.lendable:
            made[i] = self.lender.lend(*what)
            self.known[i] = weakref.ref(made[i])
        return {i: made[j] for i, j in self.source.items()}
