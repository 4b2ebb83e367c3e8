"""The layers as functions of `jax.numpy` and `jax.lax`. Images have their channels last, weights what fits to that."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import layers as spec

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}
IMAGES = ("NHWC", "HWIO", "NHWC")
MOMENTUM, EPSILON = 0.1, 1e-5
Arrays = dict[str, jax.Array]


def converted(layer: spec.Layer, name: str, value: np.ndarray) -> np.ndarray:
    """A weight of PyTorch's layout in the one used here."""
    if isinstance(layer, spec.Conv):
        return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    if isinstance(layer, spec.ConvTranspose):
        return value[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) if value.ndim == 4 else value
    if isinstance(layer, spec.TextConvolutions):
        return value.transpose(2, 1, 0) if value.ndim == 3 else value
    tables = (spec.Embedding, spec.Positions)
    return value.T if value.ndim == 2 and not isinstance(layer, tables) else value


def leaves(layers: tuple[spec.Layer, ...], shape: spec.Shape, path: str = "") -> Iterator[tuple[str, spec.Layer, Any]]:
    """Path, layer and the shape that goes in, for all layers within layers."""
    for number, layer, entering in spec.walk(layers, shape):
        if isinstance(layer, spec.Residual):
            yield from leaves(layer.body, entering, f"{path}{number}.body.")
            yield from leaves(layer.shortcut, entering, f"{path}{number}.shortcut.")
        else:
            yield f"{path}{number}", layer, entering


def first_weights(
    layers: tuple[spec.Layer, ...], shape: spec.Shape, drawn: dict[str, np.ndarray], dtype: Any
) -> tuple[Arrays, Arrays]:
    """The weights, and the running statistics of batch norm, by path."""
    weights, statistics = {}, {}
    for path, layer, entering in leaves(layers, shape):
        for name in layer.weights(entering):
            weights[f"{path}.{name}"] = jnp.array(converted(layer, name, drawn[f"{path}.{name}"]))
        if isinstance(layer, (spec.BatchNorm, spec.LayerNorm)):
            n = layer.norms(entering) // 2
            weights[f"{path}.weight"], weights[f"{path}.bias"] = jnp.ones(n, dtype), jnp.zeros(n, dtype)
        if isinstance(layer, spec.BatchNorm):
            statistics[f"{path}.mean"], statistics[f"{path}.var"] = jnp.zeros(n, dtype), jnp.ones(n, dtype)
    return weights, statistics


