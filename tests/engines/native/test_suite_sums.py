"""Sums down the columns of a product's result, made while it is in registers: values, order, threads, tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import bits, compare, leaves, native, on_threads

import chainrule as cr
from chainrule import nn
from chainrule.core.tensor import wrap
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.division import Batches, Columns, Rows
from chainrule.engines.native.host import detect
from chainrule.engines.native.lowering import lower
from chainrule.engines.native.plan import make_plan
from chainrule.engines.native.tile_plans import candidates
from chainrule.errors import CompileError
from chainrule.passes import winograd


def arrays(dtype, *shapes):
    rng = np.random.default_rng(3)
    return [wrap(rng.uniform(-1, 1, shape).astype(dtype)) for shape in shapes]


def joined(compiled):
    """The kernels of products that add up their columns."""
    plan = compiled.engine.compiled[-1][3]
    return [k for k in plan.kernels if k.kernel.kind == "contract" and any(map(plan.grouping.reduces, k.kernel.nodes))]


def agree(f, *inputs, **how):
    """Compile, compare with the reference engine and between threads; the compiled function."""
    wide = any(np.asarray(x).dtype == np.float64 for x in inputs)
    return compare(f, *inputs, rtol=1e-12 if wide else 2e-5, others=(1, 3, 7), **how)


def dense(x, w, z):
    y = cr.relu(x @ w)
    return y, cr.sum(y, axis=0), cr.sum(y * z, axis=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 70), st.integers(1, 40), st.integers(128, 200), st.sampled_from(["float32", "float64"]))
def test_sums_of_a_dense_layer(rows, depth, columns, dtype):
    (kernel,) = joined(agree(dense, *arrays(dtype, (rows, depth), (depth, columns), (rows, columns))))
    assert isinstance(kernel.share, Columns) and kernel.kernel.sizes == (1, rows, columns)


def test_a_sum_alone_needs_no_result_outside():
    compiled = agree(lambda x, w: (cr.sum(x @ w, axis=0),), *arrays(np.float32, (33, 20), (20, 130)))
    assert len(joined(compiled)) == 1


def test_tiles_of_any_size_add_up_row_after_row():
    x, w = arrays(np.float32, (61, 300), (300, 192))
    total = np.zeros(192, np.float32)
    for row in np.asarray(native(lambda x, w: x @ w)(x, w)):
        total += row
    heights = set()
    for k in range(6):
        compiled = native(lambda x, w: (cr.sum(x @ w, axis=0),), choose=lambda *how, k=k: candidates(*how)[k * 2])
        assert np.asarray(compiled(x, w)[0]).tobytes() == total.tobytes()
        heights.add(joined(compiled)[0].tiles.tile_rows)
    assert len(heights) > 3


def test_extreme_values_and_what_is_not_finite():
    x, w, z = arrays(np.float32, (20, 8), (8, 128), (20, 128))
    x, z = np.array(x), np.array(z)
    x[3], x[5, 0], z[7, 1], z[8, 2] = 300, 1e-30, np.inf, np.nan
    compiled = native(dense)
    for a, b in zip(compiled(wrap(x), w, wrap(z)), dense(wrap(x), w, wrap(z)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-3)


def images(layer, x, z):
    """Sums over all images and places of a convolution's results, and of these times something."""
    y = layer(x)
    return y, cr.sum(cr.relu(y), axis=(0, 2, 3)), cr.sum(y * z, axis=(0, 2, 3))


def inputs_of(layer, *shape):
    (x,) = arrays(np.float32, shape)
    return layer, x, *arrays(np.float32, tuple(layer(x).shape))


@pytest.mark.parametrize(
    ("layer", "channels", "size"),
    [
        (nn.Conv2d(3, 20, 3, padding=1), 3, (13, 11)),  # windows set out
        (nn.Conv2d(5, 33, 4, stride=2), 5, (31, 30)),
        (nn.Conv2d(24, 40, 1), 24, (12, 13)),  # the image itself is the matrix
    ],
)
def test_each_image_adds_up_its_own_places(layer, channels, size):
    (kernel,) = joined(agree(images, *inputs_of(layer, 8, channels, *size)))
    assert isinstance(kernel.share, Batches) and kernel.kernel.sizes[0] == 8


@pytest.mark.parametrize("tile", [2, 3, 4])
@pytest.mark.parametrize(
    ("channels", "out", "size"), [(16, 16, (12, 12)), (17, 40, (11, 13)), (32, 16, (13, 12)), (16, 70, (17, 9))]
)
def test_convolutions_by_few_multiplications_add_up_each_image(tile, channels, out, size, monkeypatch):
    monkeypatch.setattr(winograd, "best", lambda *sizes: tile)
    layer, *inputs = inputs_of(nn.Conv2d(channels, out, 3, padding=1), 9, channels, *size)
    compiled = native(images, threads=2)
    found = [np.asarray(y) for y in compiled(layer, *inputs)]
    (kernel,) = joined(compiled)
    assert kernel.form == "winograd" and kernel.share.count == 9
    double = [wrap(np.asarray(x).astype(np.float64)) for x in inputs]
    expected = [np.asarray(y) for y in images(layer.to("float64"), *double)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * np.abs(b).max())
    layer.to("float32")
    assert all(bits(on_threads(compiled, n)(layer, *inputs)) == bits(found) for n in (1, 3, 4, 7))


def test_batch_norm_behind_a_convolution():
    """Mean, and both sums of the gradient, are made by the convolutions."""
    cr.random.manual_seed(0)  # the loss is a sum of both signs: other weights may leave little of it but rounding
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16))

    def step(model, x):
        return cr.value_and_grad(lambda model: cr.mean(model(x) ** 3))(model)

    (x,) = arrays(np.float32, (8, 3, 20, 20))
    compiled = native(step, threads=2)
    loss, gradients = compiled(layers, x)
    assert [k.kernel.sizes[0] for k in joined(compiled)] == [8, 8, 8]
    expected = step(layers, x)
    np.testing.assert_allclose(np.asarray(loss), np.asarray(expected[0]), rtol=1e-5)
    for a, b in zip(leaves(gradients), leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("f", "shapes", "dtype"),
    [
        (lambda x, w: (cr.max(x @ w, axis=0),), [(40, 8), (8, 128)], np.float32),  # no sum
        (lambda x, w: (cr.sum(x @ w, axis=0),), [(400, 8), (8, 32)], np.float32),  # threads share its rows
        (lambda x, w: (cr.sum(x @ w, axis=0),), [(600, 8), (8, 128)], np.float32),
        (lambda x, w: (cr.sum(x @ w, axis=1),), [(40, 8), (8, 128)], np.float32),
        (lambda x, w: (cr.sum(x @ w, axis=0),), [(40, 8), (8, 128)], np.float16),  # each rounded once
    ],
)
def test_what_stays_by_itself(f, shapes, dtype):
    compiled = native(f)
    found = compiled(*arrays(dtype, *shapes))
    assert not joined(compiled)
    expected = np.asarray(f(*arrays(dtype, *shapes))[0]).astype(np.float64)
    np.testing.assert_allclose(np.asarray(found[0]).astype(np.float64), expected, rtol=2e-3, atol=2e-3)


def test_a_sum_that_threads_would_share_is_found():
    plan = make_plan(lower(cr.trace_program(dense, *arrays(np.float32, (32, 8), (8, 128), (32, 128)))), (), detect())
    verify_plan(plan)
    kernel = next(k for k in plan.kernels if k.form == "contract")
    kernel.share = Rows(4, 8, 0)
    with pytest.raises(CompileError, match="splits a sum"):
        verify_plan(plan)
