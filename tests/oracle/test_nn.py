"""Every layer against PyTorch's of the same name, in float64: results, gradients by inputs and by parameters."""

import itertools
import math

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def grid(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def pair(name, *args, **kwargs):
    """Our layer and PyTorch's, in float64, with the same random weights, under the same names."""
    ours = getattr(nn, name)(*args, **kwargs).to("float64")
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    rng = np.random.default_rng(1)
    state = {}
    for key, x in theirs.state_dict().items():
        assert ours.state_dict()[key].shape == tuple(x.shape)
        state[key] = x.numpy() if key == "num_batches_tracked" else rng.normal(size=tuple(x.shape)) * 0.5 + 1.5
    theirs.load_state_dict({key: torch.as_tensor(x) for key, x in state.items()})
    ours.load_state_dict(state)
    return ours, theirs


def compare(ours, theirs, *inputs, **tolerance):
    """Outputs, gradients of a weighted sum of them by inputs and parameters, and the buffers afterwards."""
    tolerance = tolerance or TOLERANCE
    floats = [x.dtype.kind == "f" for x in inputs]
    given = [torch.tensor(x, requires_grad=f) for x, f in zip(inputs, floats, strict=True)]
    y = theirs(*given)
    weights = drawn(*y.shape, seed=9)
    (y * torch.tensor(weights)).sum().backward()
    weight = cr.tensor(weights)

    def f(model, *xs):
        out = model(*xs)
        return (out * weight).sum(), out

    (_, out), (by_parameters, *by_inputs) = cr.value_and_grad(f, argnums=range(len(inputs) + 1), has_aux=True)(
        ours, *[cr.tensor(x) for x in inputs]
    )
    assert out.shape == tuple(y.shape)
    np.testing.assert_allclose(out, y.detach().numpy(), **tolerance)
    for x, g, is_float in zip(given, by_inputs, floats, strict=True):
        if is_float:
            np.testing.assert_allclose(g, x.grad.numpy(), **tolerance)
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert set(by_parameters) == set(expected)
    for name, g in expected.items():
        np.testing.assert_allclose(by_parameters[name], g, err_msg=name, **tolerance)
    for name, x in theirs.named_buffers():
        np.testing.assert_allclose(dict(ours.named_buffers())[name], x.numpy(), err_msg=name, **tolerance)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    compare(*pair("Linear", 3, 4, bias=bias), drawn(*shape))


@pytest.mark.parametrize("lead", [(5,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_bilinear(lead, bias):
    compare(*pair("Bilinear", 3, 4, 2, bias=bias), drawn(*lead, 3), drawn(*lead, 4, seed=2))


@pytest.mark.parametrize("index", [np.array(3), np.array([0, 3, 3, 6]), np.array([[1, 2], [6, 6]])])
@pytest.mark.parametrize("padding_idx", [None, 3, -1])
def test_embedding(index, padding_idx):
    compare(*pair("Embedding", 7, 4, padding_idx=padding_idx), index)


@pytest.mark.parametrize("freeze", [True, False])
def test_embedding_from_pretrained(freeze):
    table = drawn(4, 3)
    ours = nn.Embedding.from_pretrained(table, freeze=freeze, padding_idx=1)
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(table), freeze=freeze, padding_idx=1)
    index = np.array([1, 2])
    np.testing.assert_array_equal(ours(cr.tensor(index)), theirs(torch.tensor(index)).detach().numpy())
    assert ours.weight.requires_grad == theirs.weight.requires_grad


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4)])
@pytest.mark.parametrize(
    "options",
    grid(eps=[1e-5, 0.1], momentum=[0.1, 0.7, None], affine=[True, False], track_running_stats=[True, False]),
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, options, training):
    ours, theirs = pair("BatchNorm1d", 3, **options)
    ours.train(training)
    theirs.train(training)
    for seed in range(3):
        theirs.zero_grad()
        compare(ours, theirs, drawn(*shape, seed=seed) * 2 + 1)


def test_batch_norm_of_a_batch_of_one():
    ours, theirs = pair("BatchNorm1d", 3)
    for layer, x in ((ours, cr.tensor(drawn(1, 3))), (theirs, torch.tensor(drawn(1, 3)))):
        with pytest.raises(ValueError, match="more than"):
            layer(x)


