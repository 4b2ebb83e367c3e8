"""The layers as modules of PyTorch."""

import torch
from torch.nn import functional

from benchmarks import layers as spec

ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid, "gelu": torch.nn.GELU}
RECURRENT = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class Residual(torch.nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


class Positions(torch.nn.Module):
    """Adds a table."""

    def __init__(self, shape: spec.Shape) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight


class Recurrent(torch.nn.Module):
    """All outputs of an LSTM or a GRU, whose weights it calls its own."""

    def __init__(self, layer: spec.Recurrent, features: int) -> None:
        super().__init__()
        options = {"batch_first": True, "bidirectional": layer.bidirectional}
        self.inner = RECURRENT[layer.kind](features, layer.hidden, layer.layers, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


class Attention(torch.nn.Module):
    """Causal self-attention by `scaled_dot_product_attention`."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, width = x.shape
        q, k, v = (
            part.view(batch, steps, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, steps, width))


class TextConvolutions(torch.nn.ModuleList):
    """(rows, steps, features) -> (rows, kernels · out)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        return torch.cat([functional.relu(conv(x)).amax(dim=2) for conv in self], dim=1)


def module(layer: spec.Layer, shape: spec.Shape, sparse: bool) -> torch.nn.Module:
    """The layer for rows of this shape. `sparse`: embeddings give sparse gradients."""
    match layer:
        case spec.Linear(out):
            return torch.nn.Linear(shape[-1], out)
        case spec.Activation(kind):
            return ACTIVATIONS[kind]()
        case spec.BatchNorm():
            return torch.nn.BatchNorm2d(shape[0]) if len(shape) == 3 else torch.nn.BatchNorm1d(shape[0])
        case spec.Dropout(p):
            return torch.nn.Dropout(p)
        case spec.Conv(out, kernel, stride, padding, groups, bias):
            return torch.nn.Conv2d(shape[0], out, kernel, stride, padding, groups=groups, bias=bias)
        case spec.ConvTranspose(out, kernel, stride, padding, more):
            return torch.nn.ConvTranspose2d(shape[0], out, kernel, stride, padding, more)
        case spec.MaxPool(size):
            return torch.nn.MaxPool2d(size)
        case spec.GlobalAverage():
            return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        case spec.Flatten():
            return torch.nn.Flatten()
        case spec.LayerNorm():
            return torch.nn.LayerNorm(shape[-1])
        case spec.Embedding(rows, width):
            return torch.nn.Embedding(rows, width, sparse=sparse)
        case spec.Residual(body, shortcut):
            return Residual(sequential(body, shape, sparse), sequential(shortcut, shape, sparse))
        case spec.Positions():
            return Positions(shape)
        case spec.Recurrent():
            return Recurrent(layer, shape[-1])
        case spec.Attention(heads):
            return Attention(heads, shape[-1])
        case spec.TextConvolutions(kernels, out):
            return TextConvolutions(torch.nn.Conv1d(shape[-1], out, kernel) for kernel in kernels)
    raise TypeError(f"{layer} is not known here.")


def sequential(layers: tuple[spec.Layer, ...], shape: spec.Shape, sparse: bool = False) -> torch.nn.Sequential:
    """The layers one after the other; without any, the identity."""
    return torch.nn.Sequential(*(module(layer, entering, sparse) for _, layer, entering in spec.walk(layers, shape)))
