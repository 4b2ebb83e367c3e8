"""The convolutional, recurrent and attention networks of `python -m benchmarks networks`."""

from benchmarks.layers import (
    Activation,
    Attention,
    BatchNorm,
    Conv,
    ConvTranspose,
    Embedding,
    Flatten,
    GlobalAverage,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    Positions,
    Recurrent,
    Residual,
    TextConvolutions,
)

Layers = tuple[Layer, ...]
RELU = Activation("relu")


def normalised(out: int, kernel: int = 3, stride: int = 1, groups: int = 1, active: bool = True) -> Layers:
    """Convolution, batch norm, ReLU."""
    conv = Conv(out, kernel, stride, kernel // 2, groups, bias=False)
    return (conv, BatchNorm(), RELU) if active else (conv, BatchNorm())


def lenet() -> Layers:
    """Two convolutions, two Linears."""
    return (
        Conv(32, 3), RELU, MaxPool(2),
        Conv(64, 3), RELU, MaxPool(2),
        Flatten(), Linear(128), RELU, Linear(10),
    )  # fmt: skip


def cnn32() -> Layers:
    """Five convolutions with batch norm."""
    return (
        *normalised(32), *normalised(32), MaxPool(2),
        *normalised(64), *normalised(64), MaxPool(2),
        *normalised(128), GlobalAverage(), Linear(10),
    )  # fmt: skip


def resnet20() -> Layers:
    """He et al., "Deep residual learning for image recognition" (2015), section 4.2, n = 3.

    Where the shape changes the shortcut is a 1×1 convolution with batch norm (option B of the paper).
    """
    blocks: list[Layer] = []
    width = 16
    for out in (16, 32, 64):
        for _ in range(3):
            stride = 2 if out != width else 1
            body = (*normalised(out, stride=stride), *normalised(out, active=False))
            shortcut = normalised(out, 1, stride, active=False) if stride == 2 else ()
            blocks += [Residual(body, shortcut), RELU]
            width = out
    return (*normalised(16), *blocks, GlobalAverage(), Linear(10))


def separable() -> Layers:
    """Depthwise, then 1×1 convolutions, as in Howard et al., "MobileNets" (2017), for small images."""
    layers: list[Layer] = [*normalised(32)]
    width = 32
    for out, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += [*normalised(width, stride=stride, groups=width), *normalised(out, 1)]
        width = out
    return (*layers, GlobalAverage(), Linear(10))


def autoencoder() -> Layers:
    """Two strided convolutions down, two transposed ones up."""
    return (
        Conv(32, 3, 2, 1), RELU, Conv(64, 3, 2, 1), RELU,
        ConvTranspose(32, 3, 2, 1, 1), RELU, ConvTranspose(1, 3, 2, 1, 1), Activation("sigmoid"),
    )  # fmt: skip


def text_cnn() -> Layers:
    """Kim, "Convolutional neural networks for sentence classification" (2014), without dropout."""
    return (Embedding(16_000, 300), TextConvolutions((3, 4, 5), 100), Linear(2))


def characters(kind: str) -> Layers:
    """A recurrent network that tells the next character at each step."""
    return (Embedding(96, 128), Recurrent(kind, 128), Linear(96))


def tagger() -> Layers:
    """A two-layer bidirectional LSTM with a class for each step."""
    return (Recurrent("lstm", 128, 2, bidirectional=True), Linear(96))


def gpt(blocks: int = 4, width: int = 128, heads: int = 4, vocabulary: int = 65) -> Layers:
    """Radford et al., "Language models are unsupervised multitask learners" (2019), small, without dropout."""
    block = (
        Residual((LayerNorm(), Attention(heads))),
        Residual((LayerNorm(), Linear(4 * width), Activation("gelu"), Linear(width))),
    )
    return (Embedding(vocabulary, width), Positions(), *(block * blocks), LayerNorm(), Linear(vocabulary))
