"""Parameter: what marks a tensor attribute of a Module as one to be trained."""

from typing import Any

from chainrule import dtypes
from chainrule.core.tensor import LEAVES, NONE, VALUE, Tensor, tensor
from chainrule.errors import ConfigError, DTypeError


class Parameter(Tensor):
    """A tensor that becomes a parameter of the Module to which it is assigned as an attribute.

    A leaf of its own, whatever `data` was made of. After an update the attribute holds another tensor, and is a
    parameter still. Raises DTypeError for integers that are to be trained.

    >>> from chainrule import nn
    >>> nn.Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        x = data if isinstance(data, Tensor) else tensor(data)
        if requires_grad and not dtypes.is_float(x.dtype):
            raise DTypeError(f"Only floating-point parameters can be trained; this one is {x.dtype.name}.")
        scopes = frozenset([LEAVES]) if requires_grad else NONE
        super().__init__(VALUE, (), {}, x.shape, x.dtype, x.known("nn.Parameter"), scopes)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Parameter":
        return Parameter(self.numpy(), self.requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> None:
        """Not to be had: whether a parameter is trained is the module's to say, since tensors are replaced."""
        raise ConfigError(
            f"Freeze through the module that holds the parameter: module.requires_grad_({requires_grad}), or "
            f"module.name = nn.Parameter(module.name, requires_grad={requires_grad})."
        )


def in_derivative(x: Any) -> bool:
    """Whether `x` is being traced or differentiated, so that somebody still needs its history."""
    return isinstance(x, Tensor) and (x.value is None or any(s.open and s is not LEAVES for s in x.scopes))


def contains_parameters(value: Any) -> bool:
    """Whether `value` is a plain container with a Parameter directly inside."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    return any(isinstance(x, Parameter) for x in value)
