"""Every primitive in machine code against the reference: shapes around vectors and tiles, layouts, dtypes, extremes."""

import numpy as np
import pytest
from tests.engines.native.suite import assert_close, check, leaves, native, raised, reference

from chainrule import dtypes, errors
from chainrule.core.tensor import tensor, wrap
from chainrule.primitives import ALL, contract, index, layout, reduce
from chainrule.primitives import elementwise as e
from chainrule.primitives.samples import EXTREMES

SAMPLES = [pytest.param(p, s, id=f"{p.name}-{i}") for p in ALL.values() for i, s in enumerate(p.samples)]
ELEMENTWISE = [p for p in ALL.values() if p.kind == "elementwise"]
REAL = [p for p in ELEMENTWISE if any(i.kind == "real" for s in p.samples for i in s.inputs)]
WHOLE = [p for p in ELEMENTWISE if any(i.kind in ("integer", "bits") for s in p.samples for i in s.inputs)]
ALSO_WHOLE = ["add", "sub", "mul", "neg", "abs", "sign", "maximum", "minimum"]
LENGTHS = (0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 97)
REDUCTIONS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
FLIPPED = {"start": (40, 0), "stop": (-1, 24), "step": (-2, 3)}


def draw(sample, dtype=np.float64, seed=0, shape=None):
    rng = np.random.default_rng(seed)
    inputs = (
        sample.inputs if shape is None else [i.__class__(shape, *list(vars(i).values())[1:]) for i in sample.inputs]
    )
    return [wrap(np.asarray(i.draw(rng, np.dtype(dtype)))) for i in inputs]


def arrange(x):
    """A matrix (41, 24) as it is, transposed, sliced backwards, and broadcast over a new axis."""
    yield x
    yield layout.transpose(x, axes=(1, 0))
    yield layout.slice(x, **FLIPPED)
    yield layout.broadcast(
        layout.reshape(layout.slice(x, start=(0, 3), stop=(41, 4), step=(1, 1)), shape=(41, 1)), shape=(2, 41, 3)
    )
    yield layout.broadcast(layout.slice(x, start=(2, 0), stop=(3, 24), step=(1, 1)), shape=(3, 24))


def everywhere(primitive, attributes, arity):
    """The primitive at all lengths, then on all arrangements of matrices; operands of one arrangement go together."""

    def f(lines, matrices):
        flat = [primitive(*operands, **attributes) for operands in lines]
        arranged = [primitive(*operands, **attributes) for operands in zip(*map(arrange, matrices), strict=True)]
        mixed = [] if arity == 1 else [primitive(matrices[0], *[_turned(x) for x in matrices[1:]], **attributes)]
        return flat + arranged + mixed

    return f


def _turned(x):
    """The matrix again, but from memory in the other order."""
    return layout.transpose(layout.reshape(x, shape=(24, 41)), axes=(1, 0))


def test_every_primitive_has_a_test_here():
    named = {p.name for p in REAL + WHOLE} | {*REDUCTIONS, "not", "xor", "and", "or"}
    special = {"matmul", "take", "scatter_add", "argsort", "iota", "cumsum", "pad", "concat", "reshape", "transpose",
               "broadcast", "slice", "convolve", "window_argmax", "window_take", "window_put"}  # fmt: skip
    assert set(ALL) - named - special == set()


@pytest.mark.parametrize(("primitive", "sample"), SAMPLES)
def test_samples(primitive, sample):
    for dtype in (np.float32, np.float64):
        check(lambda *xs: primitive(*xs, **sample.attributes), *draw(sample, dtype), context=dtype)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("primitive", [p for p in REAL if p.name not in ("cast", "nextafter")], ids=lambda p: p.name)
def test_real_elements(primitive, dtype):
    sample = next(s for s in primitive.samples if any(i.kind == "real" for i in s.inputs))
    lengths = LENGTHS if dtype == dtypes.float32 else (1, 7, 17)
    lines = [draw(sample, dtype, n, (n,)) for n in lengths]
    matrices = draw(sample, dtype, 99, (41, 24))
    check(everywhere(primitive, sample.attributes, len(matrices)), lines, matrices, context=(primitive.name, dtype))