@pytest.mark.parametrize("shape", [(6, 3, 4), (3, 4)])
@pytest.mark.parametrize(
    "options",
    grid(eps=[1e-5, 0.1], momentum=[0.1, 0.7], affine=[True, False], track_running_stats=[True, False]),
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_instance_norm(shape, options, training):
    ours, theirs = pair("InstanceNorm1d", 3, **options)
    ours.train(training)
    theirs.train(training)
    for seed in range(3):
        theirs.zero_grad()
        compare(ours, theirs, drawn(*shape, seed=seed) * 2 + 1)


@pytest.mark.parametrize("shape", [(5, 6), (2, 6, 4), (2, 6, 2, 3)])
@pytest.mark.parametrize("options", grid(num_groups=[1, 2, 3, 6], eps=[1e-5, 0.1], affine=[True, False]), ids=str)
def test_group_norm(shape, options):
    compare(*pair("GroupNorm", num_channels=6, **options), drawn(*shape), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "options", grid(eps=[1e-5, 0.1], elementwise_affine=[True, False], bias=[True, False]), ids=str
)
@pytest.mark.parametrize(("shape", "normalized"), [((5, 3), 3), ((2, 4, 3), (4, 3)), ((3,), [3])])
def test_layer_norm(shape, normalized, options):
    compare(*pair("LayerNorm", normalized, **options), drawn(*shape))


@pytest.mark.parametrize("options", grid(eps=[None, 0.1], elementwise_affine=[True, False]), ids=str)
@pytest.mark.parametrize(("shape", "normalized"), [((5, 3), 3), ((2, 4, 3), (4, 3)), ((3,), [3])])
def test_rms_norm(shape, normalized, options):
    compare(*pair("RMSNorm", normalized, **options), drawn(*shape))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_dropout(p, training):
    """The masks differ; what is kept is scaled alike, and the gradient is the mask."""
    ours, theirs = nn.Dropout(p).train(training), torch.nn.Dropout(p).train(training)
    x = drawn(10_000) + 5
    a, b = ours(cr.tensor(x)).numpy() / x, theirs(torch.tensor(x)).numpy() / x
    np.testing.assert_allclose(np.unique(a.round(9)), np.unique(b.round(9)))
    assert abs((a == 0).mean() - (b == 0).mean()) < 6 * math.sqrt(p * (1 - p) / len(x)) + 1e-12


@pytest.mark.parametrize("dims", [(1, -1), (0, -1), (0, 1), (-2, -1), (2, 2)])
def test_flatten(dims):
    compare(nn.Flatten(*dims), torch.nn.Flatten(*dims), drawn(2, 3, 4))


@pytest.mark.parametrize(("dim", "size"), [(1, (3, 4)), (-1, (2, -1, 2)), (0, (2, 1))])
def test_unflatten(dim, size):
    compare(nn.Unflatten(dim, size), torch.nn.Unflatten(dim, size), drawn(2, 12))


ACTIVATIONS = [
    ("Identity", {}),
    ("ReLU", {}),
    ("ReLU6", {}),
    *(("LeakyReLU", o) for o in grid(negative_slope=[0.01, 0.3])),
    *(("Hardtanh", o) for o in grid(min_val=[-1.0, -0.3], max_val=[0.5])),
    ("Hardsigmoid", {}),
    ("Hardswish", {}),
    *(("ELU", o) for o in grid(alpha=[1.0, 0.5])),
    ("SELU", {}),
    *(("CELU", o) for o in grid(alpha=[1.0, 0.5])),
    *(("GELU", o) for o in grid(approximate=["none", "tanh"])),
    ("Sigmoid", {}),
    ("LogSigmoid", {}),
    ("SiLU", {}),
    ("Mish", {}),
    *(("Softplus", o) for o in grid(beta=[1.0, 2.0], threshold=[1.0, 20.0])),
    ("Tanh", {}),
    *(("Softmax", o) for o in grid(dim=[0, 1, -1])),
    *(("LogSoftmax", o) for o in grid(dim=[0, 1, -1])),
    *(("PReLU", o) for o in grid(num_parameters=[1, 3])),
]


def activation_tolerance(name):
    """PyTorch's gradient of hardsigmoid takes the float32 next to 1/6, in float64 too."""
    return {"rtol": 1e-7} if name == "Hardsigmoid" else TOLERANCE


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS, ids=str)
def test_activations(name, options):
    compare(*pair(name, **options), drawn(5, 3, 4) * 3, **activation_tolerance(name))


@pytest.mark.parametrize("name", sorted({name for name, _ in ACTIVATIONS} - {"Softplus", "Softmax", "LogSoftmax"}))
def test_defaults_of_activations(name):
    compare(*pair(name), drawn(5, 3) * 3, **activation_tolerance(name))


def test_where_defaults_differ():
    """Softplus without a threshold agrees but for what PyTorch's cuts off; the axis of softmax is the last."""
    x = drawn(5, 3) * 30
    compare(nn.Softplus(), torch.nn.Softplus(), x, rtol=1e-8, atol=1e-9)
    compare(nn.Softmax(), torch.nn.Softmax(-1), x)
    compare(nn.LogSoftmax(), torch.nn.LogSoftmax(-1), x)


