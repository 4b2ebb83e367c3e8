"""How far results are from the truth, in units in the last place."""

import numpy as np


def ulps(result, exact):
    """The error of each element. `exact` has a wider dtype; a wrong NaN, infinity or sign of zero counts as ∞."""
    form, wide = np.finfo(result.dtype), exact.dtype.type
    with np.errstate(all="ignore"):
        top = np.ldexp(wide(1), form.maxexp)
        given, truth = (np.clip(a.astype(wide), -top, top) for a in (result, exact))  # infinity as the next power of 2
        size = np.clip(np.abs(truth), wide(form.smallest_normal), np.nextafter(top, wide(0)))
        unit = np.ldexp(wide(1), np.frexp(size)[1] - 1 - form.nmant)
        error = np.abs(given - truth) / unit
    both_nan = np.isnan(result) & np.isnan(exact)
    error = np.where(both_nan, 0, np.where(np.isnan(result) | np.isnan(exact), np.inf, error))
    zeros = (result == 0) & (exact == 0)
    return np.where(zeros & (np.signbit(result) != np.signbit(exact)), np.inf, error)


def erf(x):
    """The error function in the dtype of x, by a series of positive terms: 2/√π exp(−x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!."""
    wide = x.dtype.type
    size = np.minimum(np.abs(x), wide(7))
    with np.errstate(under="ignore"):
        term = total = size
        for n in range(1, 250):
            term = term * (2 * size * size / (2 * n + 1))
            total = total + term
        result = total * np.exp(-size * size) * (2 / np.sqrt(wide(np.pi) + wide(1.2246467991473532e-16)))
    return np.copysign(np.where(size >= 7, wide(1), result), x)


ORACLES = {
    name: getattr(np, name)
    for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "tan", "arcsin", "arccos", "arctan")
} | {"erf": erf}