@dataclass
class Pass:
    """A forward pass: what layers read besides their input, and the statistics that they leave."""

    weights: Arrays
    statistics: Arrays
    key: jax.Array
    unroll: int = 1

    def sequential(self, layers: tuple[spec.Layer, ...], path: str, x: jax.Array) -> jax.Array:
        """One layer after the other."""
        for i, layer in enumerate(layers):
            x = self.apply(layer, f"{path}{i}", x)
        return x

    def apply(self, layer: spec.Layer, path: str, x: jax.Array) -> jax.Array:
        """A layer, with its batch in front."""
        match layer:
            case spec.Linear():
                return self.linear(path, x)
            case spec.Activation(kind):
                return ACTIVATIONS[kind](x)
            case spec.BatchNorm():
                return self.batch_norm(path, x)
            case spec.LayerNorm():
                mean = x.mean(axis=-1, keepdims=True)
                variance = x.var(axis=-1, keepdims=True)
                scaled = (x - mean) * lax.rsqrt(variance + EPSILON)
                return scaled * self.weights[f"{path}.weight"] + self.weights[f"{path}.bias"]
            case spec.Dropout(p):
                self.key, drawn = jax.random.split(self.key)
                return jnp.where(jax.random.bernoulli(drawn, 1 - p, x.shape), x / (1 - p), 0) if p else x
            case spec.Conv() | spec.ConvTranspose():
                return self.convolution(layer, path, x)
            case spec.MaxPool(size):
                return max_pool(x, size)
            case spec.GlobalAverage():
                return x.mean(axis=(1, 2))
            case spec.Flatten():
                return x.transpose(0, 3, 1, 2).reshape(len(x), -1)
            case spec.Residual(body, shortcut):
                inner = self.sequential(body, f"{path}.body.", x)
                return inner + self.sequential(shortcut, f"{path}.shortcut.", x)
            case spec.Embedding():
                return self.weights[f"{path}.weight"][x]
            case spec.Positions():
                return x + self.weights[f"{path}.weight"]
            case spec.Recurrent():
                return self.recurrent(layer, path, x)
            case spec.Attention(heads):
                return self.attention(heads, path, x)
            case spec.TextConvolutions():
                return self.text_convolutions(layer, path, x)
        raise TypeError(f"{layer} is not known here.")

    def linear(self, path: str, x: jax.Array) -> jax.Array:
        """x · weight + bias, on the last axis."""
        return x @ self.weights[f"{path}.weight"] + self.weights[f"{path}.bias"]

    def batch_norm(self, path: str, x: jax.Array) -> jax.Array:
        """Over all axes but the channels, which are last."""
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
        n = x.size // x.shape[-1]
        for name, value in (("mean", mean), ("var", variance * (n / (n - 1)))):
            running = self.statistics[f"{path}.{name}"]
            self.statistics[f"{path}.{name}"] = (1 - MOMENTUM) * running + MOMENTUM * value
        scaled = (x - mean) * lax.rsqrt(variance + EPSILON)
        return scaled * self.weights[f"{path}.weight"] + self.weights[f"{path}.bias"]

    def convolution(self, layer: spec.Conv | spec.ConvTranspose, path: str, x: jax.Array) -> jax.Array:
        """(N, H, W, C); the transposed one over an input with zeros between its pixels."""
        weight, options = self.weights[f"{path}.weight"], {}
        if isinstance(layer, spec.Conv):
            strides, edges = layer.stride, (layer.padding, layer.padding)
            options = {"feature_group_count": layer.groups}
        else:
            low = layer.kernel - 1 - layer.padding
            strides, edges = 1, (low, low + layer.output_padding)
            options = {"lhs_dilation": (layer.stride, layer.stride)}
        y = lax.conv_general_dilated(x, weight, (strides, strides), (edges, edges), dimension_numbers=IMAGES, **options)
        return y + self.weights[f"{path}.bias"] if f"{path}.bias" in self.weights else y

    def recurrent(self, layer: spec.Recurrent, path: str, x: jax.Array) -> jax.Array:
        """The products with the inputs for all steps at once, then a scan."""
        cell = lstm_cell if layer.kind == "lstm" else gru_cell
        state = jnp.zeros((x.shape[0], layer.hidden), x.dtype)
        first = (state, state) if layer.kind == "lstm" else (state,)
        x = x.swapaxes(0, 1)
        suffixes = [suffix for suffix, _ in layer.passes(0)]
        for i in range(layer.layers):
            outputs = []
            for suffix in suffixes[i * layer.directions : (i + 1) * layer.directions]:
                of = [
                    self.weights[f"{path}.{name}{suffix}"] for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
                ]
                inputs = x @ of[0] + of[1]

                def step(carry: Any, given: jax.Array, of: list[jax.Array] = of) -> tuple[Any, jax.Array]:
                    carry = cell(carry, given, carry[0] @ of[2] + of[3])
                    return carry, carry[0]

                backwards = suffix.endswith("reverse")
                outputs.append(lax.scan(step, first, inputs, reverse=backwards, unroll=self.unroll)[1])
            x = jnp.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
        return x.swapaxes(0, 1)

    def attention(self, heads: int, path: str, x: jax.Array) -> jax.Array:
        """Causal self-attention."""
        batch, steps, width = x.shape
        parts = jnp.split(self.linear(f"{path}.qkv", x), 3, axis=2)
        q, k, v = (part.reshape(batch, steps, heads, width // heads) for part in parts)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width // heads)
        shown = jnp.tril(jnp.ones((steps, steps), bool))
        weights = jax.nn.softmax(jnp.where(shown, scores, -jnp.inf))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return self.linear(f"{path}.out", y.reshape(batch, steps, width))

    def text_convolutions(self, layer: spec.TextConvolutions, path: str, x: jax.Array) -> jax.Array:
        """(N, steps, features) -> (N, kernels · out)."""
        found = []
        for i in range(len(layer.kernels)):
            y = lax.conv_general_dilated(
                x, self.weights[f"{path}.{i}.weight"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
            )
            found.append(jax.nn.relu(y + self.weights[f"{path}.{i}.bias"]).max(axis=1))
        return jnp.concatenate(found, axis=1)


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Windows side by side. As a reshaping, whose gradient XLA does faster than that of `lax.reduce_window`."""
    batch, height, width, channels = x.shape
    height, width = height // size, width // size
    x = x[:, : height * size, : width * size]
    return x.reshape(batch, height, size, width, size, channels).max(axis=(2, 4))


def lstm_cell(carry: tuple[jax.Array, ...], given: jax.Array, recalled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(output, state), from the products with the input and with the last output."""
    i, f, g, o = jnp.split(given + recalled, 4, axis=-1)
    state = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(state), state


def gru_cell(carry: tuple[jax.Array, ...], given: jax.Array, recalled: jax.Array) -> tuple[jax.Array]:
    """(output,), from the products with the input and with the last output."""
    (r, z, n), (hr, hz, hn) = jnp.split(given, 3, axis=-1), jnp.split(recalled, 3, axis=-1)
    update = jax.nn.sigmoid(z + hz)
    candidate = jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn)
    return ((1 - update) * candidate + update * carry[0],)
