"""What primitives are tried on: each declaration lists samples, and the test-suites of all engines draw from them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

EXTREMES = (0.0, -0.0, 1.0, -1.0, 0.5, 300.0, -300.0, 1e-42, -1e-42, 3e38, float("inf"), float("-inf"), float("nan"))


@dataclass(frozen=True)
class Input:
    """One input: random numbers of a kind between `low` and `high`, no two closer than `apart`, or given values.

    Real ones have the dtype that a test asks for, unless `dtype` says which.
    """

    shape: tuple[int, ...]
    kind: str = "real"
    low: float = -2.0
    high: float = 2.0
    apart: float = 0.0
    values: tuple[Any, ...] = ()
    dtype: np.dtype | None = None

    def draw(self, rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
        """An array; `dtype` is that of real inputs."""
        dtype = self.dtype or dtype
        if self.values:
            return np.asarray(self.values, np.uint32 if self.kind == "bits" else dtype).reshape(self.shape)
        if self.kind == "bits":
            return rng.integers(0, 2**32, self.shape, dtype=np.uint32)
        if self.kind == "integer":
            return rng.integers(int(self.low), int(self.high), self.shape, dtype=np.int64)
        if self.kind == "boolean":
            return rng.random(self.shape) < 0.5
        if self.apart:  # for kinks and ties: a shuffled grid
            n = int(np.prod(self.shape))
            grid = self.low + (np.arange(n) + 0.5 + 0.4 * (rng.random(n) - 0.5)) * ((self.high - self.low) / max(n, 1))
            return rng.permutation(grid).reshape(self.shape).astype(dtype)
        return rng.uniform(self.low, self.high, self.shape).astype(dtype)


@dataclass(frozen=True)
class Sample:
    """Inputs and attributes for one application of a primitive."""

    inputs: tuple[Input, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def smooth(self) -> bool:
        """Whether derivatives can be compared with numerical ones here."""
        return any(i.kind == "real" and not i.values for i in self.inputs)


def real(*shape: int, low: float = -2.0, high: float = 2.0, apart: float = 0.0) -> Input:
    """Uniform real numbers."""
    return Input(shape, "real", low, high, apart)


def double(*shape: int) -> Input:
    """Uniform real numbers, always float64: for attributes that fix the dtype."""
    return Input(shape, dtype=np.dtype(np.float64))


def integer(*shape: int, low: int = -5, high: int = 6) -> Input:
    """Uniform int64 in [low, high)."""
    return Input(shape, "integer", low, high)


def bits(*shape: int) -> Input:
    """Uniform uint32."""
    return Input(shape, "bits")


def boolean(*shape: int) -> Input:
    """Truth values."""
    return Input(shape, "boolean")


def at(*values: float) -> Input:
    """Exactly these real numbers."""
    return Input((len(values),), "real", values=values)


def sample(*inputs: Input, **attributes: Any) -> Sample:
    """One sample."""
    return Sample(inputs, attributes)
