"""scan against the same loop written out: values, derivatives of any order, graphs that do not grow, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import dtypes, errors, nn, optim, tree
from chainrule.control import scan
from chainrule.program.program import Program

pytestmark = pytest.mark.filterwarnings("ignore:There is no native code")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def real(*shape, dtype=np.float64):
    return cr.tensor(RNG.normal(size=shape).astype(dtype))


def unrolled(f, init, xs=None, length=None, reverse=False):
    """What scan is held against: the loop in Python."""
    leaves = [leaf.value for leaf in tree.flatten(xs).leaves]
    n = leaves[0].shape[0] if leaves else length
    carry, ys = init, [None] * n
    for t in reversed(range(n)) if reverse else range(n):
        flat = tree.flatten(xs)
        carry, ys[t] = f(carry, tree.build(flat, [leaf.value[t] for leaf in flat.leaves]))
    parts = [tree.flatten(y) for y in ys]
    stacked = [cr.stack([p.leaves[k].value for p in parts]) for k in range(len(parts[0].leaves))]
    return carry, tree.build(parts[0], stacked)


def leaves(values):
    return [np.asarray(cr.stop_gradient(leaf.value)) for leaf in tree.flatten(values).leaves]


def assert_same(found, expected, tolerance=1e-12):
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def weighted(results):
    """A number that all results go into, each element with a weight of its own."""
    total = 0.0
    for k, leaf in enumerate(tree.flatten(results).leaves):
        y = leaf.value
        total = total + cr.sum(y * cr.sin(cr.reshape(cr.arange(y.size, dtype=y.dtype) + k, y.shape)))
    return total


def recurrent(loop, reverse=False):
    """An LSTM-like step: several carries, a weight and a bias from outside, slices of one product, a product of ys."""

    def f(w, b, h, c, xs):
        def step(carry, x):
            h, c = carry["h"], carry["c"]
            z = x + cr.matmul(h, w) + b
            n = c.shape[1]
            c = cr.sigmoid(z[:, :n]) * c + cr.tanh(z[:, n:])
            h = cr.tanh(c) * cr.sigmoid(z[:, :n])
            return {"h": h, "c": c}, (h, cr.sum(h * c, axis=1))

        return loop(step, {"h": h, "c": c}, xs, reverse=reverse)

    return f


def recurrent_inputs(length, width=2, batch=3):
    return (
        real(width, 2 * width), real(2 * width), real(batch, width), real(batch, width), real(length, batch, 2 * width)
    )  # fmt: skip


@given(length=st.sampled_from([1, 2, 5, 7]), reverse=st.booleans(), batch=st.sampled_from([1, 3]))
@settings(max_examples=10, deadline=None)
def test_values_and_gradients_are_those_of_the_loop_written_out(length, reverse, batch):
    inputs = recurrent_inputs(length, batch=batch)
    results = []
    for loop in (scan, unrolled):
        f = recurrent(loop, reverse)
        value_and_grad = cr.value_and_grad(lambda *a, f=f: weighted(f(*a)), argnums=tuple(range(5)))
        results.append((f(*inputs), value_and_grad(*inputs)))
    assert_same(results[0], results[1])


@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives_of_order_three(reverse):
    cr.check_gradients(recurrent(scan, reverse), *recurrent_inputs(3, batch=2), order=3, directions=1)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_compiled_first_and_second_derivatives(engine):
    inputs = recurrent_inputs(4)

    def penalised(*a):
        f = recurrent(scan)
        value, grads = cr.value_and_grad(lambda *b: weighted(f(*b)), argnums=tuple(range(5)))(*a)
        return value + sum(cr.sum(g * g) for g in grads)

    step = cr.value_and_grad(penalised, argnums=tuple(range(5)))
    assert_same(cr.compile(step, engine=engine)(*inputs), step(*inputs), 1e-10)


def test_only_the_gradients_asked_for_are_computed():
    w, b, h, c, xs = recurrent_inputs(3)
    f = recurrent(scan)
    for i in range(5):
        alone = cr.grad(lambda *a: weighted(f(*a)), argnums=i)(w, b, h, c, xs)
        assert_same(alone, cr.grad(lambda *a: weighted(f(*a)), argnums=tuple(range(5)))(w, b, h, c, xs)[i])
    text = str(cr.trace_program(cr.grad(lambda xs: weighted(f(w, b, h, c, xs))), xs))
    assert text.count("backward of step\n") == 1
    assert "d.carry" in text


def bodies(program):
    return [x for node in program.nodes for x in node.attributes.values() if isinstance(x, Program)]


def size(program):
    return len(program.nodes) + sum(size(body) for body in bodies(program))


def test_the_graph_does_not_grow_with_the_sequence():
    f = recurrent(scan)
    step = cr.grad(lambda *a: weighted(f(*a)), argnums=tuple(range(5)))
    assert len({size(cr.trace_program(step, *recurrent_inputs(n))) for n in (2, 5, 100)}) == 1


def test_the_gradient_of_a_weight_is_one_product_for_all_steps():
    f = recurrent(scan)
    program = cr.trace_program(cr.grad(lambda *a: weighted(f(*a))), *recurrent_inputs(7))
    backward = [node for node in program.nodes if node.primitive.name == "scan"][-1].attributes["body"]
    inside = [node.shape for node in backward.nodes if node.primitive.name == "matmul"]
    outside = [node for node in program.nodes if node.primitive.name == "matmul"]
    assert inside == [(3, 2)]  # the gradient of the carry
    assert [program.nodes[node.inputs[0]].shape for node in outside] == [(2, 7 * 3)]


def test_only_what_the_backward_pass_reads_is_saved():
    """Outputs of functions and carries; not truth values, sums and products, and not what is produced anyway."""

    def f(h, x):
        y = cr.where(x > h, h * 3 + x, cr.exp(h)) * x + 1
        return y, y

    w = real(4)
    program = cr.trace_program(cr.grad(lambda h, x: weighted(scan(f, h, x)), argnums=(0, 1)), w, real(5, 4))
    forward = bodies(program)[0]
    saved = [forward.nodes[out.node].name for out in forward.outputs[2:]]
    assert sorted(saved) == ["carry", "exp"]


def test_no_derivative_no_saving():
    program = cr.trace_program(recurrent(scan), *recurrent_inputs(3))
    assert [len(body.outputs) for body in bodies(program)] == [4]


def test_no_loop_backwards_where_all_is_at_hand():
    """A map: y = x · w. Its derivatives are products over all steps."""
    f = lambda w, xs: weighted(scan(lambda c, x: (c, cr.matmul(x, w)), None, xs)[1])
    w, xs = real(3, 2), real(5, 4, 3)
    expected = cr.grad(lambda w, xs: weighted(cr.matmul(xs, w)))(w, xs)
    assert_same(cr.grad(f)(w, xs), expected)
    assert len(bodies(cr.trace_program(cr.value_and_grad(f), w, xs))) == 1


ODD = {
    "exchanged carries": lambda w, c, x: ((c[1], c[0]), c[0] * x),
    "a carry that stays": lambda w, c, x: ((c[0], cr.sin(c[1])), None),
    "a carry from outside": lambda w, c, x: ((w, c[0] * c[1]), (w, cr.sin(w))),
    "a carry that is a slice": lambda w, c, x: ((x, c[0]), (x, x)),
    "constants": lambda w, c, x: ((cr.ones_like(c[0]), cr.zeros_like(c[1])), cr.full_like(x, 2.0)),
    "carries as they come": lambda w, c, x: ((c[0] * w, c[1] + w * x), (c[0], c[1], c)),
    "one tensor twice": lambda w, c, x: ((c[0] * c[1], c[0] * c[1]), (cr.exp(c[0]), [cr.exp(c[0]) * w])),
    "outputs of outputs": lambda w, c, x: ((y := cr.tanh(c[0] * w + x), y * c[1]), {"a": y, "b": cr.sin(y), "c": y}),
    "made from outside alone": lambda w, c, x: ((c[0] + cr.exp(w) @ cr.sin(w), c[1]), cr.sum(w)),
}


@pytest.mark.parametrize("engine", ["eager", "reference", "native"])
@pytest.mark.parametrize("name", ODD)
def test_odd_steps(name, engine):
    inputs = real(3), (real(3), real(3)), real(4, 3)

    def f(loop):
        def whole(w, c, xs):
            return weighted(loop(lambda c, x: ODD[name](w, c, x), c, xs))

        value_and_grad = cr.value_and_grad(whole, argnums=(0, 1, 2))
        return value_and_grad if engine == "eager" else cr.compile(value_and_grad, engine=engine)

    assert_same(f(scan)(*inputs), f(unrolled)(*inputs), 1e-11)
    if engine == "eager":
        cr.check_gradients(lambda *a: cr.scan(lambda c, x: ODD[name](a[0], c, x), a[1], a[2]), *inputs, directions=1)


@pytest.mark.parametrize("length", [0, 1, 4])
def test_lengths(length):
    last, ys = scan(lambda c, x: (c + x, (c, None)), cr.tensor(1.0), cr.ones((length,)))
    assert float(last) == 1 + length
    assert ys[0].tolist() == [1.0 + t for t in range(length)]
    assert ys[1] is None


def test_gradient_through_no_steps():
    value, gradient = cr.value_and_grad(lambda c: scan(lambda c, x: (c * x, c), c, cr.ones((0,)))[0])(cr.tensor(2.0))
    assert (float(value), float(gradient)) == (2.0, 1.0)


def test_a_number_of_steps_without_sequences():
    power = lambda x, n: scan(lambda c, _: (c * x, None), cr.tensor(1.0, dtype="float64"), length=n)[0]
    x = cr.tensor(1.5, dtype="float64")
    assert float(power(x, 5)) == 1.5**5
    np.testing.assert_allclose(float(cr.grad(cr.grad(lambda x: power(x, 5)))(x)), 20 * 1.5**3, rtol=1e-12)


def test_integer_sequences_and_constants():
    table = real(5, 3)
    index = cr.tensor(np.array([[0, 4], [1, 1], [4, 0]]))

    def f(loop, table, h):
        return loop(lambda h, i: ((h + table[i]) * 0.5, cr.where(i[:, None] > 1, h, 0)), h, index)

    h = real(2, 3)
    grads = [
        cr.grad(lambda *a, loop=loop: weighted(f(loop, *a)), argnums=(0, 1))(table, h) for loop in (scan, unrolled)
    ]
    assert_same(*grads)
    program = cr.trace_program(cr.grad(lambda t, h: weighted(f(scan, t, h)) ** 2), table, h)
    names = [node.name for body in bodies(program) for node in body.nodes]
    assert "scatter_add" not in names  # rows are added up once, after the loop
    assert "scatter_add" in [node.name for node in program.nodes]


def test_gradients_of_constants_that_are_carried_along():
    """Neither products of matrices nor something that the steps produce."""
    a, x, h = real(3), real(4, 3), real(3)
    f = lambda loop: lambda a, h, x: weighted(loop(lambda h, x: (cr.sin(h * a) * x, h), h, x))
    assert_same(*[cr.grad(f(loop), argnums=(0, 1, 2))(a, h, x) for loop in (scan, unrolled)])
    cr.check_gradients(f(scan), a, h, x, order=2)


def test_a_weight_used_twice_and_transposed_and_in_stacks():
    def f(loop):
        def whole(w, h, x):
            def step(h, x):
                y = cr.tanh(cr.matmul(h, w) + cr.matmul(x, w.mT) + cr.matmul(cr.tanh(h), cr.reshape(w, (2, 3, 3))))
                return y, cr.matmul(w, y.mT)

            return weighted(loop(step, h, x))

        return whole

    inputs = real(2, 3, 3), real(2, 4, 3), real(5, 2, 4, 3)
    g = lambda loop: lambda w, h, x: loop(lambda h, x: (cr.tanh(h @ w + x @ w.mT), cr.sum(w @ h.mT)), h, x)
    for kind in (f, lambda loop: lambda *a: weighted(g(loop)(*a))):
        assert_same(*[cr.grad(kind(loop), argnums=(0, 1, 2))(*inputs) for loop in (scan, unrolled)])


def test_loops_in_loops():
    def f(loop):
        def whole(w, h, xs):
            def outer(h, x):
                def inner(s, _):
                    s = cr.tanh(s @ w + x)
                    return s, s * h

                last, ys = loop(inner, h, length=3)
                return last, (ys, cr.sin(last))

            return weighted(loop(outer, h, xs, reverse=True))

        return whole

    inputs = real(2, 2), real(3, 2), real(4, 3, 2)
    values = [cr.value_and_grad(f(loop), argnums=(0, 1, 2))(*inputs) for loop in (scan, unrolled)]
    assert_same(*values)
    cr.check_gradients(f(scan), *inputs, order=2, directions=1)
    compiled = cr.compile(cr.value_and_grad(f(scan), argnums=(0, 1, 2)), engine="reference")
    assert_same(compiled(*inputs), values[0])
    alone = lambda h: f(scan)(inputs[0], h, inputs[2])
    assert_same(cr.grad(alone)(inputs[1]), values[0][1][1])


def test_what_has_a_derivative_of_its_own_keeps_it():
    """stop_gradient, custom_vjp and checkpoint inside of the function."""
    clipped = cr.custom_vjp(lambda x: x, lambda dy, y, x: (cr.clip(dy, -0.5, 0.5) * x,))

    def f(loop):
        def step(h, x):
            h = cr.checkpoint(lambda h, x: cr.sin(h) * cr.stop_gradient(h) + clipped(x * h))(h, x)
            return h, cr.logsumexp(cr.stack([h, x]), axis=0)

        return lambda h, x: weighted(loop(step, h, x))

    h, x = real(3), real(4, 3)
    assert_same(*[cr.grad(f(loop), argnums=(0, 1))(h, x) for loop in (scan, unrolled)])
    compiled = cr.compile(cr.grad(f(scan), argnums=(0, 1)), engine="reference")
    assert_same(compiled(h, x), cr.grad(f(unrolled), argnums=(0, 1))(h, x))


def test_checkpoint_saves_only_what_goes_in_and_comes_out():
    def saved(wrap):
        inner = wrap(lambda h: cr.exp(cr.sin(cr.tanh(h))))
        f = lambda h, x: weighted(scan(lambda h, x: (inner(h) * x, None), h, x))
        forward = bodies(cr.trace_program(cr.grad(f, argnums=(0, 1)), real(3), real(4, 3)))[0]
        return sorted([forward.nodes[out.node].name for out in forward.outputs[1:]])

    assert saved(lambda f: f) == ["exp", "tanh"]  # sin' is that of tanh h, tanh' follows from its value
    assert saved(cr.checkpoint) == ["carry", "exp"]


def test_forward_derivatives_and_hessians():
    h, x = real(2), real(3, 2)
    f = lambda loop: lambda h: weighted(loop(lambda h, x: (cr.tanh(h * x), h * h), h, x))
    assert_same(*[cr.jvp(f(loop), (h,), (cr.ones_like(h),)) for loop in (scan, unrolled)])
    assert_same(*[cr.hessian(f(loop))(h) for loop in (scan, unrolled)])
    vector = lambda loop: lambda h: loop(lambda h, x: (cr.tanh(h * x), h * h), h, x)[1]
    assert_same(*[cr.jvp(vector(loop), (h,), (cr.ones_like(h),)) for loop in (scan, unrolled)])


def test_differentiated_inside_of_the_function():
    f = lambda loop: lambda x: loop(lambda c, t: (c - 0.1 * cr.grad(lambda c: cr.sum(c**3 * t))(c), c), x, length_3)
    length_3, x = real(3, 2), real(2)
    assert_same(*[cr.grad(lambda x, loop=loop: weighted(f(loop)(x)))(x) for loop in (scan, unrolled)])


def test_backward_to_leaves():
    w = cr.tensor([[0.5, 0.1], [0.2, 0.3]], requires_grad=True)
    scan(lambda h, x: (cr.tanh(h @ w + x), None), cr.zeros((1, 2)), cr.ones((4, 1, 2)))[0].sum().backward()
    expected = cr.grad(
        lambda w: unrolled(lambda h, x: (cr.tanh(h @ w + x), h), cr.zeros((1, 2)), cr.ones((4, 1, 2)))[0].sum()
    )
    assert_same(w.grad, expected(cr.stop_gradient(w)), 1e-6)


@pytest.mark.parametrize("names", [("float16", "float32"), ("float32", "float64"), ("bfloat16", "float16")])
def test_dtypes_are_kept_where_they_differ(names):
    narrow, wide = names
    h, x, w = (cr.tensor([0.5, -0.25], dtype=d) for d in (narrow, narrow, wide))
    xs = cr.stack([x, x, x])

    def f(h, xs, w):
        def step(h, x):
            y = h * x + w
            return cr.tanh(h + x), (y, h)

        return scan(step, h, xs)

    last, (y, hs) = f(h, xs, w)
    assert (last.dtype.name, hs.dtype.name) == (narrow, narrow)
    assert y.dtype == dtypes.promote(h.dtype, w.dtype)
    loss = lambda *a: sum(cr.sum(leaf.value.astype("float64")) for leaf in tree.flatten(f(*a)).leaves)
    grads = cr.grad(loss, argnums=(0, 1, 2))(h, xs, w)
    assert [g.dtype.name for g in grads] == [narrow, narrow, wide]


def test_a_module_learns_inside_a_loop():
    class Net(nn.Module):
        def __init__(self):
            generator = cr.random.Generator(0)
            self.step = nn.Linear(3, 3, generator=generator)
            self.out = nn.Linear(3, 1, generator=generator)

        def forward(self, xs):
            return self.out(scan(lambda h, x: (cr.tanh(self.step(h) + x), None), cr.zeros(xs.shape[1:]), xs)[0])

    def step(model, optimizer, x, y):
        loss, grads = cr.value_and_grad(lambda m: cr.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    x, y = real(5, 8, 3, dtype=np.float32), real(8, 1, dtype=np.float32)
    losses = {}
    for engine in ("eager", "reference", "native"):
        model, optimizer = Net(), optim.Adam(lr=0.05)
        run = step if engine == "eager" else cr.compile(step, engine=engine)
        losses[engine] = [float(run(model, optimizer, x, y)) for _ in range(40)]
    assert losses["eager"][-1] < 0.5 * losses["eager"][0]
    np.testing.assert_allclose(losses["reference"], losses["eager"], rtol=1e-5)
    np.testing.assert_allclose(losses["native"], losses["eager"], rtol=1e-3)


def test_equal_loops_are_run_once():
    f = recurrent(scan)
    program = cr.compile(lambda *a: (f(*a)[0], f(*a)[1]), engine="reference")
    inputs = recurrent_inputs(3)
    program(*inputs)
    assert len(bodies(program.program)) == 1


def test_the_text_shows_the_body():
    f = cr.compile(lambda w, xs: scan(lambda c, x: (c * w + x, None), cr.tensor(0.0), xs)[0], engine="reference")
    f(cr.tensor(2.0), cr.ones(3))
    assert f.text(locations=False) == (
        "program lambda\n"
        "  input   w f32[]\n"
        "  input   xs f32[3]\n"
        "forward\n"
        "  %3 f32[1]         = scan(w, 0.0, xs, body=step, constants=1, carries=1, length=3, reverse=False)\n"
        "      program step\n"
        "        input   constant.0 f32[]\n"
        "        in-out  carry f32[]\n"
        "        input   x f32[]\n"
        "      forward\n"
        "        %3 f32[]          = mul(carry, constant.0)\n"
        "        %4 f32[]          = add(%3, x)\n"
        "      out\n"
        "        carry ← %4\n"
        "  %4 f32[]          = reshape(%3, [])\n"
        "out\n"
        "  result = %4\n"
    )


class Counting(nn.Module):
    def __init__(self):
        self.register_buffer("calls", cr.tensor(0))
        self.generator = cr.random.Generator(0)

    def count(self, c, x):
        self.calls = self.calls + 1
        return c + x, None

    def draw(self, c, x):
        return c + self.generator.normal(()), None


def test_the_default_generator_does_not_move_on_unseen():
    before = [np.asarray(leaf.value) for leaf in tree.flatten(cr.random.default_generator()).leaves]
    with pytest.raises(errors.TracedValueError, match="Generator"):
        scan(lambda c, x: (c + cr.random.default_generator().normal(()), None), cr.tensor(0.0), cr.ones(3))
    for a, leaf in zip(before, tree.flatten(cr.random.default_generator()).leaves, strict=True):
        np.testing.assert_array_equal(a, np.asarray(leaf.value))


@pytest.mark.parametrize("method", ["count", "draw"])
def test_what_a_step_changes_outside_is_an_error_that_says_what_to_do(method):
    module = Counting()
    before = [np.asarray(leaf.value) for leaf in tree.flatten(module).leaves]
    with pytest.raises(errors.TracedValueError, match="draw all random numbers before the scan"):
        scan(getattr(module, method), cr.tensor(0.0), cr.ones(3))
    for a, leaf in zip(before, tree.flatten(module).leaves, strict=True):
        np.testing.assert_array_equal(a, np.asarray(leaf.value))


MISTAKES = [
    (lambda: scan(lambda c, x: (c, None), cr.tensor(0), cr.ones(3)), errors.DTypeError, "carry is int64"),
    (lambda: scan(lambda c, x: (c, x), cr.tensor(0.0), cr.arange(3)), errors.DTypeError, "y is int64"),
    (lambda: scan(lambda c, x: (c + 1, None), (0.0,), cr.ones(3)), errors.DTypeError, "make it a tensor"),
    (lambda: scan(lambda c, x: (c, None), cr.tensor(0.0)), errors.ConfigError, "number of steps"),
    (lambda: scan(lambda c, x: (c, None), cr.tensor(0.0), cr.tensor(1.0)), errors.ShapeError, "no axes"),
    (lambda: scan(lambda c, x: (c, None), cr.tensor(0.0), (cr.ones(3), cr.ones(4))), errors.ShapeError, "3 steps"),
    (lambda: scan(lambda c, x: c, cr.tensor(0.0), cr.ones(3)), errors.TracedValueError, "pair"),
    (lambda: scan(lambda c, x: (cr.stack([c, c]), None), cr.tensor(0.0), cr.ones(3)), errors.ShapeError, "keeps its"),
    (lambda: scan(lambda c, x: (c.astype("float64"), None), cr.tensor(0.0), cr.ones(3)), errors.ShapeError, "keeps"),
    (lambda: scan(lambda c, x: ((c, c), None), cr.tensor(0.0), cr.ones(3)), errors.TracedValueError, "structure"),
    (lambda: scan(lambda c, x: (c + float(x), None), cr.tensor(0.0), cr.ones(3)), errors.TracedValueError, "float"),
    (lambda: scan(lambda c, x: (c, None), nn.Linear(2, 2), cr.ones(3)), errors.DTypeError, "Linear"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