@pytest.mark.parametrize("dtype", [*dtypes.INTEGERS, dtypes.bool_], ids=str)
@pytest.mark.parametrize("primitive", [*WHOLE, *[ALL[n] for n in ALSO_WHOLE]], ids=lambda p: p.name)
def test_whole_elements(primitive, dtype):
    if primitive is e.random_bits and dtype != dtypes.uint32:
        return
    rng = np.random.default_rng(3)
    arity = len(primitive.samples[-1].inputs)
    low = 0 if dtype in (dtypes.uint8, dtypes.uint32) or primitive.name.startswith(("shift", "pow")) else -9

    def operands(shape):
        first = rng.integers(low, 10, shape)
        rest = [rng.integers(1, 8, shape) for _ in range(arity - 1)]
        return [wrap(np.asarray(x).astype(dtype)) for x in (first, *rest)]

    f = everywhere(primitive, {}, arity)
    lines, matrices = [operands((n,)) for n in LENGTHS], operands((41, 24))
    try:
        primitive.infer(*matrices)
        f(lines, matrices)
    except (errors.ChainruleError, TypeError):
        return  # not defined for this dtype
    check(f, lines, matrices, context=(primitive.name, dtype))


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_casts(dtype):
    rng = np.random.default_rng(4)
    for source in dtypes.ALL:
        x = (
            rng.uniform(0, 200, 33)
            if dtypes.is_float(source)
            else rng.integers(0, 2 if source == dtypes.bool_ else 200, 33)
        )
        x = np.asarray(x).astype(source)
        if source not in (dtypes.uint8, dtypes.uint32, dtypes.bool_) and dtype not in (dtypes.uint8, dtypes.uint32):
            x[::2] = -x[::2]
        backwards = {"start": (32,), "stop": (0,), "step": (-3,)}
        f = lambda x: [e.cast(x, dtype=dtype), e.cast(layout.slice(x, **backwards), dtype=dtype)]  # noqa: B023
        check(f, wrap(x), context=source)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("primitive", [p for p in REAL if p.name not in ("cast", "nextafter")], ids=lambda p: p.name)
def test_extremes(primitive, dtype):
    """Every pair of extremes. Denormal numbers are 0 in compiled code, on both sides."""
    values = [v for v in EXTREMES if abs(v) != 1e-42]
    arity = len(primitive.samples[0].inputs)
    with np.errstate(all="ignore"):
        a, b = (x.ravel().astype(dtype) for x in np.meshgrid(values, values))
    xs = {1: [a], 2: [a, b], 3: [a > 0, a, b]}[arity]
    if primitive.name in ("mod", "pow"):  # no meaning beyond the exact whole numbers, up to rounding of the largest
        keep = (np.abs(a) < 1e30) & (np.abs(b) < 1e30) | ~np.isfinite(a) | ~np.isfinite(b)
        xs = [x[keep] for x in xs]
    check(primitive, *map(wrap, xs), tolerance=3e-6 if dtype == dtypes.float32 else 1e-13, context=primitive.name)


SHAPES = [(1,), (7,), (16,), (17,), (129,), (5, 1), (1, 5), (3, 4), (17, 33), (33, 16), (2, 130), (300, 3), (2, 3, 4),
          (4, 1, 17), (3, 5, 7, 2)]  # fmt: skip


def _axes(shape, single):
    ndim = len(shape)
    if single:
        return [(a,) for a in range(ndim)]
    return [
        (),
        *[(a,) for a in range(ndim)],
        *([tuple(range(ndim))] if ndim > 1 else []),
        *([(0, ndim - 1)] if ndim > 2 else []),
    ]


