"""State goes from one Session to another without a way through Python, and tensors get their values when asked."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn, optim, tree
from chainrule.core.tensor import LEAVES, Tensor
from chainrule.engines.native import executable as executables
from chainrule.engines.native.executable import NativeSession
from chainrule.lending import LentTensor
from chainrule.resident_session import enter
from chainrule.train import fit

ROWS = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
TARGETS = np.arange(64) % 3


def network(width=40):
    cr.random.manual_seed(0)
    layers = nn.Linear(5, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, 3)
    return nn.Sequential(*layers).seed(0)


def step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def look_at(model, x, y):
    return losses.cross_entropy(model(x), y)


def compiled(f=step):
    return cr.compile(f, engine="native", threads=1)


def arguments(*objects, rows):
    return *objects, ROWS[:rows], TARGETS[:rows]


def steps(stay, rows, count=1, begin=0):
    """So many steps in a Session, with rows from `begin` on; the losses."""
    numbers = (np.arange(rows * count) + begin) % 64
    return stay.use(lambda session: session.chunk([ROWS, TARGETS], numbers, count, False)).results[0].tolist()


def bits(*things):
    return [np.asarray(leaf.value).tobytes() for leaf in tree.flatten(list(things)).leaves]


def lent(*things):
    return sum(type(leaf.value) is LentTensor for leaf in tree.flatten(list(things)).leaves)


class Traffic:
    """What is copied between sessions and Python."""

    def __init__(self, monkeypatch):
        self.seen = []
        for name in ("get", "copy", "take"):
            monkeypatch.setattr(NativeSession, name, self._noted(name, getattr(NativeSession, name)))
        original = NativeSession.load

        def load(session, arrays):
            self.seen += ["load" for x in arrays if x is not None]
            return original(session, arrays)

        monkeypatch.setattr(NativeSession, "load", load)

    def _noted(self, name, original):
        def noted(session, *rest):
            self.seen.append(name)
            return original(session, *rest)

        return noted

    def since(self):
        """What there was since the last time: {kind: how often}."""
        seen, self.seen = self.seen, []
        return {name: seen.count(name) for name in set(seen)}


@pytest.fixture
def traffic(monkeypatch):
    return Traffic(monkeypatch)


# -- tensors whose values are asked for, and others --------------------------------------------------------------------


def test_only_what_is_asked_for_is_copied_out(traffic):
    model, optimizer = network(), optim.Adam(lr=0.1)
    stay = enter(compiled(), *arguments(model, optimizer, rows=8))
    steps(stay, 8)
    traffic.since()
    assert model[0].weight.shape == (40, 5) and model[0].weight.requires_grad and model[0].weight.dtype == cr.float32
    assert traffic.since() == {}
    total = lent(model, optimizer)
    weight = model[0].weight
    assert np.isfinite(np.asarray(weight)).all() and traffic.since() == {"get": 1}
    assert lent(model, optimizer) == total - 1 and type(weight) is Tensor
    assert weight.tolist() == weight.tolist() and traffic.since() == {}


def test_a_lent_tensor_is_a_tensor_whatever_is_done_with_it():
    twin, other = network(), optim.SGD(lr=0.1)
    stay = enter(compiled(), *arguments(twin, other, rows=8))
    steps(stay, 8)
    expected = np.asarray(twin[0].weight).copy()
    uses = [
        np.asarray,
        lambda w: w.numpy(),
        lambda w: np.array(w.tolist(), np.float32),
        lambda w: (w * 1).value,
        lambda w: pickle.loads(pickle.dumps(w)).numpy(),
        lambda w: copy.deepcopy(w).numpy(),
        lambda w: np.asarray(w.T.T),
        lambda w: cr.stop_gradient(w).numpy(),
        lambda w: np.asarray(cr.concat([w[:3], w[3:]])),
        lambda w: cr.grad(lambda v: (v * cr.stop_gradient(w)).sum())(w).numpy(),
    ]
    for use in uses:
        model, optimizer = network(), optim.SGD(lr=0.1)
        stay = enter(compiled(), *arguments(model, optimizer, rows=8))
        steps(stay, 8)
        weight = model[0].weight
        assert type(weight) is LentTensor and isinstance(weight, Tensor) and LEAVES in weight.scopes
        assert np.array_equal(use(weight), expected)
    assert "Tensor([" in repr(model[4].bias)


def test_tensors_that_somebody_has_get_their_values_before_these_change():
    model, optimizer, fast = network(), optim.Adam(lr=0.1), compiled()
    stay = enter(fast, *arguments(model, optimizer, rows=8))
    kept, wanted = [], []
    for begin in range(0, 40, 8):
        steps(stay, 8, begin=begin)
        kept.append(model[0].weight)
        twin = copy.deepcopy(model)
        wanted.append(np.asarray(twin[0].weight))
        kept.append(model[0].bias)
        wanted.append(np.asarray(twin[0].bias))
        stay = enter(fast, *arguments(model, optimizer, rows=8))
    steps(stay, 8)
    fast(model, optimizer, ROWS[:8], TARGETS[:8])
    assert [np.array_equal(np.asarray(x), y) for x, y in zip(kept, wanted, strict=True)] == [True] * 10
    assert len({y.tobytes() for y in wanted[::2]}) == 5


def test_tensors_keep_the_memory_that_they_need_and_no_longer():
    model, optimizer, fast = network(), optim.Adam(lr=0.1), compiled()
    stay = enter(fast, *arguments(model, optimizer, rows=8))
    steps(stay, 8)
    session = weakref.ref(stay.home.session)
    weight = model[0].weight
    del stay, fast, optimizer
    model = None
    gc.collect()
    assert session() is not None
    assert np.isfinite(np.asarray(weight)).all()
    gc.collect()
    assert session() is None


def test_threads_that_ask_at_once_get_the_same():
    model, optimizer, fast = network(), optim.Adam(lr=0.1), compiled()
    for _ in range(20):
        stay = enter(fast, *arguments(model, optimizer, rows=8))
        steps(stay, 8)
        tensors = [leaf.value for leaf in tree.flatten([model, optimizer]).leaves]
        seen = [[] for _ in range(4)]
        threads = [threading.Thread(target=lambda m=m, t=tensors: m.extend(bits(*t))) for m in seen]
        [t.start() for t in threads]
        fast(model, optimizer, ROWS[:8], TARGETS[:8])
        [t.join() for t in threads]
        assert seen[0] == seen[1] == seen[2] == seen[3]


# -- from one Session to another ---------------------------------------------------------------------------------------


def sizes_in_turn(sizes, after):
    """Bits of model and optimiser after steps of batches of different sizes."""
    model, optimizer, fast, stay, seen = network(), optim.Adam(lr=0.1), compiled(), None, []
    for k, rows in enumerate(sizes):
        stay = enter(fast, *arguments(model, optimizer, rows=rows), after=stay if after else None)
        seen += steps(stay, rows, 2, begin=7 * k)
        if not after:
            bits(model, optimizer)
    return seen, bits(model, optimizer)


SIZES = [16, 7, 16, 7, 32, 2, 32, 16, 64, 7]


def test_a_smaller_batch_works_in_the_memory_of_the_larger_one(traffic):
    model, optimizer, fast, stay = network(), optim.Adam(lr=0.1), compiled(), None
    for rows in (16, 7):
        stay = enter(fast, *arguments(model, optimizer, rows=rows), after=stay)
        steps(stay, rows)
    address = stay.home.session.arena.address
    traffic.since()
    for rows in (16, 7) * 3:
        stay = enter(fast, *arguments(model, optimizer, rows=rows), after=stay)
        assert not stay.loaded and stay.home.session.arena.address == address
        steps(stay, rows)
    assert traffic.since() == {"take": 6}


def test_who_takes_over_gets_the_same_bits():
    assert sizes_in_turn(SIZES, after=True) == sizes_in_turn(SIZES, after=False)


def test_what_is_not_laid_out_alike_is_converted(monkeypatch, traffic):
    expected = sizes_in_turn(SIZES, after=False)
    traffic.since()
    sizes_in_turn([16], after=True)
    first = traffic.since()["load"]
    numbers = iter(range(10**6))
    monkeypatch.setattr(executables, "_lies", lambda slot: next(numbers))
    for large in (executables.GIVEN_BACK, 0):
        monkeypatch.setattr(executables, "GIVEN_BACK", large)
        assert sizes_in_turn(SIZES, after=True) == expected
    seen = traffic.since()
    assert seen["copy"] == 9 * seen["load"] and seen["load"] == 2 * first


def test_nothing_depends_on_what_another_session_left_in_the_memory(monkeypatch):
    expected, original = sizes_in_turn(SIZES, after=False), NativeSession._work_in

    def spoilt(self, arena):
        inside = np.zeros(len(arena.array), bool)
        for slot in self.held:
            inside[slice(*executables._extent(slot))] = True
        arena.array[executables.FIRST :][~inside[executables.FIRST :]] = 255
        original(self, arena)

    monkeypatch.setattr(NativeSession, "_work_in", spoilt)
    assert sizes_in_turn(SIZES, after=True) == expected


def test_memory_that_is_in_use_is_not_taken():
    one, two, fast = network(), network(), compiled()
    a, b = optim.Adam(lr=0.1), optim.Adam(lr=0.1)
    first = enter(fast, *arguments(one, a, rows=16))
    steps(first, 16)
    second = enter(fast, *arguments(two, b, rows=7), after=first)  # the first has not been left
    assert second.loaded and first.current
    steps(second, 7), steps(first, 16)
    model, optimizer, alone = network(), optim.Adam(lr=0.1), compiled()
    steps(enter(alone, *arguments(model, optimizer, rows=16)), 16, 1), bits(model, optimizer)
    steps(enter(alone, *arguments(model, optimizer, rows=16)), 16, 1)
    assert bits(one, a) == bits(model, optimizer)


def test_another_model_does_not_get_what_is_there():
    fast, stay, found = compiled(), None, []
    for _ in range(3):
        model, optimizer = network(), optim.Adam(lr=0.1)
        for rows in (16, 7):
            stay = enter(fast, *arguments(model, optimizer, rows=rows), after=stay)
            steps(stay, rows)
        found.append(bits(model, optimizer))
    assert found[0] == found[1] == found[2]


def test_evaluation_copies_the_model_alone_and_leaves_the_rest_where_it_is(traffic):
    model, optimizer, fast, evaluation = network(), optim.Adam(lr=0.1), compiled(), compiled(look_at)
    for _ in range(3):
        stay = enter(fast, *arguments(model, optimizer, rows=16))
        steps(stay, 16)
        traffic.since()
        inside = enter(evaluation, *arguments(model.eval(), rows=16))
        loss = inside.use(lambda session: session.chunk([ROWS, TARGETS], np.arange(16), 1, False)).results[0]
        assert traffic.since().get("get", 0) == 0
        model.train()
        eager = look_at(copy.deepcopy(model).eval(), ROWS[:16], TARGETS[:16])
        assert float(loss[0]) == pytest.approx(float(eager), 1e-5)


MOVES = ("16", "7", "7", "32", "look", "keep", "rate", "eager", "evaluate", "copy", "swap", "call", "save", "restore")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(MOVES), min_size=4, max_size=16))
def test_any_order_of_moves_gives_the_bits_of_plain_calls(moves):
    ours, theirs = [network(), network()], [network(), network()]
    a, b = optim.Adam(ours[0], lr=0.1), optim.Adam(theirs[0], lr=0.1)
    mine, plain, evaluation, stay = compiled(), compiled(), compiled(look_at), None
    kept, saved = [], None
    for k, move in enumerate(moves):
        x, y = np.roll(ROWS, 3 * k, axis=0), np.roll(TARGETS, 3 * k)
        if move.isdecimal():
            rows = int(move)
            stay = enter(mine, *arguments(ours[0], a, rows=rows), after=stay)
            steps(stay, rows, begin=k)
            numbers = (np.arange(rows) + k) % 64
            plain(theirs[0], b, ROWS[numbers], TARGETS[numbers])
        elif move == "call":
            assert float(mine(ours[0], a, x[:16], y[:16])) == float(plain(theirs[0], b, x[:16], y[:16]))
        elif move == "look":
            assert ours[0][0].weight.tolist() == theirs[0][0].weight.tolist()
        elif move == "keep":
            kept.append((ours[0][4].weight, np.asarray(theirs[0][4].weight)))
        elif move == "rate":
            a.lr = b.lr = a.lr / 2
        elif move == "eager":
            step(ours[0], a, *map(cr.tensor, (x[:5], y[:5]))), step(theirs[0], b, *map(cr.tensor, (x[:5], y[:5])))
        elif move == "evaluate":
            enter(evaluation, *arguments(ours[0], rows=16)).use(lambda session: session.step([ROWS[:16], TARGETS[:16]]))
            evaluation(theirs[0], ROWS[:16], TARGETS[:16])
        elif move == "copy":
            (ours[0], a), (theirs[0], b) = copy.deepcopy((ours[0], a)), copy.deepcopy((theirs[0], b))
        elif move == "swap":
            ours, theirs = ours[::-1], theirs[::-1]
        elif move == "save":
            saved = ours[0].state_dict(), {n: np.asarray(x) for n, x in theirs[0].state_dict().items()}
        elif saved is not None:
            ours[0].load_state_dict(saved[0]), theirs[0].load_state_dict(saved[1])
    assert bits(*ours, a) == bits(*theirs, b)
    assert all(np.array_equal(np.asarray(x), y) for x, y in kept)


# -- fit ---------------------------------------------------------------------------------------------------------------


def options(**more):
    return {
        "data": (ROWS[:60], TARGETS[:60]), "validation": (ROWS[:20], TARGETS[:20]), "metrics": ["accuracy"],
        "loss": losses.cross_entropy, "batch_size": 16, "progress": "silent", "engine": "native", "threads": 1,
    } | more  # fmt: skip


@pytest.mark.parametrize(("batch_size", "width"), [(16, 40), (50, 100), (7, 300), (57, 130), (32, 200)])
def test_epochs_of_fit_copy_the_model_and_leave_the_optimiser_where_it_is(traffic, batch_size, width):
    model, seen = network(width), []

    class Count(cr.train.Callback):
        def on_epoch(self, training, row):
            seen.append(traffic.since())

    given = options(validation=None, batch_size=batch_size)
    fit(model, optimizer=optim.Adam(lr=0.01), epochs=5, callbacks=[Count()], **given)
    tensors = len(tree.flatten(model).leaves)
    for epoch in seen[1:]:
        assert epoch.get("load", 0) == epoch.get("copy", 0) == 0
        assert epoch["take"] == 2 and epoch.get("get", 0) <= tensors  # those of the best epoch


def test_fit_leaves_no_memory_behind():
    sessions = weakref.WeakSet()
    original = NativeSession.__init__

    def noted(self, executable):
        original(self, executable)
        sessions.add(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeSession, "__init__", noted)
        gc.collect()
        gc.disable()
        try:
            model, optimizer = network(), optim.Adam(lr=0.01)
            for keep_best in (True, False):
                result = fit(model, optimizer=optimizer, epochs=2, keep_best=keep_best, **options())
                assert result.epochs == 2 and not sessions
            cr.evaluate(model, (ROWS, TARGETS), loss=losses.cross_entropy)
            assert not sessions
        finally:
            gc.enable()
    assert lent(model, optimizer) == 0
