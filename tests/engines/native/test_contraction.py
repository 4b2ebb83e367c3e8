"""Contractions as machine code: against NumPy, bit for bit between plans and threads, within their memory."""

import ctypes
import mmap
import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import dtypes
from chainrule.engines.native import host as hosts
from chainrule.engines.native import jit, tile_plans
from chainrule.engines.native.contraction import (
    Contraction,
    Epilogue,
    Plan,
    Store,
    Tile,
    Touch,
    candidates,
    choose,
    emit,
)
from chainrule.engines.native.division import Batches, Columns, Rows
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Module, Verbatim
from chainrule.engines.native.values import Mask, Value
from chainrule.passes.views import Axes

PAGE = mmap.PAGESIZE
DTYPES = [d for d in dtypes.ALL if d != dtypes.bool_]
CALL = "ptr %a, ptr %b, ptr %c, ptr %arena, ptr %table, ptr %scratch, i64 %thread, i64 %threads"


def processors() -> list[Host]:
    """The processor of this machine, in narrower guises too; each also with small caches, so that blocks are short."""
    here = hosts.detect()
    found = [here, replace(here, vector_bytes=16, registers=16)]
    if here.has("avx512f"):
        found.append(hosts.of(here.triple, "haswell", "+avx2,+fma,+f16c"))
    return [
        replace(h, l1_bytes=l1, l2_bytes=l2, cores=2) for h in found for l1, l2 in ((32 << 10, 1 << 20), (1024, 4096))
    ]


HOSTS = processors()


class Guarded:
    """Memory that ends where the process may not go on reading, filled with a pattern in front."""

    PATTERN = 0xFB  # as floats: large and negative, or not a number

    def __init__(self, size: int = 1 << 20) -> None:
        self.size = size
        self.map = mmap.mmap(-1, size + PAGE)
        self.bytes = np.frombuffer(self.map, np.uint8)
        assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(self.bytes.ctypes.data + size), PAGE, 0) == 0
        self.used = size

    def place(self, content: np.ndarray) -> np.ndarray:
        """A copy of an array that ends at the end."""
        self.bytes[: self.size] = self.PATTERN
        self.used = content.nbytes
        view = self.bytes[self.size - self.used : self.size].view(content.dtype)
        view[:] = content
        return view

    def intact(self) -> bool:
        """Whether nothing was written in front of the array."""
        return bool((self.bytes[: self.size - self.used] == self.PATTERN).all())


@cache
def guarded() -> list[Guarded]:
    return [Guarded() for _ in range(7)]


@dataclass
class Places:
    """Where each logical element lies, and how many elements the memory has; `padding`: places of zeros."""

    where: np.ndarray
    size: int
    padding: np.ndarray


def plain(batch: int, rows: int, columns: int, strides: tuple[Axes, int, int]) -> Places:
    _, i, j = map(np.asarray, np.indices((batch, rows, columns)))
    where = matrices(batch, strides[0]) + i * strides[1] + j * strides[2]
    return Places(where, int(where.max(initial=-1)) + 1, np.zeros(0, int))


def matrices(batch: int, axes: Axes) -> np.ndarray:
    """Where each matrix of a stack begins."""
    if isinstance(axes, int):
        return np.arange(batch)[:, None, None] * axes
    numbers = np.indices([extent for extent, _ in axes]).reshape(len(axes), -1)
    return sum(number * stride for number, (_, stride) in zip(numbers, axes, strict=True))[:, None, None]