@pytest.mark.parametrize(
    "dtype", [dtypes.float32, dtypes.float64, dtypes.bfloat16, dtypes.int64, dtypes.uint8, dtypes.bool_], ids=str
)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, dtype):
    primitive, single = ALL[name], name.startswith("arg")
    if (name in ("any", "all")) != (dtype == dtypes.bool_) and not (
        dtype == dtypes.bool_ and name in ("max", "min", "argmax")
    ):
        return
    rng = np.random.default_rng(5)
    shapes = SHAPES if dtype in (dtypes.float32, dtypes.bool_) else SHAPES[3:10]
    arrays = [rng.integers(-1, 2, s) if name == "prod" else rng.integers(-9, 10, s) for s in shapes]
    xs = [
        wrap((np.asarray(x) + (0.5 if dtypes.is_float(dtype) and name != "prod" else 0)).astype(dtype)) for x in arrays
    ]

    def f(xs):
        found = [primitive(x, axes=axes) for x in xs for axes in _axes(x.shape, single)]
        found += [primitive(x.T, axes=axes) for x in xs[2:] for axes in _axes(x.T.shape, single)]
        flipped = [layout.flip(x, (x.ndim - 1,)) for x in xs]
        found += [primitive(x, axes=(x.ndim - 1,)) for x in flipped]
        return found + [primitive(layout.broadcast(x, shape=(2, *x.shape)), axes=(0,)) for x in xs[:4]]

    check(f, xs, tolerance=None if dtype != dtypes.bfloat16 else 1e-2, context=name)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "sum", "prod"])
def test_reductions_of_what_is_not_a_number(name):
    rng = np.random.default_rng(6)
    x = rng.choice([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, -2.0], (40, 9), p=[0.2, 0.2, 0.2, 0.05, 0.05, 0.05, 0.25])
    for dtype in (dtypes.float32, dtypes.float64):
        check(lambda x: [ALL[name](x, axes=(0,)), ALL[name](x, axes=(1,))], wrap(x.astype(dtype)))


def test_zeros_keep_their_sign():
    def f(x):
        running = [ALL["cumsum"](x, axis=a, reverse=r) for a in (0, 1) for r in (True, False)]
        extremes = [ALL["prod"](x, axes=(1,)), *[e.maximum(x, x), e.minimum(x, x)]]
        return running + extremes + [-x, e.abs(x), x + x, x - x, x * x, e.round(x), e.sqrt(x), e.sin(x)]

    for shape in ((2, 3), (40, 3), (2, 16), (3, 300)):
        x = np.full(shape, -0.0, np.float32)
        x[1, 0] = 0.0
        for a, b in zip(leaves(native(f)(wrap(x))), leaves(reference(f)(wrap(x))), strict=True):
            np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


MATRICES = [(1, 1, 1), (2, 3, 4), (16, 16, 16), (15, 17, 31), (17, 16, 33), (33, 5, 1), (64, 100, 3), (1, 64, 40),
            (7, 129, 65), (50, 1, 20)]  # fmt: skip


@pytest.mark.parametrize(
    "dtype", [dtypes.float32, dtypes.float64, dtypes.bfloat16, dtypes.int64, dtypes.int32], ids=str
)
def test_products(dtype):
    rng = np.random.default_rng(7)
    for m, k, n in MATRICES if dtype == dtypes.float32 else MATRICES[1:5]:
        a, b = (rng.integers(-3, 4, s).astype(dtype) for s in ((m, k), (k, n)))
        t, u = (np.ascontiguousarray(x.T) for x in (a, b))

        def f(a, b, t, u):
            found = [contract.matmul(x, y) for x in (a, t.T) for y in (b, u.T)]
            found += [contract.matmul(a, b).T, contract.matmul(layout.flip(a, (1,)), layout.flip(b, (0,)))]
            stack = layout.broadcast(b, shape=(3, *b.shape))
            return [
                *found,
                contract.matmul(layout.broadcast(a, shape=(3, *a.shape)), stack),
                e.neg(found[0]) + found[1],
            ]

        check(f, *map(wrap, (a, b, t, u)), context=(m, k, n))


