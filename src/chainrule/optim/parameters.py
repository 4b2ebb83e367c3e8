"""The trained tensors of a model by name, the gradients that belong to them, and new tensors in their place.

A model is a Module, a dict of tensors, or any nesting of these. Names are paths: '0.weight' in a Module,
'encoder.0.weight' in a dict with a Module at 'encoder'. They are the names under which `value_and_grad` returns
gradients.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_role, as_tensor, differentiable, stop_gradient
from chainrule.core.tensor import LEAVES, Tensor, is_leaf, wrap
from chainrule.errors import ConfigError, DTypeError, GradientError, ShapeError
from chainrule.optim.settings import close_to, listed
from chainrule.optim.transform import Tensors, Updates


def detached(x: Tensor) -> Tensor:
    """`x` without its history, so that no state and no parameter keeps that of earlier steps alive."""
    if x.value is not None:
        return wrap(x.value) if x.scopes or x.inputs else x
    return stop_gradient(x) if any(scope.open for scope in x.scopes) else x


class Parameters:
    """A look at the trained tensors of `model` as they are now."""

    def __init__(self, model: Any) -> None:
        if isinstance(model, Iterator):
            raise ConfigError(
                "An optimiser replaces tensors, which cannot be changed, so it needs to know where they stand: pass "
                "the model itself instead of model.parameters()."
            )
        self.flat = tree.flatten(model)
        self.indices = {leaf.path: i for i, leaf in enumerate(self.flat.leaves) if differentiable(leaf)}
        if not self.indices:
            frozen = sum(leaf.role == "frozen" for leaf in self.flat.leaves)
            what = f"{frozen} frozen parameters and no trained one" if frozen else "no trainable tensor"
            raise ConfigError(
                f"{type(model).__name__} has {what}. An optimiser takes a Module, or a dict of floating-point tensors."
            )

    @property
    def tensors(self) -> Tensors:
        """The trained tensors by name, without history."""
        return {name: detached(as_tensor(self.flat.leaves[i].value)) for name, i in self.indices.items()}

    def frozen(self) -> list[str]:
        """The names of parameters that are not trained at present."""
        return [leaf.path for leaf in self.flat.leaves if leaf.role == "frozen"]

    def gradients(self, grads: Any) -> Updates:
        """The gradients by name, given as value_and_grad returns them; errors for those that do not fit."""
        flat = tree.flatten(grads)
        given: dict[str, Any] = dict.fromkeys(_nones(flat.spec, ""))
        given.update({leaf.path: leaf.value for leaf in flat.leaves})
        unknown = [name for name, g in given.items() if name not in self.indices and g is not None]
        missing = [name for name in self.indices if name not in given]
        if unknown or missing:
            raise GradientError(self._mismatch(grads, unknown, missing))
        return {name: self._checked(name, given[name]) for name in self.indices}

    def _mismatch(self, grads: Any, unknown: list[str], missing: list[str]) -> str:
        parts = []
        if unknown:
            parts.append(f"no trained parameter is named {listed(unknown)}.{close_to(unknown[0], self.indices)}")
        if missing:
            parts.append(f"the gradient of {listed(missing)} is missing; where there is none, give None.")
        what = "" if isinstance(grads, Mapping) else f" of type {type(grads).__name__}"
        return (
            f"The gradients{what} do not fit the parameters: {' '.join(parts)} Expected is what "
            "`value, grads = cr.value_and_grad(loss)(model)` returns as grads for this model."
        )

    def _checked(self, name: str, g: Any) -> Tensor | None:
        if g is None:
            return None
        p = self.flat.leaves[self.indices[name]].value
        g = as_tensor(g)
        if g.shape != tuple(p.shape):
            raise ShapeError(f"The gradient of {name!r} has shape {g.shape}; the parameter has {tuple(p.shape)}.")
        if not dtypes.is_float(g.dtype):
            raise DTypeError(f"The gradient of {name!r} is {g.dtype.name}; gradients are floating-point tensors.")
        return detached(g)

    def left_by_backward(self) -> Updates:
        """The `.grad` of each parameter; GradientError when there is none at all."""
        leaves = [self.flat.leaves[i].value for i in self.indices.values()]
        grads = {n: getattr(x, "grad", None) for n, x in zip(self.indices, leaves, strict=True)}
        if all(g is None for g in grads.values()):
            raise GradientError(
                "step(): no parameter has a .grad. Call loss.backward() before, with a loss computed since the last "
                "step: each step makes new parameter tensors, and their .grad is None."
            )
        return self.gradients(grads)

    def forget_gradients(self) -> None:
        """Set the `.grad` of each parameter to None."""
        for i in self.indices.values():
            if isinstance(self.flat.leaves[i].value, Tensor):
                self.flat.leaves[i].value.grad = None

    def replaced(self, new: Tensors) -> Any:
        """The model with other tensors: Modules are changed in place, dicts, lists and tuples are made anew."""
        leaves = [leaf.value for leaf in self.flat.leaves]
        for name, x in new.items():
            leaves[self.indices[name]] = _in_place_of(self.flat.leaves[self.indices[name]], x)
        return tree.build(self.flat, leaves, in_place=True)


def _in_place_of(old: tree.Leaf, x: Tensor) -> Tensor:
    """`x`, ready for `loss.backward()` where the old tensor was."""
    if isinstance(old.value, Tensor) and old.role == "value" and is_leaf(old.value) and x.value is not None:
        x = wrap(x.value)
        x.scopes = frozenset([LEAVES])
        return x
    return as_role(x, old.role)


def _nones(spec: tree.Spec, path: str) -> Iterator[str]:
    """The paths at which None stands instead of a tensor."""
    if spec.kind == "static" and spec.token == (type(None), None):
        yield path
    for name, child in zip(spec.names, spec.children, strict=True):
        yield from _nones(child, tree.join(path, name))


def check_binding(model: Any, optimizer: str) -> None:
    """ConfigError for what an optimiser cannot be bound to, or what looks like something else."""
    if isinstance(model, (int, float)):
        raise ConfigError(
            f"The first argument of {optimizer} is the model, not the learning rate: {optimizer}(lr={model!r}), or "
            f"{optimizer}(model, lr={model!r})."
        )
    has_modules = isinstance(model, list) and any(isinstance(x, tree.Stateful) for x in model)
    if isinstance(model, (Tensor, np.ndarray, list, Iterator)) and not has_modules:
        raise ConfigError(
            f"{optimizer} got a {type(model).__name__}. Tensors cannot be changed, so an optimiser needs the object "
            f"that holds them: {optimizer}(model) instead of {optimizer}(model.parameters()), or a dict of tensors."
        )
    if isinstance(model, Mapping) and any(type(x) is not Tensor and isinstance(x, Tensor) for x in model.values()):
        raise ConfigError(
            f"{optimizer} got the Parameters of a Module in a dict; the Module would not see their new values. Pass "
            "the Module itself."
        )