LOSSES = [
    ("MSELoss", {}, "pair"),
    ("L1Loss", {}, "pair"),
    *(("HuberLoss", o, "pair") for o in grid(delta=[1.0, 0.4])),
    *(("SmoothL1Loss", o, "pair") for o in grid(beta=[1.0, 0.4])),
    *(("PoissonNLLLoss", o, "counts") for o in grid(log_input=[True, False], full=[True, False], eps=[1e-8, 0.1])),
    *(("GaussianNLLLoss", o, "variance") for o in grid(full=[True, False], eps=[1e-6, 0.6])),
    *(
        ("CrossEntropyLoss", o, kind)
        for o in grid(weight=[None, np.array([0.5, 1.0, 2.0])], label_smoothing=[0.0, 0.2])
        for kind in ("classes", "classes of positions", "probabilities")
    ),
    ("CrossEntropyLoss", {"ignore_index": 1}, "classes"),
    *(("NLLLoss", o, "classes") for o in grid(weight=[None, np.array([0.5, 1.0, 2.0])], ignore_index=[-100, 1])),
    *(("BCELoss", o, "probability") for o in grid(weight=[None, np.array([0.5, 1.0, 2.0])])),
    *(
        ("BCEWithLogitsLoss", o, "zero to one")
        for o in grid(weight=[None, np.array([0.5, 1.0, 2.0])], pos_weight=[None, np.array([3.0, 1.0, 0.2])])
    ),
    ("KLDivLoss", {"log_target": False}, "probabilities of logs"),
    ("KLDivLoss", {"log_target": True}, "logs of logs"),
    *(("HingeEmbeddingLoss", o, "signs") for o in grid(margin=[1.0, 0.3])),
    *(("MarginRankingLoss", o, "two and signs") for o in grid(margin=[0.0, 0.3])),
    *(
        ("MultiMarginLoss", o, "classes")
        for o in grid(p=[1, 2], margin=[1.0, 0.3], weight=[None, np.array([0.5, 1.0, 2.0])])
    ),
    *(("CosineEmbeddingLoss", o, "vectors and signs") for o in grid(margin=[0.0, 0.3])),
    *(("TripletMarginLoss", o, "three") for o in grid(margin=[1.0, 0.3], p=[1.0, 2.0, 3.0], swap=[True, False])),
]


def loss_inputs(kind):
    """What a loss takes, and by which of these PyTorch differentiates it."""
    x, z = drawn(6, 3), drawn(6, 3, seed=4)
    probabilities = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    signs = np.where(drawn(6, 3, seed=5) > 0, 1.0, -1.0)
    classes = np.array([0, 1, 2, 2, 1, 0])
    return {
        "pair": ((x, z), [0, 1]),
        "counts": ((np.abs(x), np.abs(z * 3).round()), [0]),
        "variance": ((x, z, np.abs(drawn(6, 3, seed=6)) + 0.1), [0, 1, 2]),
        "classes": ((x, classes), [0]),
        "classes of positions": ((drawn(6, 3, 2), np.stack([classes, classes[::-1]], 1)), [0]),
        "probabilities": ((x, probabilities), [0, 1]),
        "probability": ((1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-z))), [0, 1]),
        "zero to one": ((x * 10, 1 / (1 + np.exp(-z))), [0, 1]),
        "probabilities of logs": ((np.log(probabilities), probabilities[::-1].copy()), [0, 1]),
        "logs of logs": ((np.log(probabilities), np.log(probabilities[::-1])), [0, 1]),
        "signs": ((x, signs), [0]),
        "two and signs": ((x, z, signs), [0, 1]),
        "vectors and signs": ((x, z, signs[:, 0].copy()), [0, 1]),
        "three": ((x, z, drawn(6, 3, seed=7)), [0, 1, 2]),
    }[kind]


REDUCED = [(*loss, r) for loss in LOSSES for r in ("mean", "sum", "none")] + [
    (*loss, "batchmean") for loss in LOSSES if loss[0] == "KLDivLoss"
]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss")
@pytest.mark.parametrize(("name", "options", "kind", "reduction"), REDUCED, ids=str)
def test_losses(name, options, kind, reduction):
    tensors = {k: v for k, v in options.items() if isinstance(v, np.ndarray)}
    ours, theirs = (
        getattr(m, name)(**{**options, **{k: tensor(v) for k, v in tensors.items()}}, reduction=reduction)
        for m, tensor in ((nn, cr.tensor), (torch.nn, torch.tensor))
    )
    assert set(ours.state_dict()) == set(theirs.state_dict()) == set(tensors)
    inputs, by = loss_inputs(kind)
    given = [torch.tensor(x, requires_grad=i in by) for i, x in enumerate(inputs)]
    losses = theirs(*given)
    weights = drawn(*losses.shape, seed=9)
    expected = torch.autograd.grad((losses * torch.tensor(weights)).sum(), [given[i] for i in by])

    def f(*xs):
        y = ours(*xs)
        return (y * cr.tensor(weights)).sum(), y

    (_, y), grads = cr.value_and_grad(f, argnums=by, has_aux=True)(*[cr.tensor(x) for x in inputs])
    np.testing.assert_allclose(y, losses.detach().numpy(), **TOLERANCE)
    for g, e in zip(grads, expected, strict=True):
        np.testing.assert_allclose(g, e.numpy(), rtol=1e-8, atol=1e-11)


