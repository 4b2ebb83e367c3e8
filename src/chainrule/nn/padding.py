"""Layers that add a border. Widths are given once, or as (left, right, top, bottom, front, back), as in PyTorch."""

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.manipulation import pad
from chainrule.functions.windows import AXES_NAMED
from chainrule.nn.module import Module

Widths = int | Sequence[int]


class _Pad(Module):
    axes: ClassVar[int]
    mode: ClassVar[str]
    value: float = 0.0

    def __init__(self, padding: Widths) -> None:
        self.padding = self._widths(padding)

    def _widths(self, padding: Any) -> tuple[int, ...]:
        name, count = type(self).__name__, 2 * self.axes
        given = tuple(padding) if isinstance(padding, Sequence) and not isinstance(padding, str) else (padding,) * count
        try:
            widths = tuple(operator.index(n) for n in given)
        except TypeError:
            raise ConfigError(f"{name}: padding is made of whole numbers, not {padding!r:.80}.") from None
        if len(widths) != count:
            raise ConfigError(f"{name}: padding is one number or {count} of them; got {padding!r:.80}.")
        if self.mode != "constant" and min(widths) < 0:
            raise ConfigError(f"{name}: only padding by a constant may be negative, which leaves out; got {padding!r}.")
        return widths

    def forward(self, x: Tensor) -> Tensor:
        """(..., *space) -> (..., *space') with each axis of space longer by its two widths."""
        x = as_tensor(x)
        if x.ndim < self.axes:
            raise ShapeError(f"{self.label} expects (..., {AXES_NAMED[self.axes]}), got shape {x.shape}.")
        widths = [(0, 0)] * (x.ndim - self.axes)
        cuts = [slice(None)] * len(widths)
        for k, n in enumerate(x.shape[x.ndim - self.axes :]):
            first = 2 * (self.axes - 1 - k)  # the widths of the last axis come first
            low, high = self.padding[first : first + 2]
            self._check(x, n, low, high)
            widths.append((max(low, 0), max(high, 0)))
            cuts.append(slice(max(-low, 0), n - max(-high, 0)))
        if min(self.padding) < 0:
            x = x[tuple(cuts)]
        return pad(x, widths, self.mode, self.value)

    def _check(self, x: Tensor, n: int, low: int, high: int) -> None:
        """What mirrors or goes on at the other end cannot give more than there is."""
        most = {"reflect": n - 1, "wrap": n}.get(self.mode)
        if most is not None and max(low, high) > max(most, 0):
            raise ShapeError(
                f"{self.label}: an axis of {n} elements gives at most {max(most, 0)} on each side; "
                f"padding={self.padding} asks for more of shape {x.shape}."
            )
        if n + min(low, 0) + min(high, 0) < 0:
            raise ShapeError(f"{self.label}: padding={self.padding} leaves out more than there is of shape {x.shape}.")


class _ZeroPad(_Pad):
    mode = "constant"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Widths, value: float) -> None:
        super().__init__(padding)
        self.value = value


class _ReflectionPad(_Pad):
    mode = "reflect"


class _ReplicationPad(_Pad):
    mode = "edge"


class _CircularPad(_Pad):
    mode = "wrap"


class ZeroPad1d(_ZeroPad):
    """Zeros around a signal: `padding` elements on every side, or (left, right).

    x (..., L); keeps what stands before. Negative widths leave elements out.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ZeroPad1d((1, 2))(cr.tensor([[5, 6]])).tolist()
    [[0, 5, 6, 0, 0]]
    """

    axes = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around an image: `padding` elements on every side, or (left, right, top, bottom).

    x (..., H, W); keeps what stands before. Negative widths leave elements out.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ZeroPad2d((1, 0, 0, 1))(cr.tensor([[[5, 6]]])).tolist()
    [[[0, 5, 6], [0, 0, 0]]]
    """

    axes = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around a volume.

    x (..., D, H, W); keeps what stands before. `padding` elements are added on every side, or (left, right, top,
    bottom, front, back). Negative widths leave elements out.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ZeroPad3d((1, 2, 0, 0, 1, 1))(cr.ones((2, 3, 4, 5))).shape
    (2, 5, 4, 8)
    """

    axes = 3


class ConstantPad1d(_ConstantPad):
    """`value` around a signal: `padding` elements on every side, or (left, right).

    x (..., L); keeps what stands before. Negative widths leave elements out.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConstantPad1d(1, 9)(cr.tensor([[5, 6]])).tolist()
    [[9, 5, 6, 9]]
    """

    axes = 1


