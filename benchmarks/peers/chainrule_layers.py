"""The layers as modules of chainrule."""

from typing import Any

import chainrule as cr
from benchmarks import layers as spec
from chainrule import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Any) -> Any:
        return self.body(x) + self.shortcut(x)


class Positions(nn.Module):
    """Adds a table."""

    def __init__(self, shape: spec.Shape) -> None:
        self.weight = nn.Parameter(cr.zeros(shape))

    def forward(self, x: Any) -> Any:
        return x + self.weight


class Recurrent(nn.Module):
    """All outputs of an LSTM or a GRU."""

    def __init__(self, layer: spec.Recurrent, features: int, options: dict[str, Any]) -> None:
        made = {"lstm": nn.LSTM, "gru": nn.GRU}[layer.kind]
        self.inner = made(
            features, layer.hidden, layer.layers, batch_first=True, bidirectional=layer.bidirectional, **options
        )

    def forward(self, x: Any) -> Any:
        return self.inner(x)[0]


class Attention(nn.Module):
    """Causal self-attention by `scaled_dot_product_attention`."""

    def __init__(self, heads: int, width: int, options: dict[str, Any]) -> None:
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, **options), nn.Linear(width, width, **options)

    def forward(self, x: Any) -> Any:
        batch, steps, width = x.shape
        whole = self.qkv(x)
        parts = (whole[..., i * width : (i + 1) * width] for i in range(3))
        q, k, v = (part.reshape((batch, steps, self.heads, width // self.heads)).swapaxes(1, 2) for part in parts)
        y = cr.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.swapaxes(1, 2).reshape((batch, steps, width)))


class TextConvolutions(nn.ModuleList):
    """(rows, steps, features) -> (rows, kernels · out)."""

    def forward(self, x: Any) -> Any:
        x = x.swapaxes(1, 2)
        return cr.concat([cr.max(cr.relu(conv(x)), axis=2) for conv in self], axis=1)


def module(layer: spec.Layer, shape: spec.Shape, options: dict[str, Any]) -> nn.Module:
    """The layer for rows of this shape. `options`: dtype and generator."""
    match layer:
        case spec.Linear(out):
            return nn.Linear(shape[-1], out, **options)
        case spec.Activation(kind):
            return ACTIVATIONS[kind]()
        case spec.BatchNorm():
            return (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0], dtype=options["dtype"])
        case spec.Dropout(p):
            return nn.Dropout(p, options["generator"])
        case spec.Conv(out, kernel, stride, padding, groups, bias):
            return nn.Conv2d(shape[0], out, kernel, stride, padding, groups=groups, bias=bias, **options)
        case spec.ConvTranspose(out, kernel, stride, padding, more):
            return nn.ConvTranspose2d(shape[0], out, kernel, stride, padding, more, **options)
        case spec.MaxPool(size):
            return nn.MaxPool2d(size)
        case spec.GlobalAverage():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case spec.Flatten():
            return nn.Flatten()
        case spec.LayerNorm():
            return nn.LayerNorm(shape[-1], dtype=options["dtype"])
        case spec.Embedding(rows, width):
            return nn.Embedding(rows, width, **options)
        case spec.Residual(body, shortcut):
            return Residual(sequential(body, shape, options), sequential(shortcut, shape, options))
        case spec.Positions():
            return Positions(shape)
        case spec.Recurrent():
            return Recurrent(layer, shape[-1], options)
        case spec.Attention(heads):
            return Attention(heads, shape[-1], options)
        case spec.TextConvolutions(kernels, out):
            return TextConvolutions([nn.Conv1d(shape[-1], out, kernel, **options) for kernel in kernels])
    raise TypeError(f"{layer} is not known here.")


def sequential(layers: tuple[spec.Layer, ...], shape: spec.Shape, options: dict[str, Any]) -> nn.Module:
    """The layers one after the other; without any, the identity."""
    made = [module(layer, entering, options) for _, layer, entering in spec.walk(layers, shape)]
    return nn.Sequential(*made) if made else nn.Identity()