def panels(batch: int, rows: int, columns: int, stride: Axes, width: int) -> Places:
    """A matrix of panels of so many columns, from an array (panels, rows, width)."""
    count = -(-columns // width)
    full = plain(batch, rows, count * width, (0, 0, 0)).where
    _, i, j = np.indices(full.shape)
    full = matrices(batch, stride) + (j // width * rows + i) * width + j % width
    return Places(full[:, :, :columns], int(full.max(initial=-1)) + 1, full[:, :, columns:].ravel())


def places(c: Contraction) -> tuple[Places, Places, Places]:
    a = plain(c.batch, c.rows, c.depth, (c.a_batch, c.a_row, c.a_depth))
    if c.b_panel and c.gates > 1:
        gate, j = np.divmod(np.arange(c.columns), c.span)
        k = np.arange(c.depth)[:, None]
        one = (j // c.b_panel * c.depth + k) * c.b_panel * c.gates + gate * c.b_panel + j % c.b_panel
        where = matrices(c.batch, c.b_batch) + one
        b = Places(where, int(where.max(initial=-1)) + 1, np.empty(0, int))
    elif not c.b_panel:
        b = plain(c.batch, c.depth, c.columns, (c.b_batch, c.b_depth, c.b_column))
    elif c.b_column == 1:
        b = panels(c.batch, c.depth, c.columns, c.b_batch, c.b_panel)
    else:
        turned = panels(c.batch, c.columns, c.depth, c.b_batch, c.b_panel)
        b = Places(turned.where.swapaxes(1, 2), turned.size, turned.padding)
    if c.c_panel:
        return a, b, panels(c.batch, c.rows, c.columns, c.c_batch, c.c_panel)
    return a, b, plain(c.batch, c.rows, c.columns, (c.c_batch, c.c_row, 1))


def canary(dtype: np.dtype, size: int) -> np.ndarray:
    """What must never be read: not a number, where there is such."""
    return np.full(size, np.nan if dtypes.is_float(dtype) else 99).astype(dtype)


def numbers(rng: np.random.Generator, size: int, dtype: np.dtype) -> np.ndarray:
    if dtypes.is_float(dtype):
        return rng.normal(size=size).astype(dtype)
    low, high = (-9, 10) if dtype in (dtypes.int32, dtypes.int64) else (0, 256)
    return rng.integers(low, high, size).astype(dtype)


def compiled(plan: Plan, host: Host, epilogue: Epilogue | None = None) -> object:
    module = Module()
    emit(module, "inner", plan, host, epilogue)
    module.add("outer", Verbatim(f"define void @outer({CALL}) {{\n  call void @inner({CALL})\n  ret void\n}}\n"))
    return jit.Library(jit.compile_object(module.text(), host)).function("outer", 8)


class Problem:
    """A contraction with its operands in guarded memory."""

    def __init__(self, c: Contraction, seed: int = 0) -> None:
        self.c = c
        rng = np.random.default_rng(seed)
        self.places = places(c)
        self.memory = []
        for number, place in enumerate(self.places[:2]):
            content = canary(c.dtype, place.size)
            used = np.unique(place.where)
            content[used] = numbers(rng, used.size, c.dtype)
            content[place.padding] = 0
            self.memory.append(guarded()[number].place(content))
        wide = np.float64 if dtypes.is_float(c.dtype) else np.int64
        self.a, self.b = (m[p.where].astype(wide) for m, p in zip(self.memory, self.places, strict=False))

    def run(
        self, plan: Plan, function: object, threads: int = 1, result: np.ndarray | None = None, arena: int = 0
    ) -> np.ndarray:
        """The memory of C after each of the threads has done its part."""
        c, place = self.c, self.places[2]
        before = [m.copy() for m in self.memory]
        out = guarded()[2].place(canary(c.dtype, place.size) if result is None else result)
        for thread in range(threads):
            scratch = guarded()[3].place(np.full(plan.scratch_bytes, 0xFF, np.uint8))
            assert scratch.ctypes.data % 64 == 0
            pointers = [x.ctypes.data for x in (*self.memory, out)]
            function(*pointers, arena, 0, scratch.ctypes.data, thread, threads)  # type: ignore[operator]
        assert all(g.intact() for g in guarded()[:4]), "written in front of a buffer"
        for m, old in zip(self.memory, before, strict=True):
            np.testing.assert_array_equal(m.view(np.uint8), old.view(np.uint8))
        untouched = np.ones(place.size, bool)
        untouched[place.where] = untouched[place.padding] = False
        if result is None:
            np.testing.assert_array_equal(
                out[untouched].view(np.uint8), canary(c.dtype, untouched.sum()).view(np.uint8)
            )
        return out.copy()

    def check(self, out: np.ndarray) -> None:
        """Against NumPy: exact for integers, within depth · eps of the absolute sum for floats; the padding is zero."""
        product, place = out[self.places[2].where], self.places[2]
        expected = self.a @ self.b
        if dtypes.is_float(self.c.dtype):
            half = self.c.dtype in dtypes.HALVES
            kept = 2.0**-8 if self.c.dtype == dtypes.bfloat16 else 2.0**-11 if half else 0.0
            eps = np.finfo(np.float32 if half else self.c.dtype).eps
            bound = self.c.depth * eps * (np.abs(self.a) @ np.abs(self.b)) + kept * np.abs(expected) + 1e-7 * half
            assert (np.abs(product.astype(np.float64) - expected) <= bound).all()
        else:
            np.testing.assert_array_equal(product, expected.astype(self.c.dtype))
        assert (out[place.padding] == 0).all()


SIZES = st.one_of(
    st.integers(0, 5), st.sampled_from([7, 8, 13, 14, 15, 16, 17, 24, 28, 29, 31, 32, 33, 47, 48, 49, 64, 100])
)


@st.composite
def contractions(draw: st.DrawFn, host: Host) -> Contraction:
    """Every transposition, batches with and without repetition, gaps between rows, panels."""
    m, n, k = draw(SIZES), draw(SIZES), draw(st.one_of(SIZES, st.sampled_from([65, 130, 200])))
    dtype = draw(st.one_of(st.just(dtypes.float32), st.sampled_from(DTYPES)))
    batch = draw(st.sampled_from([1, 1, 1, 0, 2, 4, 5, 6]))
    gap = draw(st.sampled_from([0, 0, 1, 3]))
    lanes = host.lanes(max(4, 4 if dtype in dtypes.HALVES else dtype.itemsize))
    width = lanes * draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["plain", "plain", "b", "turned", "c", "both"]))
    a_turned, b_turned = draw(st.booleans()), draw(st.booleans())
    a_row, a_depth = (1, m + gap) if a_turned else (k + gap, 1)
    b_depth, b_column = (1, k + gap) if b_turned else (n + gap, 1)
    b_panel = width if kind in ("b", "turned", "both") else 0
    if b_panel:
        b_depth, b_column = (1, width) if kind == "turned" else (width, 1)
    c_panel = (width if kind == "both" else lanes * draw(st.integers(1, 3))) if kind in ("c", "both") else 0
    gates = draw(st.sampled_from([1, 2, 3, 4])) if kind == "plain" and n and dtype not in dtypes.HALVES else 1
    if gates > 1:
        n = min(n, 100 // gates) * gates  # as much as there is guarded memory for
        b_depth, b_column = n + gap, 1
    once = Contraction(
        m, n, k, a_row, b_depth, c_panel or n + gap, a_depth, b_column, 1, 0, 0, 0, b_panel, c_panel, dtype, gates=gates
    )
    if gates > 1 and once.span % choose(once, host).width == 0 and draw(st.booleans()):
        once = replace(once, b_panel=choose(once, host).width)
    a, b, c = (p.size + gap for p in places(once))
    a_batch, b_batch = (draw(stacks(batch, step)) for step in (a, b))
    return replace(once, batch=batch, a_batch=a_batch, b_batch=b_batch, c_batch=c)


@st.composite
def stacks(draw: st.DrawFn, batch: int, step: int) -> Axes:
    """One matrix for all, matrices in a row, or along two axes: in another order, or some matrices for several."""
    half = batch // 2
    several = [((half, step), (2, half * step)), ((half, step), (2, 0)), ((half, 0), (2, step))]
    return draw(st.sampled_from([0, step, step, *(several if batch in (4, 6) else [])]))


def variants(c: Contraction, host: Host) -> list[Plan]:
    """The plan that is chosen, and others that are unlikely."""
    plan = choose(c, host)
    found = [choose(c, host, divide=kind) for kind in (Rows, Columns, Batches)]
    found.append(replace(plan, tile_rows=3, depth_block=c.depth))
    if not c.half:
        found.append(replace(plan, pack_a=not plan.pack_a))
    if c.b_straight and not c.half:
        found.append(replace(plan, pack_b=not plan.pack_b))
    quantum = c.b_panel if c.b_panel and not c.b_straight else 16
    if c.depth > quantum and not c.empty and not c.half:
        found.append(replace(plan, depth_block=quantum, sums=True))
    if not c.empty:
        found = [replace(p, division=p.tiles) if isinstance(p.division, Rows) else p for p in found]
    return [plan, *found, *candidates(c, host)[-2:]]


@pytest.mark.parametrize("host", HOSTS, ids=lambda h: f"{h.vector_bytes}-{h.l2_bytes}")
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_contraction_agrees_with_numpy_on_any_number_of_threads(host: Host, data: st.DataObject) -> None:
    c = data.draw(contractions(host))
    problem = Problem(c, data.draw(st.integers(0, 3)))
    plan = data.draw(st.sampled_from(variants(c, host)))
    function = compiled(plan, host)
    first = problem.run(plan, function)
    problem.check(first)
    for threads in (2, 3, 7):
        assert problem.run(plan, function, threads).tobytes() == first.tobytes()


@pytest.mark.parametrize("host", HOSTS, ids=lambda h: f"{h.vector_bytes}-{h.l2_bytes}")
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_plan_does_not_change_a_bit(host: Host, data: st.DataObject) -> None:
    c = data.draw(contractions(host))
    problem = Problem(c)
    results = {problem.run(plan, compiled(plan, host)).tobytes() for plan in dict.fromkeys(variants(c, host))}
    assert len(results) == 1


def test_the_sum_is_taken_in_order_by_fused_multiply_add() -> None:
    """Sums whose value tells the order: 2²⁴ swallows ones one by one, but not a partial sum of them."""
    depth = 300
    c = Contraction(3, 20, depth, a_row=depth, b_depth=20, c_row=20)
    problem = Problem(c)
    problem.memory[0][:] = 1
    problem.memory[1].reshape(depth, 20)[:] = 1
    problem.memory[1].reshape(depth, 20)[0] = 2.0**24
    for host in HOSTS:
        plan = choose(c, host)
        assert (problem.run(plan, compiled(plan, host)) == 2.0**24).all()
    # (1 + 2⁻¹²)² − (1 + 2⁻¹¹) is 2⁻²⁴ when the product is not rounded, else 0.
    c = Contraction(1, 1, 2, a_row=2, b_depth=1, c_row=1)
    problem = Problem(c)
    problem.memory[0][:] = [-1, 1 + 2.0**-12]
    problem.memory[1][:] = [1 + 2.0**-11, 1 + 2.0**-12]
    plan = choose(c, HOSTS[0])
    assert problem.run(plan, compiled(plan, HOSTS[0]))[0] == 2.0**-24


# -- epilogues


class BiasRelu:
    """max(product + bias, 0), the bias at the start of the arena."""

    key = "bias, relu"
    touches = ()

    def begin(self, tile: Tile) -> None:
        bias = tile.f.address(tile.arena, tile.column, "float")
        self.bias = [tile.m.load(bias, j * tile.m.lanes, dtypes.float32, tile.mask(j)) for j in range(tile.vectors)]

    def emit(self, tile: Tile, r: int, j: int, accumulator: Value, mask: Mask) -> None:
        value = accumulator + self.bias[j]
        value = tile.m.where(value <= 0, tile.m.constant(0, value.dtype), value)
        tile.m.store(value, tile.corner(tile.c, value.dtype), tile.displacement(r, j), mask)


class Momentum:
    """A weight and two moments, all laid out like C, are updated where they lie."""

    key = "momentum"

    def __init__(self, first: int, second: int) -> None:
        self.first, self.second = first, second
        self.touches = (Touch("c", 0, 4), Touch("arena", first, 4), Touch("arena", second, 4))

    def begin(self, tile: Tile) -> None:
        pointers = [tile.c, *[tile.f.address(tile.arena, at, "i8") for at in (self.first, self.second)]]
        self.corners = [tile.corner(pointer, dtypes.float32) for pointer in pointers]

    def emit(self, tile: Tile, r: int, j: int, gradient: Value, mask: Mask) -> None:
        m, at = tile.m, tile.displacement(r, j)
        weight, mean, square = (m.load(corner, at, dtypes.float32, mask) for corner in self.corners)
        mean = mean * 0.5 + gradient * 0.5
        square = square * 0.75 + gradient * gradient * 0.25
        for corner, value in zip(self.corners, (weight - mean * 0.125 - square * 0.0625, mean, square), strict=True):
            m.store(value, corner, at, mask)


class Positions:
    """Stores where each element is, to prove what a tile says of itself."""

    key = "positions"
    touches = ()

    def begin(self, tile: Tile) -> None:
        pass

    def emit(self, tile: Tile, r: int, j: int, accumulator: Value, mask: Mask) -> None:
        f, m = tile.f, tile.m
        start = f.add(f.mul(tile.batch, 1_000_000), f.mul(f.add(tile.row, r), 1000))
        start = f.add(start, f.add(tile.column, j * m.lanes))
        value = m.lane_numbers(start, dtypes.int64)
        m.store(value, tile.corner(tile.c, value.dtype), tile.displacement(r, j), mask)


@pytest.mark.parametrize("host", HOSTS, ids=lambda h: f"{h.vector_bytes}-{h.l2_bytes}")
@pytest.mark.parametrize(("rows", "columns", "depth"), [(32, 128, 200), (5, 10, 3), (29, 45, 130), (1, 1, 0)])
def test_bias_and_relu(host: Host, rows: int, columns: int, depth: int) -> None:
    c = Contraction(rows, columns, depth, a_row=depth, b_depth=columns, c_row=columns)
    problem = Problem(c)
    bias = guarded()[4].place(np.linspace(-2, 2, columns, dtype=np.float32))
    plan = choose(c, host)
    out = problem.run(plan, compiled(plan, host, BiasRelu()), 2, arena=bias.ctypes.data).reshape(rows, columns)
    expected = np.maximum(problem.a[0] @ problem.b[0] + bias, 0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5 * max(depth, 1) ** 0.5)


@pytest.mark.parametrize("host", HOSTS, ids=lambda h: f"{h.vector_bytes}-{h.l2_bytes}")
@pytest.mark.parametrize("in_panels", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(50, 40, 200), (30, 16, 16), (3, 67, 7), (17, 33, 70), (47, 37, 600)]
)
def test_an_update_in_place_runs_once(host: Host, in_panels: bool, rows: int, columns: int, depth: int) -> None:
    panel = 2 * host.lanes(4) if in_panels else 0
    c = Contraction(rows, columns, depth, a_row=1, a_depth=rows, b_depth=columns, c_row=panel or columns, c_panel=panel)
    problem = Problem(c)
    place = problem.places[2]
    start = np.zeros((3, place.size), np.float32)
    start[:, place.where[0]] = np.random.default_rng(1).normal(size=(3, rows, columns))
    plan = choose(c, host, once=True)
    assert plan.sums == (plan.blocks[0] > 1) and (plan.blocks[0] == 1 or depth >= 4 * tile_plans.SHORT)
    if depth >= 4 * tile_plans.SHORT:  # whatever the model says, sums lie apart from what they are added to in the end
        plan = next(other for other in candidates(c, host, once=True) if other.sums)
    arena = guarded()[4].place(start[1:].ravel())
    function = compiled(plan, host, Momentum(0, 4 * place.size))
    weight = problem.run(plan, function, 3, start[0], arena.ctypes.data)
    mean, square = arena.reshape(2, -1)
    gradient = problem.a[0] @ problem.b[0]
    first, second, third = start[:, place.where[0]].astype(np.float64)
    second = second * 0.5 + gradient * 0.5
    third = third * 0.75 + gradient**2 * 0.25
    expected = first - second * 0.125 - third * 0.0625
    for got, wanted in ((mean, second), (square, third), (weight, expected)):
        np.testing.assert_allclose(got[place.where[0]], wanted, rtol=1e-4, atol=1e-3)
        assert (got[place.padding] == 0).all()
    assert guarded()[4].intact()


@pytest.mark.parametrize("panel", [0, 1, 2])
def test_a_tile_knows_where_it_is(panel: int) -> None:
    host = HOSTS[0]
    width = panel * host.lanes(8)
    c = Contraction(
        30, 43, 9, a_row=9, b_depth=43, c_row=width or 50, batch=3, a_batch=0, b_batch=0, c_batch=3000, c_panel=width,
        dtype=dtypes.int64,
    )  # fmt: skip
    problem = Problem(c)
    for divide in (Rows, Columns, Batches):
        plan = choose(c, host, divide=divide)
        out = problem.run(plan, compiled(plan, host, Positions()), 2, np.zeros(problem.places[2].size, np.int64))
        b, i, j = np.indices((3, 30, 43))
        np.testing.assert_array_equal(out[problem.places[2].where], b * 1_000_000 + i * 1000 + j)


# -- plans


def test_work_is_cut_as_asked_and_units_cover_all_rows() -> None:
    c = Contraction(53, 300, 40, a_row=40, b_depth=300, c_row=300, batch=4, c_batch=53 * 300)
    for kind in (Rows, Columns, Batches):
        for plan in candidates(c, HOSTS[0], divide=kind):
            assert isinstance(plan.division, kind)
            if isinstance(plan.division, Rows):
                d = plan.division
                starts = [u * d.size + min(u, d.larger) for u in range(d.count + 1)]
                assert (starts[0], starts[-1]) == (0, 53)
                assert {b - a for a, b in pairwise(starts)} <= {d.size, d.size + 1}
            if isinstance(plan.division, Columns):
                assert plan.division.count == -(-300 // plan.division.width)


def test_a_tile_fits_the_registers() -> None:
    for host in HOSTS:
        for m, n in [(1, 1), (14, 32), (200, 100), (1000, 1000)]:
            for plan in candidates(Contraction(m, n, 64, a_row=64, b_depth=n, c_row=n), host):
                assert plan.tile_rows * plan.vectors + plan.vectors + 1 <= host.registers


def test_strides_that_no_code_is_for_are_refused() -> None:
    with pytest.raises(ValueError, match="A has no stride of 1"):
        Contraction(4, 4, 4, a_row=8, a_depth=2, b_depth=4, c_row=4)
    with pytest.raises(ValueError, match="B has no stride of 1"):
        Contraction(4, 4, 4, a_row=4, b_depth=8, b_column=2, c_row=4)
    with pytest.raises(ValueError, match="truth values"):
        Contraction(4, 4, 4, a_row=4, b_depth=4, c_row=4, dtype=dtypes.bool_)
    with pytest.raises(ValueError, match="no whole vectors"):
        choose(Contraction(4, 4, 4, a_row=4, b_depth=3, c_row=4, b_panel=3), HOSTS[0])
    Contraction(1, 1, 4, a_row=9, a_depth=2, b_depth=2, b_column=9, c_row=1)  # strides of an extent of 1 do not count


def mlp(sizes: list[int], batch: int) -> list[Contraction]:
    """The contractions of a training step of dense layers: forward, gradient of weights, gradient of inputs."""
    found = []
    for inner, outer in pairwise(sizes):
        found.append(Contraction(batch, outer, inner, a_row=inner, b_depth=32, b_panel=32, c_row=outer))
        found.append(Contraction(inner, outer, batch, a_row=1, a_depth=inner, b_depth=outer, c_row=32, c_panel=32))
        found.append(Contraction(batch, inner, outer, a_row=outer, b_depth=1, b_column=32, b_panel=32, c_row=inner))
    return found


def test_the_code_of_a_large_network_stays_short() -> None:
    module = Module()
    host = hosts.of("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512vl,+avx512bw,+avx512dq", cores=2)
    for number, c in enumerate(mlp([1024, 2048, 2048, 1000], 256)):
        emit(module, f"layer_{number}", choose(c, host), host, Store())
    assert module.text().count("\n") < 10_000


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize(
    "target",
    [
        ("aarch64-unknown-linux-gnu", "generic", "+neon"),
        ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma,+f16c"),
        ("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512vl,+avx512bw,+avx512dq"),
    ],
    ids=lambda t: t[1],
)
def test_it_compiles_for_other_processors(dtype: np.dtype, target: tuple[str, str, str]) -> None:
    host, module = hosts.of(*target), Module()
    for number, turned in enumerate((False, True)):
        strides = {"a_row": 1, "a_depth": 70, "b_depth": 1, "b_column": 90} if turned else {"a_row": 90, "b_depth": 50}
        emit(module, f"product_{number}", choose(Contraction(70, 50, 90, c_row=50, dtype=dtype, **strides), host), host)
    assert jit.compile_object(module.text(), host)


AVX512 = "+avx512f,+avx512vl,+avx512bw,+avx512dq"


@pytest.mark.parametrize("cpu", ["x86-64-v4", "skylake-avx512", "icelake-server", "rocketlake", "sapphirerapids"])
def test_tiles_that_fill_the_registers_stay_there(cpu):
    host = hosts.of("x86_64-unknown-linux-gnu", cpu, AVX512)
    for rows, vectors in ((24, 1), (14, 2), (9, 3), (6, 4), (5, 5), (4, 6), (3, 7), (2, 8)):
        width = 16 * vectors
        plan = choose(Contraction(168, width, 64, a_row=64, b_depth=width, c_row=width), host, True)
        module = Module()
        emit(module, "f", replace(plan, tile_rows=rows, vectors=vectors), host, internal=False)
        assembly = jit.emit_assembly(module.text(), host)
        assert f"zmm{rows * vectors - 1}" in assembly
        assert not re.findall(r"zmm\d+.*rsp|rsp.*zmm\d+", assembly), (rows, vectors)