class ConstantPad2d(_ConstantPad):
    """`value` around an image: `padding` elements on every side, or (left, right, top, bottom).

    x (..., H, W); keeps what stands before. Negative widths leave elements out.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConstantPad2d((1, 0, 0, 1), 9)(cr.tensor([[[5, 6]]])).tolist()
    [[[9, 5, 6], [9, 9, 9]]]
    """

    axes = 2


class ConstantPad3d(_ConstantPad):
    """`value` around a volume.

    x (..., D, H, W); keeps what stands before. `padding` elements are added on every side, or (left, right, top,
    bottom, front, back). Negative widths leave elements out.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ConstantPad3d((1, 2, 0, 0, 1, 1), 9.0)(cr.ones((2, 3, 4, 5))).shape
    (2, 5, 4, 8)
    """

    axes = 3


class ReflectionPad1d(_ReflectionPad):
    """The mirror image around a signal: `padding` elements on every side, or (left, right).

    x (..., L); keeps what stands before. Raises ShapeError for a width that is not less than the extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReflectionPad1d(2)(cr.tensor([[1, 2, 3]])).tolist()
    [[3, 2, 1, 2, 3, 2, 1]]
    """

    axes = 1


class ReflectionPad2d(_ReflectionPad):
    """The mirror image around an image: `padding` elements on every side, or (left, right, top, bottom).

    x (..., H, W); keeps what stands before. Raises ShapeError for a width that is not less than the extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReflectionPad2d((0, 1, 1, 0))(cr.tensor([[[1, 2], [3, 4]]])).tolist()
    [[[3, 4, 3], [1, 2, 1], [3, 4, 3]]]
    """

    axes = 2


class ReflectionPad3d(_ReflectionPad):
    """The mirror image around a volume.

    x (..., D, H, W); keeps what stands before. `padding` elements are added on every side, or (left, right, top,
    bottom, front, back). Raises ShapeError for a width that is not less than the extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReflectionPad3d((1, 2, 0, 0, 1, 1))(cr.ones((2, 3, 4, 5))).shape
    (2, 5, 4, 8)
    """

    axes = 3


class ReplicationPad1d(_ReplicationPad):
    """The outermost elements repeated around a signal: `padding` elements on every side, or (left, right).

    x (..., L); keeps what stands before. Raises ShapeError for an empty input.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReplicationPad1d(2)(cr.tensor([[1, 2, 3]])).tolist()
    [[1, 1, 1, 2, 3, 3, 3]]
    """

    axes = 1


class ReplicationPad2d(_ReplicationPad):
    """The outermost elements repeated around an image: `padding` elements on every side, or (left, right, top, bottom).

    x (..., H, W); keeps what stands before. Raises ShapeError for an empty input.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReplicationPad2d((0, 1, 1, 0))(cr.tensor([[[1, 2], [3, 4]]])).tolist()
    [[[1, 2, 2], [1, 2, 2], [3, 4, 4]]]
    """

    axes = 2


class ReplicationPad3d(_ReplicationPad):
    """The outermost elements repeated around a volume.

    x (..., D, H, W); keeps what stands before. `padding` elements are added on every side, or (left, right, top,
    bottom, front, back). Raises ShapeError for an empty input.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.ReplicationPad3d((1, 2, 0, 0, 1, 1))(cr.ones((2, 3, 4, 5))).shape
    (2, 5, 4, 8)
    """

    axes = 3


class CircularPad1d(_CircularPad):
    """The other end around a signal: `padding` elements on every side, or (left, right).

    x (..., L); keeps what stands before. Raises ShapeError for a width above the extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.CircularPad1d(2)(cr.tensor([[1, 2, 3]])).tolist()
    [[2, 3, 1, 2, 3, 1, 2]]
    """

    axes = 1


class CircularPad2d(_CircularPad):
    """The other end around an image: `padding` elements on every side, or (left, right, top, bottom).

    x (..., H, W); keeps what stands before. Raises ShapeError for a width above the extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.CircularPad2d((0, 1, 1, 0))(cr.tensor([[[1, 2], [3, 4]]])).tolist()
    [[[3, 4, 3], [1, 2, 1], [3, 4, 3]]]
    """

    axes = 2


class CircularPad3d(_CircularPad):
    """The other end around a volume.

    x (..., D, H, W); keeps what stands before. `padding` elements are added on every side, or (left, right, top,
    bottom, front, back). Raises ShapeError for a width above the extent.

    >>> import chainrule as cr
    >>> from chainrule import nn
    >>> nn.CircularPad3d((1, 2, 0, 0, 1, 1))(cr.ones((2, 3, 4, 5))).shape
    (2, 5, 4, 8)
    """

    axes = 3
