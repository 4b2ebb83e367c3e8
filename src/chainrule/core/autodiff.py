"""The chain rule on graphs. Differentiation adds nodes, nothing else: its result is made of tensors like any other.

`backward` is the whole of it. It walks the nodes between the outputs and the tensors asked for, the latest first, and
hands each node's gradient `dy` through that node's `vjp` rule to its inputs. Everything below it is a way of asking.

A derivative is taken inside a Scope. Its leaves are fresh tensors, so nested derivatives cannot be confused; the scope
is closed before `backward` runs, so the gradients keep a history only if somebody outside may differentiate them again.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from chainrule import dtypes, tree
from chainrule.core.primitive import Primitive, same_type
from chainrule.core.tensor import LEAVES, NONE, Scope, Tensor, apply, attach, context, full, is_leaf, tensor, wrap
from chainrule.errors import GradientError

ALIAS = Primitive("alias", "elementwise", lambda m, x: x, same_type, lambda dy, y, x: (dy,), "dx = dy")
STOP = Primitive("stop_gradient", "elementwise", lambda m, x: x, same_type, None, "dx = 0")


def stop_gradient(x: Tensor) -> Tensor:
    """The same value, but no gradient flows through it.

    >>> import chainrule as cr
    >>> float(cr.grad(lambda x: x * cr.stop_gradient(x))(cr.tensor(3.0)))
    3.0
    """
    if x.value is not None:
        return wrap(x.value)
    stopped = apply(STOP, x)
    stopped.scopes = NONE
    return stopped


# -- backward: the whole of it ----------------------------------------------------------------------------------------


def backward(outputs: Sequence[Tensor], cotangents: Sequence[Tensor], wrt: Sequence[Tensor]) -> list[Tensor | None]:
    """For each tensor of `wrt` the sum over outputs of cotangent · ∂output/∂tensor; None where no path leads."""
    wanted = {x.serial for x in wrt}
    grads: dict[int, Tensor] = {}
    for y, dy in zip(outputs, cotangents, strict=True):
        grads[y.serial] = grads[y.serial] + dy if y.serial in grads else dy
    between = nodes_between(outputs, wanted)
    leads = wanted.union(node.serial for node in between)
    for node in reversed(between):
        dy_node = grads.pop(node.serial, None)
        if dy_node is None or node.primitive.vjp is None:
            continue
        with backward_of(node):
            handed = node.primitive.vjp(dy_node, node, *node.inputs, **node.attributes)
            for k, (x, dx) in enumerate(zip(node.inputs, handed, strict=True)):
                if dx is None or x.serial not in leads:
                    continue
                dx = dx() if callable(dx) else dx
                if not isinstance(dx, Tensor) or dx.shape != x.shape or dx.dtype != x.dtype:
                    raise GradientError(f"The rule of {node.primitive.name} gave {dx!r} as the gradient of {x!r}.")
                grads[x.serial] = grads[x.serial] + dx if x.serial in grads else dx
                if context.witness is not None:
                    context.witness.flow(node, dy_node, k, dx, grads[x.serial])
    return [grads.get(x.serial) for x in wrt]


def nodes_between(outputs: Iterable[Tensor], wanted: set[int]) -> list[Tensor]:
    """The nodes on a path from the tensors `wanted` (by serial, excluded) to `outputs`, inputs first. Iterative."""
    oldest = min(wanted, default=0)
    found: dict[int, Tensor] = {}
    stack = [y for y in outputs if y.serial not in wanted]
    while stack:
        node = stack.pop()
        if node.serial in found or node.serial < oldest:
            continue
        found[node.serial] = node
        stack.extend(x for x in node.inputs if x.serial not in wanted)
    leads = set(wanted)
    path = []
    for serial in sorted(found):
        if any(x.serial in leads for x in found[serial].inputs):
            leads.add(serial)
            path.append(found[serial])
    return path


@contextmanager
def backward_of(node: Tensor) -> Iterator[None]:
    """Nodes made inside are noted as belonging to the backward part of `node`."""
    outer, context.of = context.of, node
    try:
        yield
    finally:
        context.of = outer


# -- asking: functions to derivatives ---------------------------------------------------------------------------------


def fresh_leaf(leaf: tree.Leaf, scope: Scope) -> Tensor:
    """A tensor of the same value on which derivatives within `scope` end. Weights of a Module are taken by value."""
    x = leaf.value if isinstance(leaf.value, Tensor) else tensor(leaf.value)
    outside = frozenset(s for s in x.scopes if s.open and not (s is LEAVES and leaf.role == "parameter"))
    inputs = (x,) if outside or x.value is None else ()
    result = Tensor(ALIAS, inputs, {}, x.shape, x.dtype, x.value, outside | {scope})
    result.location = x.location
    return result


def differentiable(leaf: tree.Leaf) -> bool:
    """Whether derivatives are taken by this leaf: floating point, and in a Module only a trained parameter."""
    return leaf.role in ("value", "parameter") and dtypes.is_float(np.dtype(leaf.value.dtype))


def settle(x: Any) -> Any:
    """A tensor whose history nobody can ask for any more lets go of it."""
    if isinstance(x, Tensor) and x.value is not None and x.inputs and not any(scope.open for scope in x.scopes):
        return wrap(x.value)
    return x


class Linearised:
    """`f` evaluated at `args` with the history kept: what grad, vjp and jacobian ask their derivatives of."""

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], argnums: tuple[int, ...]) -> None:
        if not all(isinstance(i, int) and -len(args) <= i < len(args) for i in argnums):
            raise GradientError(f"argnums={argnums} for a function called with {len(args)} positional arguments.")
        argnums = tuple([i % len(args) for i in argnums])
        names = [""] if len(argnums) == 1 else [str(i) for i in argnums]  # a single argument needs no name
        self.arguments = tree.flatten({name: number(args[i]) for name, i in zip(names, argnums, strict=True)})
        moving = self.arguments.objects or any(differentiable(leaf) for leaf in self.arguments.leaves)
        if len(set(argnums)) < len(argnums) or not moving:
            given = ", ".join(f"{args[i]!r:.80}" for i in argnums)
            raise GradientError(
                f"There is nothing to differentiate by in {given}. Expected are floating-point tensors, Modules with "
                "parameters, or trees of them, each once."
            )
        scope = Scope()
        leaves = [fresh_leaf(x, scope) if differentiable(x) else x.value for x in self.arguments.leaves]
        self.wrt = [x if differentiable(leaf) else None for x, leaf in zip(leaves, self.arguments.leaves, strict=True)]
        copies = tree.build(self.arguments, leaves)
        replaced = dict(zip(argnums, copies.values(), strict=True))
        try:
            self.result = f(*[replaced.get(i, x) for i, x in enumerate(args)])
        finally:
            scope.open = False
        write_back(self.arguments, leaves, copies)

    def pull(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradient of each leaf of the arguments; None for those that are not differentiated."""
        given = [x for x in self.wrt if x is not None]
        grads = iter(zip(given, backward(outputs, cotangents, given), strict=True))
        result: list[Tensor | None] = []
        for x in self.wrt:
            g = None if x is None else next(grads)[1]
            result.append(full(x.shape, 0, x.dtype) if g is None and x is not None else settle(g))
        return result

    def in_arguments(self, values: Sequence[Any]) -> list[Any]:
        """Values for the leaves, in the structure of the arguments; for a Module a dict {parameter name: value}."""
        return tree.collect(self.arguments, values, differentiable)


