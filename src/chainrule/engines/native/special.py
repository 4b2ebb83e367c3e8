"""tanh and the error function."""

from typing import TYPE_CHECKING

from chainrule import dtypes
from chainrule.engines.native.exponential import exp, exp_normal, expm1_bounded, reduced
from chainrule.engines.native.polynomial import at_most, floats, horner, multiply_add, power_of_two
from chainrule.engines.native.roots import divide, divide_exactly

if TYPE_CHECKING:
    from chainrule.engines.native.values import Value, Vectors

NAMES = ("tanh", "erf")
TANH_SMALL = (-0.3333323895931244, 0.13324236869812012, -0.051430027931928635)  # (tanh x / x − 1) / x² in x² to ¼
# float32: erf(x) / x − 1 in x² on [0, 0.95], and log(1 − erf x) on [0.9, 4]
ERF_SMALL = (0.12837916612625122, -0.37612631916999817, 0.11283672600984573, -0.026858104392886162,
             0.0051977974362671375, -0.000810596626251936, 8.215427806135267e-05)  # fmt: skip
ERF_LARGE = (-0.00016644998686388135, -1.127797245979309, -0.6369761228561401, -0.10411366075277328,
             0.02231520228087902, -0.0030653873698949814, 0.00019821932073682547)  # fmt: skip
# float64, Chebyshev fits: erf(x) / x − 1 in x² on [0, 1], and
# exp(x²) (x + 1) (1 − erf x) in (x − 3) / (x + 3) on [1, 6]
ERF_SMALL_FLOAT64 = (
    0.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792, 0.0052239776248180145,
    -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-05, 1.6461000484121368e-06,
    -1.6350312701054695e-07, 1.4659775274047436e-08, -1.1372848856791674e-09, 5.957176147748911e-11,
)  # fmt: skip
ERF_LARGE_FLOAT64 = (
    0.7160046047255598, -0.23092733308380925, 0.09902075367944004, -0.010235388898996915, -0.02380391310866519,
    0.021957764011734694, -0.009750689293283725, 0.0016185691617889284, 0.000645814241286808, -0.0003672891486442872,
    -2.0552756407544187e-05, 5.6126012691473006e-05, -1.4980718670570854e-06, -9.01832122163137e-06,
    1.515561147143741e-07, 1.5820552388630566e-06, 3.3362911910912165e-07,
)  # fmt: skip


def tanh(m: "Vectors", x: "Value") -> "Value":
    """The hyperbolic tangent, never above 1."""
    (x,) = floats(m, x)
    size = m.call("fabs", x)
    if x.dtype == dtypes.float64:
        e = expm1_bounded(m, at_most(m, size, 20.0) * 2.0)
        return m.call("copysign", divide(m, e, e + 2.0), x)  # where e = exp(2 |x|) − 1
    n, e = reduced(m, at_most(m, size, 9.02) * 2.0)
    power = power_of_two(m, n.integer, x.dtype)
    e = multiply_add(m, e, power, power - 1.0)
    square = size * size
    small = multiply_add(m, size * square, horner(m, square, TANH_SMALL), size)
    return m.call("copysign", m.where(size < 0.25, small, divide(m, e, e + 2.0)), x)


def erf(m: "Vectors", x: "Value") -> "Value":
    """The error function."""
    (x,) = floats(m, x)
    size = m.call("fabs", x)
    square = x * x
    if x.dtype == dtypes.float32:
        small = multiply_add(m, horner(m, square, ERF_SMALL), x, x)
        large = 1.0 - exp_normal(m, horner(m, at_most(m, size, 4.0), ERF_LARGE))
        return m.where(size < 0.921875, small, m.call("copysign", large, x))
    small = multiply_add(m, horner(m, square, ERF_SMALL_FLOAT64), x, x)
    t = divide_exactly(m, size - 3.0, size + 3.0)
    large = 1.0 - divide_exactly(m, exp(m, -square) * horner(m, t, ERF_LARGE_FLOAT64), size + 1.0)
    large = m.where(size >= 6.0, 1.0, large)
    return m.where(size < 1.0, small, m.call("copysign", large, x))
