"""Layers of images and sequences, attention: machine code against the reference, values, gradients, state."""

import numpy as np
import pytest
from tests.engines.native.suite import native, reference
from tests.engines.native.test_suite_training import ELSEWHERE, LAYERS, compare_layer, rows, seed

import chainrule as cr
from chainrule import nn

SIGNAL, IMAGE, VOLUME = rows(3, 6, 11), rows(3, 6, 8, 7), rows(2, 4, 5, 4, 6)
BYTES = np.random.default_rng(0).integers(0, 256, (3, 8, 7), np.uint8)
BY_SPACE = {"1d": SIGNAL, "2d": IMAGE, "3d": VOLUME}
STEPS = rows(7, 3, 6)
WITH_CHANNELS = ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm")


def of(kind, space, *arguments, **options):
    """A layer for one, two or three axes of space."""
    layer = getattr(nn, kind + space)
    typed = kind in WITH_CHANNELS
    return lambda d: layer(*arguments, **options, **({"dtype": d} if typed else {}))


FAMILIES = {
    "Conv": ((1, 6, 2), 5, 3, {"stride": 2, "padding": 1}),
    "ConvTranspose": ((1, 6, 2), 5, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
}
IN_SPACE = {
    "MaxPool": ((2,), {}), "AvgPool": ((3,), {"stride": 2, "padding": 1}), "AdaptiveAvgPool": ((3,), {}),
    "AdaptiveMaxPool": ((2,), {}), "ZeroPad": ((1,), {}), "ConstantPad": ((2, 0.5), {}), "ReflectionPad": ((1,), {}),
    "ReplicationPad": ((2,), {}), "CircularPad": ((1,), {}),
}  # fmt: skip
MORE = {
    **{
        f"{kind}{space} {groups} groups": (
            of(kind, space, x.shape[1], out * groups, window, groups=groups, **options), x,
        )
        for kind, (_, out, window, options) in FAMILIES.items()
        for space, x in BY_SPACE.items()
        for groups in (1, 2)
    },
    **{
        f"{kind}{space}": (of(kind, space, *arguments, **options), x)
        for kind, (arguments, options) in IN_SPACE.items()
        for space, x in BY_SPACE.items()
    },
    **{f"BatchNorm{s}": (of("BatchNorm", s, x.shape[1]), x) for s, x in BY_SPACE.items()},
    **{f"InstanceNorm{s}": (of("InstanceNorm", s, x.shape[1], affine=True), x) for s, x in BY_SPACE.items()},
    **{
        f"{name}": (lambda d, name=name: getattr(nn, name)(0.4, generator=seed(1)), x)
        for name, x in (
            ("Dropout1d", SIGNAL), ("Dropout2d", IMAGE), ("Dropout3d", VOLUME), ("AlphaDropout", IMAGE),
            ("FeatureAlphaDropout", IMAGE),
        )
    },
    "Conv2d depthwise": (of("Conv", "2d", 6, 6, 3, padding=1, groups=6), IMAGE),
    "Conv2d depthwise strided": (of("Conv", "2d", 6, 12, 3, stride=2, groups=6), IMAGE),
    "Conv2d dilated": (of("Conv", "2d", 6, 33, 3, padding="same", dilation=2), IMAGE),
    "Conv2d of wide channels": (of("Conv", "2d", 40, 36, 3, padding=1), rows(2, 40, 9, 7)),
    "Conv2d into one channel": (of("Conv", "2d", 40, 1, 3, padding=1), rows(2, 40, 9, 7)),
    "Conv2d into few channels": (of("Conv", "2d", 9, 3, (2, 3), stride=(1, 2), padding=1), rows(3, 9, 6, 9)),
    "ConvTranspose2d into few channels": (
        of("ConvTranspose", "2d", 32, 3, 3, stride=2, padding=1, output_padding=1), rows(2, 32, 5, 4),
    ),
    "Conv2d reflecting": (of("Conv", "2d", 6, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
    "MaxPool2d lapping": (of("MaxPool", "2d", 3, stride=2, padding=1), IMAGE),
    "GlobalAvgPool1d": (lambda d: nn.GlobalAvgPool1d(), SIGNAL),
    "GlobalAvgPool2d": (lambda d: nn.GlobalAvgPool2d(), IMAGE),
    "GlobalAvgPool3d": (lambda d: nn.GlobalAvgPool3d(), VOLUME),
    "LocalResponseNorm": (lambda d: nn.LocalResponseNorm(3), IMAGE),
    "ChannelShuffle": (lambda d: nn.ChannelShuffle(3), IMAGE),
    "PixelShuffle": (lambda d: nn.PixelShuffle(2), rows(2, 8, 3, 5)),
    "PixelUnshuffle": (lambda d: nn.PixelUnshuffle(2), rows(2, 2, 4, 6)),
    "Fold": (lambda d: nn.Fold((4, 5), (2, 2)), rows(2, 12, 12)),
    "Unfold": (lambda d: nn.Unfold((2, 3), padding=1), IMAGE),
    "Upsample": (lambda d: nn.Upsample(scale_factor=2), IMAGE),
    "Upsample bilinear": (lambda d: nn.Upsample(scale_factor=1.5, mode="bilinear"), IMAGE),
    "RNN": (lambda d: nn.RNN(6, 9, 2, bidirectional=True, dtype=d), STEPS),
    "LSTM": (lambda d: nn.LSTM(6, 9, proj_size=4, dtype=d), STEPS),
    "GRU": (lambda d: nn.GRU(6, 9, batch_first=True, dtype=d), STEPS),
    "RNNCell": (lambda d: nn.RNNCell(6, 9, dtype=d), STEPS[0]),
    "LSTMCell": (lambda d: nn.LSTMCell(6, 9, dtype=d), STEPS[0]),
    "GRUCell": (lambda d: nn.GRUCell(6, 9, dtype=d), STEPS[0]),
    "TransformerEncoderLayer": (
        lambda d: nn.TransformerEncoderLayer(6, 2, 17, 0.1, batch_first=True, generator=seed(1), dtype=d), STEPS,
    ),
    "SinusoidalEncoding": (lambda d: nn.SinusoidalEncoding(6, 9), STEPS),
    "LearnedEncoding": (lambda d: nn.LearnedEncoding(9, 6, dtype=d), STEPS),
    "RandomShift": (lambda d: nn.RandomShift(1, generator=seed(1)), IMAGE),
    "RandomHorizontalFlip": (lambda d: nn.RandomHorizontalFlip(generator=seed(1)), IMAGE),
}  # fmt: skip
IN_TESTS_OF_THEIR_OWN = {
    "KeyValueCache", "PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence",
    "MultiheadAttention", "RotaryEncoding", "Transformer", "TransformerDecoder", "TransformerDecoderLayer",
    "TransformerEncoder", "Pixels",
}  # fmt: skip


def test_every_layer_is_here():
    named = {name.split()[0] for name in (*LAYERS, *MORE)} | ELSEWHERE | IN_TESTS_OF_THEIR_OWN
    assert {name for name in nn.__all__ if not name.endswith("Loss")} - named == set()


class Single(nn.Module):
    """The first result of a layer that has several."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MORE)
def test_layers(name, dtype):
    make, x = MORE[name]
    compare_layer(lambda d: Single(make(d)), (x,), dtype)


def test_pixels():
    f = lambda x: nn.Pixels()(x)
    np.testing.assert_array_equal(np.asarray(native(f)(cr.tensor(BYTES))), np.asarray(reference(f)(cr.tensor(BYTES))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_transformer(dtype):
    class Both(nn.Module):
        def __init__(self, dtype):
            self.inner = nn.Transformer(6, 2, 1, 1, 11, 0.0, batch_first=True, norm_first=True, dtype=dtype)

        def forward(self, x, y):
            mask = nn.Transformer.generate_square_subsequent_mask(y.shape[1])
            return self.inner(x, y, tgt_mask=mask)

    compare_layer(Both, (rows(3, 5, 6), rows(3, 4, 6)), dtype)