def write_back(original: tree.Flat, leaves: Sequence[Any], copies: Any) -> None:
    """Give the Stateful originals the tensors that a run on their copies replaced (batch statistics, say)."""
    if not original.objects:
        return
    after = tree.flatten(copies)
    if after.spec != original.spec:
        raise GradientError(
            f"{tree.difference(original.spec, after.spec)} while the function ran. In a Module only tensors change, "
            "and they stay where they are: count in a buffer (register_buffer), return activations with has_aux=True."
        )
    new = [
        before.value if now.value is put else as_role(settle(now.value), now.role)
        for before, put, now in zip(original.leaves, leaves, after.leaves, strict=True)
    ]
    tree.build(original, new, in_place=True)


def as_role(x: Tensor, role: tree.Role) -> Tensor:
    """A trained parameter with a known value is a leaf that `loss.backward()` reaches."""
    if role != "parameter" or x.value is None or x.scopes:
        return x
    leaf = wrap(x.value)
    leaf.scopes = frozenset([LEAVES])
    return leaf


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(f(*args), gradient)`, the gradient by the arguments `argnums`.

    `f` returns a floating-point tensor with one element, or with `has_aux` a pair of it and anything else. Arguments
    are tensors, Modules, or nested dicts, lists, tuples and dataclasses of them. The gradient has the structure of the
    argument, for a Module it is a dict {parameter name: gradient}; leaves that have no gradient (integers, frozen
    parameters) get None. `argnums` in a sequence gives a tuple of gradients. Keyword arguments are handed on.
    Raises GradientError when the result is not one floating-point number, or no argument has a gradient.
    Source: Griewank and Walther, Evaluating Derivatives (2008), section 3.2, reverse mode.

    >>> import chainrule as cr
    >>> value, gradient = cr.value_and_grad(lambda x: x * x)(cr.tensor(3.0))
    >>> float(value), float(gradient)
    (9.0, 6.0)
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        at = Linearised(functools.partial(f, **kwargs) if kwargs else f, args, numbers)
        if has_aux and not (isinstance(at.result, (tuple, list)) and len(at.result) == 2):
            raise GradientError(
                f"With has_aux=True the function returns (number, aux); it returned {at.result!r:.200}."
            )
        value, aux = at.result if has_aux else (at.result, None)
        if not isinstance(value, Tensor) or value.size != 1 or not dtypes.is_float(value.dtype):
            raise GradientError(
                f"A gradient is that of one floating-point number; the function returned {value!r:.200}. "
                "Reduce more numbers to one (cr.sum, cr.mean); keep it a tensor (no float(), .item(), .numpy())."
            )
        grads = at.in_arguments(at.pull([value], [full(value.shape, 1, value.dtype)]))
        settled = map_tensors(settle, (value, aux) if has_aux else value)
        return settled, grads[0] if isinstance(argnums, int) else tuple(grads)

    return wrapped


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of `f`; with `has_aux` the pair (gradient, aux). See value_and_grad.

    >>> import chainrule as cr
    >>> float(cr.grad(cr.grad(lambda x: x**3))(cr.tensor(2.0)))
    12.0
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


def vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """`f(*args)` and a function that takes the gradient of the result to the gradients of all arguments.

    The result may be a tensor or a tree of tensors; its gradient has the same structure. It may be asked repeatedly.

    >>> import chainrule as cr
    >>> y, pull = cr.vjp(lambda a, b: a * b, cr.tensor(2.0), cr.tensor(5.0))
    >>> [float(g) for g in pull(cr.tensor(1.0))]
    [5.0, 2.0]
    """
    at = Linearised(f, args, tuple(range(len(args))))
    results = tree.flatten(at.result)
    outputs = [leaf.value for leaf in results.leaves]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        given = tree.flatten(number(cotangent))
        if given.spec != results.spec or any(
            tuple(g.value.shape) != y.shape for g, y in zip(given.leaves, outputs, strict=True)
        ):
            raise GradientError("The gradient of the result must have the structure and shapes of the result.")
        seeds = [as_tensor(g.value) for g in given.leaves]
        pairs = [(y, dy.astype(y.dtype)) for y, dy in zip(outputs, seeds, strict=True) if dtypes.is_float(y.dtype)]
        return tuple(at.in_arguments(at.pull([y for y, _ in pairs], [dy for _, dy in pairs])))

    return map_tensors(settle, at.result), pull


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """`f(*primals)` and its directional derivative along `tangents` (structured as the primals).

    Made of reverse mode alone: the pull-back is linear in its argument, and the pull-back of the pull-back is the push
    forward. Source: Townsend, "A new trick for calculating Jacobian vector products" (2017).

    >>> import chainrule as cr
    >>> y, dy = cr.jvp(cr.sin, (cr.tensor(0.0),), (cr.tensor(2.0),))
    >>> float(dy)
    2.0
    """
    scope = Scope()
    at = Linearised(f, tuple(primals), tuple(range(len(primals))))
    results = tree.flatten(at.result)
    outputs = [leaf.value for leaf in results.leaves if dtypes.is_float(leaf.value.dtype)]
    seeds = [fresh_leaf(tree.Leaf("", full(y.shape, 0, y.dtype), "value"), scope) for y in outputs]
    pulled = at.pull(outputs, seeds)
    scope.open = False
    given = tree.flatten(dict(zip(at.arguments.spec.names, map(number, tangents), strict=False)))
    if given.spec != at.arguments.spec or any(
        tuple(t.value.shape) != tuple(x.value.shape) for t, x in zip(given.leaves, at.arguments.leaves, strict=True)
    ):
        raise GradientError("The tangents must have the structure and shapes of the primals.")
    pairs = [(g, as_tensor(t.value)) for g, t in zip(pulled, given.leaves, strict=True) if g is not None]
    pushed = iter(backward([g for g, _ in pairs], [t.astype(g.dtype) for g, t in pairs], seeds))
    values = []
    for leaf in results.leaves:
        dy = next(pushed) if dtypes.is_float(leaf.value.dtype) else None
        values.append(full(leaf.value.shape, 0, leaf.value.dtype) if dy is None else settle(dy))
    return map_tensors(settle, at.result), tree.build(results, values)


def number(x: Any) -> Any:
    """A Python or NumPy real number as a tensor; anything else as it is."""
    return tensor(x) if isinstance(x, (float, np.floating)) else x


def as_tensor(x: Any) -> Tensor:
    """A tensor as it is; anything else by `tensor`."""
    return x if isinstance(x, Tensor) else tensor(x)


def map_tensors(f: Callable[[Any], Any], values: Any) -> Any:
    """The same structure with `f` of each leaf."""
    flat = tree.flatten(values)
    return tree.build(flat, [f(leaf.value) for leaf in flat.leaves])


def pull_back_to_leaves(loss: Tensor, gradient: Any = None) -> None:
    """`loss.backward()`: add the gradient to `.grad` of every leaf made with requires_grad=True.

    A thin shell over `backward` for those used to PyTorch; gradients as return values (`grad`) are the real form.
    Raises GradientError when the tensor does not depend on such a leaf, or is not one number and no gradient is given.

    >>> import chainrule as cr
    >>> w = cr.tensor(3.0, requires_grad=True)
    >>> (w * w).backward()
    >>> float(w.grad)
    6.0
    """
    if loss.value is None:
        raise GradientError(
            "backward() leaves gradients in .grad, which a traced function cannot do. Inside of cr.compile write "
            "loss, grads = cr.value_and_grad(f)(model)."
        )
    if not loss.requires_grad:
        raise GradientError(
            "backward(): this tensor does not depend on any made with requires_grad=True, or came out of a compiled "
            "function, which keeps no history: take gradients inside of it, with cr.value_and_grad."
        )
    if gradient is None and loss.size != 1:
        raise GradientError(f"backward() of a tensor of shape {loss.shape} needs its gradient: y.backward(dy).")
    leaves, seen, stack = [], set(), [loss]
    while stack:
        node = stack.pop()
        if node.serial not in seen and LEAVES in node.scopes:
            seen.add(node.serial)
            stack.extend(node.inputs)
            if is_leaf(node):
                leaves.append(node)
    dy = full(loss.shape, 1, loss.dtype) if gradient is None else as_tensor(gradient).astype(loss.dtype)
    for leaf, dx in zip(leaves, backward([loss], [dy], leaves), strict=True):
        if dx is not None:
            dx = stop_gradient(dx)
            leaf.grad = dx if leaf.grad is None else leaf.grad + dx


attach({"backward": pull_back_to_leaves})
