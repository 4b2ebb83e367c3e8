"""Layers of image networks: settings, names, messages, training on both engines. Values are compared with PyTorch's."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ConfigError, ShapeError

RNG = np.random.default_rng(6)


def drawn(*shape, dtype="float32"):
    return cr.tensor(RNG.normal(size=shape).astype(dtype))


CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_parameters_have_pytorchs_names_and_shapes(kind):
    layer = kind(4, 6, 3, groups=2)
    first, second = (4, 3) if "Transpose" in kind.__name__ else (6, 2)
    assert {name: x.shape for name, x in layer.state_dict().items()} == {
        "weight": (first, second, *(3,) * kind.axes),
        "bias": (6,),
    }
    assert list(kind(4, 6, 3, bias=False).state_dict()) == ["weight"]
    assert kind(4, 6, 3, dtype="float64").weight.dtype == cr.float64


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_one_example_is_a_batch_of_one(kind):
    layer, x = kind(2, 3, 2), drawn(2, *(4,) * kind.axes)
    np.testing.assert_array_equal(layer(x), layer(x[None])[0])
    assert layer(x).dtype == cr.float32


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_generator_repeats_the_start(kind):
    a, b = (kind(2, 3, 2, generator=cr.random.Generator(3)) for _ in range(2))
    assert (a.weight == b.weight).all() and (a.bias == b.bias).all()


def test_padding_by_name_keeps_the_extents():
    for kernel in (1, 2, 3, (4, 5)):
        layer = nn.Conv2d(1, 1, kernel, padding="same", dilation=2)
        assert layer(drawn(2, 1, 7, 9)).shape == (2, 1, 7, 9)
    assert nn.Conv2d(1, 1, 3, padding="valid")(drawn(2, 1, 7, 9)).shape == (2, 1, 5, 7)


@pytest.mark.parametrize(
    ("mode", "border"),
    [("reflect", nn.ReflectionPad2d), ("replicate", nn.ReplicationPad2d), ("circular", nn.CircularPad2d)],
)
def test_padding_modes_are_borders_of_their_own(mode, border):
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=(1, 2), padding_mode=mode)
    x = drawn(2, 2, 5, 6)
    expected = cr.conv2d(border((2, 2, 1, 1))(x), layer.weight, layer.bias, stride=2)
    np.testing.assert_array_equal(layer(x), expected)


def test_what_repr_shows():
    assert repr(nn.Conv2d(3, 8, 5)) == "Conv2d(in_channels=3, out_channels=8, kernel_size=(5, 5), stride=(1, 1))"
    odd = nn.Conv1d(4, 4, 3, padding="same", groups=2, bias=False, padding_mode="circular")
    assert repr(odd).endswith("stride=(1,), padding='same', groups=2, padding_mode='circular', bias=False)")
    assert repr(nn.ConvTranspose1d(1, 1, 3, 2, output_padding=1)).endswith("stride=(2,), output_padding=(1,))")
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))"
    assert repr(nn.AvgPool1d(3, 1, 1, count_include_pad=False)).endswith("padding=(1,), count_include_pad=False)")
    assert repr(nn.AdaptiveAvgPool2d((1, None))) == "AdaptiveAvgPool2d(output_size=(1, None))"
    assert repr(nn.GlobalAvgPool2d()) == "GlobalAvgPool2d()"
    assert repr(nn.ZeroPad2d(1)) == "ZeroPad2d(padding=(1, 1, 1, 1))"
    assert "num_features=3" in repr(nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 8, 3)(drawn(2, 4, 8, 8)), ShapeError, r"Conv2d expects .* with C = 3, got shape \(2, 4"),
        (lambda: nn.Conv2d(3, 8, 3)(drawn(2, 3, 8)), ShapeError, r"\(N, C, H, W\) or \(C, H, W\)"),
        (lambda: nn.Conv2d(3, 8, 9)(drawn(2, 3, 8, 8)), ShapeError, "does not fit into an input"),
        (lambda: nn.Conv2d(3, 8, 0), ConfigError, "Conv2d: kernel_size is a whole number of at least 1"),
        (lambda: nn.Conv2d(3, 8, (3, 3, 3)), ConfigError, "2 of them, one for each axis"),
        (lambda: nn.Conv2d(3 / 1, 8, 3), ConfigError, r"in_channels is a whole number, not 3\.0"),
        (lambda: nn.Conv2d(3, 8, 3, groups=2), ConfigError, "multiples of groups=2"),
        (lambda: nn.Conv2d(3, 8, 3, padding="same", stride=2), ConfigError, "keeps the extents"),
        (lambda: nn.Conv2d(3, 8, 3, padding_mode="mirror"), ConfigError, "Modes: zeros, reflect"),
        (lambda: nn.ConvTranspose2d(3, 8, 3, padding_mode="reflect"), ConfigError, 'padding_mode="zeros" only'),
        (lambda: nn.ConvTranspose1d(1, 1, 3, 2)(drawn(1, 1, 4), 12), ShapeError, r"from \(9,\) to \(10,\)"),
        (lambda: nn.MaxPool2d(2.5), ConfigError, "whole numbers, not 2.5"),
        (lambda: nn.MaxPool2d(2)(drawn(3, 3)), ShapeError, r"max_pool2d: expected \(N, C, H, W\)"),
        (lambda: nn.GlobalAvgPool2d()(drawn(2, 3)), ShapeError, r"GlobalAvgPool2d expects \(N, C, H, W\)"),
        (lambda: nn.BatchNorm2d(3)(drawn(2, 3, 4)), ShapeError, r"BatchNorm2d expects \(N, C, H, W\) with C = 3"),
        (lambda: nn.BatchNorm2d(3)(drawn(1, 3, 1, 1)), ShapeError, "more than one number"),
        (lambda: nn.InstanceNorm2d(3)(drawn(2, 3, 1, 1)), ShapeError, "two or more"),
        (lambda: nn.InstanceNorm3d(3)(drawn(2, 3)), ShapeError, r"InstanceNorm3d expects \(N, C, D, H, W\)"),
        (lambda: nn.LocalResponseNorm(0), ConfigError, "size is a whole number of at least 1"),
        (lambda: nn.Dropout2d(1.5), ConfigError, "Dropout2d: p is a probability"),
        (lambda: nn.Upsample(), ConfigError, "Upsample: give either size or scale_factor"),
        (lambda: nn.Upsample(2, mode="cubic"), ConfigError, "Upsample: mode 'cubic' is unknown"),
        (lambda: nn.PixelShuffle(0), ConfigError, "upscale_factor is a whole number of at least 1"),
        (lambda: nn.ZeroPad2d((1, 2, 3)), ConfigError, "one number or 4 of them"),
        (lambda: nn.ZeroPad2d(0.5), ConfigError, "whole numbers, not 0.5"),
        (lambda: nn.ReflectionPad2d(-1), ConfigError, "may be negative"),
        (lambda: nn.ReflectionPad1d(4)(drawn(1, 4)), ShapeError, "at most 3 on each side"),
        (lambda: nn.ZeroPad1d((-3, -3))(drawn(1, 4)), ShapeError, "leaves out more"),
        (lambda: nn.ZeroPad2d(1)(drawn(4)), ShapeError, r"expects \(..., H, W\)"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def network():
    """Everything that an image network is usually made of, small."""
    g = cr.random.Generator(1)
    return nn.Sequential(
        nn.InstanceNorm2d(2, affine=True, track_running_stats=True),
        nn.Conv2d(2, 6, 3, padding=1, bias=False, generator=g),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Dropout2d(0.2, generator=cr.random.Generator(2)),
        nn.Conv2d(6, 6, 3, padding="same", groups=6, generator=g),
        nn.Conv2d(6, 8, 1, generator=g),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.GlobalAvgPool2d(),
        nn.Linear(8, 3, generator=g),
    )


def autoencoder():
    g = cr.random.Generator(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, generator=g),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, generator=g),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.ReflectionPad2d(1),
        nn.Conv2d(4, 2, 3, stride=2, generator=g),
    )


def step(model, optimizer, x, y):
    def loss(m):
        out = m(x)
        return losses.cross_entropy(out, y) if out.ndim == 2 else ((out - x) ** 2).mean()

    value, grads = cr.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


@pytest.mark.parametrize("make", [network, autoencoder])
def test_training_is_the_same_on_every_engine(make):
    """By SGD: Adam would make steps out of rounding where the gradient is 0, as that of a bias in front of a norm."""
    y = cr.tensor(np.arange(12) % 3)
    stripes = np.sin(np.arange(8) * (1 + y.numpy()[:, None])).astype("float32")
    x = cr.tensor(np.broadcast_to(stripes[:, None, None], (12, 2, 8, 8))) + 0.1 * drawn(12, 2, 8, 8)
    runs = {}
    for way in ("eager", "reference", "native"):
        model, optimizer = make(), optim.SGD(lr=0.1, momentum=0.9)
        run = step if way == "eager" else cr.compile(step, engine=way)
        history = [float(run(model, optimizer, x, y)) for _ in range(20)]
        runs[way] = history, model.state_dict()
        assert history[-1] < history[0] * 0.95
        if way != "eager":
            assert run.compilations == 1
    assert runs["eager"][0] == runs["reference"][0]
    for name, value in runs["eager"][1].items():
        np.testing.assert_array_equal(runs["reference"][1][name], value, err_msg=name)
        np.testing.assert_allclose(runs["native"][1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(runs["native"][0], runs["eager"][0], rtol=1e-3)


@pytest.mark.parametrize("make", [network, autoencoder])
def test_derivatives_by_all_parameters(make):
    model = make().eval().to("float64")
    cr.check_gradients(lambda m, x: m(x), model, drawn(2, 2, 4, 4, dtype="float64"), order=1)


def test_evaluation_uses_running_statistics():
    model, x = network(), drawn(16, 2, 8, 8)
    for _ in range(5):
        model(x)
    model.eval()
    whole = model(x)
    for i in range(3):  # alone as in a batch
        np.testing.assert_allclose(model(x[i : i + 1]), whole[i : i + 1], rtol=1e-4, atol=1e-5)


def test_saving_and_loading(tmp_path):
    model, other = network(), network()
    model(drawn(4, 2, 8, 8))
    model.save(tmp_path / "network.safetensors")
    other.load(tmp_path / "network.safetensors")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)


def test_summary_tells_shapes():
    rows = nn.summary(network(), drawn(4, 2, 8, 8)).rows
    outputs = {row.layer: row.output for row in rows}
    assert outputs["MaxPool2d"] == "(4, 6, 4, 4)" and outputs["GlobalAvgPool2d"] == "(4, 8)"
