"""The sharpest direction of the loss: the largest eigenvalue of the Hessian, by power iteration on gradients."""

import math
from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray
Vector = dict[str, Array]


def sharpness(
    gradient: Callable[[Vector], Vector],
    weights: Mapping[str, Array],
    scale: Mapping[str, Array] | None = None,
    iterations: int = 20,
    tolerance: float = 0.02,
    seed: int = 0,
) -> tuple[float, Vector]:
    """The largest eigenvalue of P^(−1/2) H P^(−1/2), and its direction in the space of the weights.

    `gradient` is a function from weights to the gradient of the loss there, `scale` the diagonal of P (1 where it is
    None). H v is the difference of two gradients: (g(w + εv) − g(w − εv)) / 2ε.
    Source: power iteration; LeCun, Simard and Pearlmutter, "Automatic learning rate maximization by on-line estimation
    of the Hessian's eigenvectors" (1993), for networks.

    >>> import numpy as np
    >>> from chainrule.diagnosis.curvature import sharpness
    >>> hessian = np.diag([1.0, 5.0, 2.0])
    >>> value, direction = sharpness(lambda w: {"w": hessian @ w["w"]}, {"w": np.zeros(3)}, tolerance=1e-9)
    >>> round(value, 2), np.abs(direction["w"]).round(1).tolist()
    (5.0, [0.0, 1.0, 0.0])
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    root = {n: 1 / np.sqrt(np.asarray(s, np.float64)) for n, s in scale.items()} if scale is not None else None
    v = _unit({name: generator.standard_normal(w.shape) for name, w in weights.items()})
    size = max(_length({n: np.asarray(w, np.float64) for n, w in weights.items()}), 1.0)
    value = 0.0
    for _ in range(iterations):
        moved = v if root is None else {n: x * root[n] for n, x in v.items()}
        epsilon = 1e-3 * size / max(_length(moved), 1e-300)
        there, back = (
            gradient({n: (w + sign * epsilon * moved[n]).astype(w.dtype) for n, w in weights.items()})
            for sign in (1, -1)
        )
        h = {n: (np.asarray(there[n], np.float64) - back[n]) / (2 * epsilon) for n in v}
        if root is not None:
            h = {n: x * root[n] for n, x in h.items()}
        new = sum(float(np.vdot(v[n], h[n])) for n in v)
        length = _length(h)
        if not math.isfinite(length) or length == 0:
            return (0.0 if length == 0 else math.inf), moved
        v = {n: x / length for n, x in h.items()}
        done, value = abs(new - value) <= tolerance * abs(new), new
        if done:
            break
    return value, v if root is None else {n: x * root[n] for n, x in v.items()}


def _length(v: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(np.vdot(x, x)) for x in v.values()))


def _unit(v: Vector) -> Vector:
    length = _length(v)
    return {n: x / length for n, x in v.items()}