def test_stacks_of_products():
    rng = np.random.default_rng(8)
    a, b = (wrap(rng.normal(size=s)) for s in ((2, 3, 17, 5), (2, 3, 5, 9)))
    turned = lambda x: layout.transpose(x, axes=(1, 0, 3, 2))
    check(lambda a, b: [contract.matmul(a, b), contract.matmul(turned(b), turned(a)), contract.matmul(a, b) + 1], a, b)


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_what_moves_elements(dtype):
    rng = np.random.default_rng(9)
    x, y = (wrap(rng.integers(0, 2 if dtype == dtypes.bool_ else 90, s).astype(dtype)) for s in ((5, 18), (5, 33)))
    number = wrap(rng.integers(0, 5, (2, 3)))

    def f(x, y, number):
        yield layout.pad(x, low=(1, 0), high=(0, 2), interior=(2, 1))
        yield layout.pad(layout.flip(x, (0,)), low=(0, 3), high=(1, 0), interior=(0, 0))
        yield layout.concat(x, y, axis=1)
        yield layout.concat(
            x,
            layout.flip(x, (0, 1)),
            layout.broadcast(layout.slice(x, start=(1, 0), stop=(2, 18), step=(1, 1)), shape=(4, 18)),
            axis=0,
        )
        yield layout.concat(x.T, x.T, axis=1)
        yield layout.reshape(x.T, shape=(9, 10))
        yield layout.slice(layout.reshape(y, shape=(11, 15)), start=(10, 14), stop=(-1, 2), step=(-3, -5))
        yield index.take(x, number)
        yield index.take(x.T, number)
        yield index.take(layout.reshape(y, shape=(165,)), number)
        if dtype != dtypes.bool_:
            updates = index.take(x, number)
            yield index.scatter_add(x, number, updates)
            yield index.scatter_add(
                layout.broadcast(layout.slice(x, start=(0, 0), stop=(1, 18), step=(1, 1)), shape=(5, 18)),
                number,
                updates,
            )
            yield ALL["cumsum"](x, axis=0, reverse=False)
            yield ALL["cumsum"](x.T, axis=0, reverse=True)
            yield ALL["cumsum"](layout.reshape(x, shape=(90,)), axis=0, reverse=True)

    check(lambda *xs: list(f(*xs)), x, y, number, tolerance=0.05 if dtype in dtypes.HALVES else None)


@pytest.mark.parametrize("dtype", dtypes.HALVES, ids=str)
def test_sums_in_half_precision_are_rounded_once(dtype):
    ones = wrap(np.ones((700, 3), dtype))

    def f(ones):
        start = layout.slice(ones, start=(0, 0), stop=(4, 3), step=(1, 1))
        yield index.scatter_add(start, wrap(np.full(700, 2)), ones)
        yield layout.sum(ones, axes=(0,))
        yield layout.sum(layout.reshape(ones, shape=(3, 700)), axes=(1,))
        yield layout.sum(ones, axes=(0, 1))
        yield ALL["cumsum"](ones, axis=0, reverse=False)
        yield contract.matmul(ones.T, ones)

    check(lambda ones: list(f(ones)), ones, tolerance=0)
    thirds = wrap((np.arange(1, 1001).reshape(10, 100) / 300).astype(dtype))
    check(
        lambda x: [layout.sum(x, axes=(0, 1)), layout.sum(layout.reshape(x, shape=(10, 5, 20)), axes=(0, 2))],
        thirds,
        tolerance=0,
    )