# -- initialisation: the same distributions


def assert_same_distribution(ours, theirs):
    """Two samples of a few thousand numbers: same mean and spread, same range, and Kolmogorov and Smirnov agree."""
    a, b = np.sort(np.asarray(ours, "float64").ravel()), np.sort(theirs.detach().double().numpy().ravel())
    assert a.size == b.size
    points = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, points, "right") - np.searchsorted(b, points, "right")).max() / a.size
    assert distance < 1.95 * math.sqrt(2 / a.size)
    assert abs(a.mean() - b.mean()) < 5 * b.std() * math.sqrt(2 / a.size)
    assert abs(a.std() / b.std() - 1) < 5 * math.sqrt(2 / a.size)


@pytest.mark.parametrize(
    ("name", "args"), [("Linear", (40, 3000)), ("Bilinear", (20, 10, 300)), ("Embedding", (300, 20))], ids=str
)
def test_layers_start_alike(name, args):
    torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*args, generator=cr.random.Generator(0)), getattr(torch.nn, name)(*args)
    for key, x in theirs.named_parameters():
        if x.numel() > 1000:
            assert_same_distribution(dict(ours.named_parameters())[key], x)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("uniform", {"a": -2.0, "b": 0.5}),
        ("normal", {"mean": 1.0, "std": 0.2}),
        ("trunc_normal", {}),
        ("trunc_normal", {"mean": 0.5, "std": 0.7, "a": 0.0, "b": 3.0}),
        ("xavier_uniform", {"gain": 1.7}),
        ("xavier_normal", {}),
        ("kaiming_uniform", {"a": math.sqrt(5)}),
        ("kaiming_uniform", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal", {"nonlinearity": "selu"}),
        ("kaiming_normal", {"nonlinearity": "tanh", "mode": "fan_out"}),
        ("orthogonal", {"gain": 2.0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(60, 100), (30, 8, 5, 5)], ids=str)
def test_init(name, kwargs, shape):
    torch.manual_seed(0)
    theirs = getattr(torch.nn.init, name + "_")(torch.empty(shape), **kwargs)
    ours = getattr(nn.init, name)(shape, generator=cr.random.Generator(0), **kwargs)
    assert_same_distribution(ours, theirs)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", "conv2d"])
def test_gains(name):
    assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    if name == "leaky_relu":
        assert nn.init.calculate_gain(name, 0.3) == torch.nn.init.calculate_gain(name, 0.3)


# -- the module


def models():
    parts = [
        ("Linear", (4, 6)), ("BatchNorm1d", (6,)), ("GELU", ()), ("Linear", (6, 6, False)), ("LayerNorm", (6,)),
        ("PReLU", ()), ("Linear", (6, 2)),
    ]  # fmt: skip
    return tuple(m.Sequential(*[getattr(m, name)(*args) for name, args in parts]) for m in (nn, torch.nn))


def test_state_dict_goes_both_ways():
    ours, theirs = models()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = drawn(5, 4)
    theirs.double()
    ours.to("float64")
    compare(ours, theirs, x)
    other = models()[1].double()
    other.load_state_dict({k: torch.tensor(np.asarray(v)) for k, v in ours.state_dict().items()})
    np.testing.assert_allclose(ours.eval()(x), other.eval()(torch.tensor(x)).detach().numpy(), **TOLERANCE)


def test_names_and_order_are_pytorchs():
    ours, theirs = models()
    for method in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, method)()] == [n for n, _ in getattr(theirs, method)()]


def test_files_are_read_by_the_safetensors_of_torch(tmp_path):
    from safetensors.torch import load_file, save_file

    ours, theirs = models()
    ours.save(tmp_path / "ours.safetensors")
    theirs.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in theirs.state_dict().items()}
    save_file(half, tmp_path / "theirs.safetensors")
    report = ours.load(tmp_path / "theirs.safetensors")
    assert report.converted["0.weight"] == "bfloat16 to float32"
    np.testing.assert_array_equal(ours[0].weight, half["0.weight"].float().numpy())
