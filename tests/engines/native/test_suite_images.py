"""Convolutions and pooling that go through a batch some images at a time: the results of the reference."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native import suite
from tests.engines.native.suite import plans, real

import chainrule as cr
from chainrule import nn
from chainrule.compile import trace_program
from chainrule.engines.native import cuts
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.cuts import chains, reads_own_matrix
from chainrule.engines.native.division import Rows
from chainrule.engines.native.host import detect
from chainrule.engines.native.lowering import lower
from chainrule.errors import CompileError
from chainrule.passes.grouping import Grouping

HOST = replace(detect(), cores=2, l2_bytes=1 << 21)  # on which the parts depend
HOSTS = [HOST, replace(HOST, registers=16), replace(HOST, cores=1, l2_bytes=1 << 20), replace(HOST, l2_bytes=1 << 16)]


def native(f):
    """The compiled function, as on that machine."""
    return suite.native(f, host=HOST)


def compare(f, *xs, host=HOST, **how):
    """Hold a function against the reference, as on that machine."""
    return suite.compare(f, *xs, host=host, **how)


def together(compiled):
    """The forms of kernels that are called together, for each chain of them, and in how many parts."""
    found = [chain for plan in plans(compiled) for chain in chains(plan.kernels) if len(chain) > 1]
    return [([planned.form for planned in chain], chain[0].stack) for chain in found]


def network(channels, between, out, padding=0, stride=1, norm=False):
    generator = cr.random.Generator(0)
    first = nn.Conv2d(channels, between, 3, padding=padding, stride=stride, bias=not norm, generator=generator)
    second = nn.Conv2d(between, out, 3, padding=padding, generator=generator)
    norms = [nn.BatchNorm2d(between)] if norm else []
    return nn.Sequential(first, *norms, nn.ReLU(), nn.MaxPool2d(2), second, nn.Tanh(), nn.AvgPool2d(2))


def forward(model, x):
    return (model(x),)


def gradients(model, x):
    value, of_model = cr.value_and_grad(lambda m: cr.sum(m(x) ** 2))(model)
    return value, *of_model.values()


def test_layers_follow_each_other_part_by_part():
    compiled = compare(forward, network(1, 32, 16), real(32, 1, 28, 28), others=(1, 3, 7))
    assert (["contract", "window", "winograd"], 8) in together(compiled)


def test_so_do_their_gradients():
    compiled = compare(gradients, network(1, 32, 16), real(64, 1, 28, 28), others=(1, 3, 7), rtol=1e-4)
    assert (["window", "contract"], 8) in together(compiled)


def test_a_part_fits_into_the_cache(monkeypatch):
    found = []
    for part in (1, 3, 1 << 20):
        monkeypatch.setattr(cuts, "PART", part)
        compiled = native(forward)
        found.append((np.asarray(compiled(network(1, 32, 32), real(64, 1, 28, 28))[0]), together(compiled)))
    (a, few), (b, some), (c, many) = found
    assert a.tobytes() == b.tobytes() == c.tobytes()
    assert few[0] == (["contract", "window", "winograd"], 8)
    assert some[0] == (["contract", "window", "winograd"], 16)
    assert many[0] == (["contract", "window"], 64)  # tiles of one image are too few for a product


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 7, 8, 12, 16, 24]), st.tuples(st.integers(10, 19), st.integers(10, 19)), st.integers(1, 5),
    st.sampled_from([8, 16, 19]), st.sampled_from([8, 17, 32]), st.integers(0, 1), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_size(batch, space, channels, between, out, padding, norm, derivative):
    model = network(channels, between, out, padding, norm=norm)
    compare(gradients if derivative else forward, model, real(batch, channels, *space), others=(1, 5), rtol=1e-4)


LAYERS = {
    "3x3": lambda n, g: nn.Conv2d(n, 16, 3, padding=1, generator=g),
    "valid": lambda n, g: nn.Conv2d(n, 24, 3, generator=g),
    "4x4": lambda n, g: nn.Conv2d(n, 8, 4, stride=2, padding=1, generator=g),
    "1x1": lambda n, g: nn.Conv2d(n, 32, 1, generator=g),
    "depthwise": lambda n, g: nn.Conv2d(n, n, 3, padding=1, groups=n, generator=g),
    "grouped": lambda n, g: nn.Conv2d(n, 32, 3, padding=1, groups=1 if n % 8 else 8, generator=g),
    "dilated": lambda n, g: nn.Conv2d(n, 16, 3, padding=2, dilation=2, generator=g),
    "up": lambda n, g: nn.ConvTranspose2d(n, 16, 2, stride=2, generator=g),
    "norm": lambda n, g: nn.GroupNorm(1, n),
    "instance": lambda n, g: nn.InstanceNorm2d(n),
    "upsample": lambda n, g: nn.Upsample(scale_factor=2),
    "max": lambda n, g: nn.MaxPool2d(2, ceil_mode=True),
    "mean": lambda n, g: nn.AvgPool2d(3, 2, 1),
    "relu": lambda n, g: nn.ReLU(),
    "sigmoid": lambda n, g: nn.Sigmoid(),
    "flip": lambda n, g: Flip(),
}


class Flip(nn.Module):
    """The images in another order."""

    def forward(self, x):
        return x[::-1] * 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(LAYERS)), min_size=2, max_size=7), st.sampled_from([8, 16]), st.booleans(),
    st.sampled_from(["float32", "float64"]), st.sampled_from(HOSTS),
)  # fmt: skip
def test_any_layers(names, batch, derivative, dtype, host):
    """In float64, too, where rounding decides neither which element is the larger nor what a sum of 0 is."""
    generator, layers, channels = cr.random.Generator(0), [], 3
    x = real(batch, channels, 17, 16)
    unsteady = {"max", "instance"} if derivative and dtype == "float32" else set()
    for name in [name for name in names if name not in unsteady]:
        layer = LAYERS[name](channels, generator)
        y = nn.Sequential(*layers, layer)(cr.tensor(x)) if name != "valid" or len(layers) < 4 else None
        if y is not None and min(y.shape[2:]) > 2 and max(y.shape[2:]) < 40:
            layers.append(layer)
            channels = y.shape[1]
    model, rtol = nn.Sequential(*layers, nn.Tanh()).to(dtype), {"float32": 1e-4, "float64": 1e-9}[dtype]
    compare(gradients if derivative else forward, model, x.astype(dtype), host=host, others=(1, 5), rtol=rtol)


@pytest.mark.parametrize("groups", [2, 8, 16])
@pytest.mark.parametrize("batch", [8, 16])
def test_groups_are_no_parts_of_a_batch(groups, batch):
    """Each product of their stack reads all images."""
    generator = cr.random.Generator(0)
    layers = nn.AvgPool2d(2), nn.Tanh(), nn.Conv2d(32, 32, 3, groups=groups, generator=generator), nn.Tanh()
    compare(gradients, nn.Sequential(*layers), real(batch, 32, 12, 12), others=(1, 3, 7), rtol=1e-4)


@pytest.mark.parametrize("stride", [2, 3])
def test_windows_that_stand_apart(stride):
    compiled = compare(gradients, network(3, 16, 8, 1, stride), real(16, 3, 28, 28), others=(1, 3, 7), rtol=1e-4)
    assert together(compiled)


def test_depthwise_convolutions_and_norms():
    generator = cr.random.Generator(0)
    layers = [nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False, generator=generator), nn.BatchNorm2d(16)]
    layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16, generator=generator), nn.ReLU(), nn.MaxPool2d(2)]
    compiled = compare(gradients, nn.Sequential(*layers), real(16, 16, 12, 12), others=(1, 3, 7), rtol=1e-4)
    assert together(compiled)


def test_a_batch_that_cannot_be_cut_is_shared_out_in_another_way():
    assert together(compare(forward, network(1, 16, 16), real(7, 1, 14, 14), others=(1, 3, 7))) == []


def test_what_reads_other_images_waits():
    def f(model, x):
        y = model[0](x)
        return cr.max_pool2d(y[::-1], 2), cr.max_pool2d(y, 2) + cr.sum(y)

    compiled = compare(f, network(1, 16, 16), real(16, 1, 14, 14), others=(1, 3, 7), rtol=1e-4)
    assert together(compiled) == []


@pytest.mark.parametrize("groups", [1, 16])
def test_weights_are_read_whole(groups):
    """Though they, too, have as many rows as parts."""
    generator = cr.random.Generator(0)
    layers = nn.Conv2d(16, 32, 4, generator=generator), nn.Conv2d(32, 32, 2, groups=32 // groups, generator=generator)
    compiled = compare(forward, nn.Sequential(*layers), real(16, 16, 12, 12), others=(1, 3, 7), rtol=1e-4)
    grouping = plans(compiled)[0].grouping
    for kernel in grouping.kernels:
        for n in kernel.nodes:
            if grouping.multiplies(n):
                weights = grouping.views[grouping.nodes[n].inputs[1]].base
                assert not reads_own_matrix(grouping, kernel, weights, 8)


@pytest.mark.parametrize(("size", "products"), [(6, 1), (28, 8)])
def test_a_sum_over_all_places_reads_all_images(size, products):
    """The gradient of a kernel is one product, or several, each of its share of the images."""

    def f(x, w):
        return cr.grad(lambda w: cr.sum(cr.conv2d(x, w, stride=2) ** 2))(w)

    grouping = Grouping(lower(trace_program(f, real(16, 16, size, size), real(24, 16, 2, 2))))
    (kernel,) = [k for k in grouping.kernels if any(map(grouping.virtual, k.nodes)) and grouping.sums_places(k)]
    (image,) = {x for n in kernel.nodes if grouping.virtual(n) for x in grouping.bases(n)}
    assert kernel.sizes[0] == products
    assert reads_own_matrix(grouping, kernel, image, 8) == (products == 8)


# -- the proof of a plan


@pytest.fixture
def plan():
    compiled = native(forward)
    compiled(network(1, 16, 16), real(16, 1, 14, 14))
    return plans(compiled)[0]


def test_units_that_lie_across_parts(plan):
    planned = next(p for p in plan.kernels if p.form == "window" and p.stack > 1)
    rows = planned.share.count
    planned.share = Rows(rows + 1, 1, 0)
    with pytest.raises(CompileError, match="is not cut into 8 equal parts"):
        verify_plan(plan)


def test_images_of_another_part(plan):
    chain = next(chain for chain in chains(plan.kernels) if len(chain) > 1)
    for planned in chain:
        planned.stack = 3
    with pytest.raises(CompileError, match=r"reads of %\d+ what k\d+ has not made yet"):
        verify_plan(plan)