@pytest.mark.parametrize(
    "dtype", [dtypes.int64, dtypes.int32, dtypes.uint32, dtypes.uint8, dtypes.float32, dtypes.float64], ids=str
)
def test_positions(dtype):
    def f(x):
        for shape in ((7,), (3, 17), (2, 16, 5), (1, 1), (5, 0)):
            for axis in (None, *range(len(shape))):
                i = index.iota(shape=shape, axis=axis, dtype=dtype)
                yield i
                yield i + i
                yield layout.flip(i, (0,)) if shape[0] else i
                yield layout.transpose(i, axes=tuple(reversed(range(len(shape)))))
                if 0 not in shape:
                    yield layout.sum(i, axes=(len(shape) - 1,))
                    yield contract.matmul(
                        layout.reshape(i, shape=(shape[0], -(-i.size // shape[0]))),
                        layout.reshape(i, shape=(i.size // shape[0], shape[0])),
                    )

    check(lambda x: [*f(x), x], tensor(1.0))


@pytest.mark.parametrize(
    "dtype", [dtypes.float32, dtypes.float64, dtypes.int32, dtypes.uint8, dtypes.bfloat16, dtypes.bool_], ids=str
)
def test_sorting(dtype):
    rng = np.random.default_rng(10)
    arrays = [
        wrap(np.asarray(rng.integers(0, 2 if dtype == dtypes.bool_ else 6, s)).astype(dtype))
        for s in ((1,), (9,), (17, 5), (3, 33))
    ]
    check(
        lambda xs: [ALL["argsort"](x, axis=a, descending=d) for x in xs for a in range(x.ndim) for d in (True, False)],
        arrays,
    )


EMPTY = [(0,), (0, 3), (3, 0), (2, 0, 3), (0, 0)]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_nothing_at_all(shape):
    x = wrap(np.zeros(shape, np.float32))
    turned = tuple(reversed(range(len(shape))))

    def f(x):
        yield from (x, x + 1, e.exp(x), layout.transpose(x, axes=turned), layout.reshape(x, shape=(0, 4)))
        yield from (primitive(x, axes=tuple(range(x.ndim))) for primitive in (layout.sum, reduce.prod))
        yield from (primitive(x, axes=(0,)) for primitive in (layout.sum, reduce.prod))
        yield layout.concat(x, x, axis=0)
        yield layout.pad(x, low=(1,) * x.ndim, high=(0,) * x.ndim, interior=(0,) * x.ndim)
        yield ALL["cumsum"](x, axis=0, reverse=False)
        if x.ndim > 1:
            yield contract.matmul(x, layout.transpose(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)))

    check(lambda x: list(f(x)), x)


# -- errors


WRONG = {
    "take rows below": (lambda x, i: index.take(x, i), [-1, 2]),
    "take rows above": (lambda x, i: index.take(x, i), [0, 5]),
    "take numbers": (lambda x, i: index.take(layout.reshape(x, shape=(20,)), i), [3, 20]),
    "scatter_add": (lambda x, i: index.scatter_add(x, i, index.take(x, i * 0)), [4, 7]),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("dtype", [np.int64, np.int32], ids=str)
def test_a_number_outside_raises(name, dtype):
    f, wrong = WRONG[name]
    x = wrap(np.arange(20, dtype=np.float32).reshape(5, 4))
    assert raised(f, x, wrap(np.array(wrong, dtype))) is errors.IndexOutOfRange
    assert raised(f, x, wrap(np.array([1, 2], dtype))) is None
    compiled = native(f)
    with pytest.raises(errors.IndexOutOfRange, match=str(wrong[0] if wrong[0] < 0 else wrong[1])):
        compiled(x, wrap(np.array(wrong, dtype)))
    right = wrap(np.array([3, 0], dtype))
    assert_close(leaves(compiled(x, right))[0], leaves(f(x, right))[0])


@pytest.mark.parametrize("name", ["floordiv", "mod"])
@pytest.mark.parametrize("dtype", dtypes.INTEGERS, ids=str)
def test_division_by_zero_raises(name, dtype):
    for n in (1, 17, 40):
        b = np.ones(n, dtype)
        x = wrap(np.full(n, 7, dtype))
        assert raised(ALL[name], x, wrap(b)) is None
        b[n - 1] = 0
        assert raised(ALL[name], x, wrap(b)) is errors.DivisionByZero


@pytest.mark.parametrize("dtype", [dtypes.int32, dtypes.int64], ids=str)
def test_negative_powers_of_whole_numbers_raise(dtype):
    x, b = wrap(np.full(19, 3, dtype)), np.full(19, 2, dtype)
    assert raised(e.pow, x, wrap(b)) is None
    b[18] = -1
    assert raised(e.pow, x, wrap(b)) is errors.DTypeError
