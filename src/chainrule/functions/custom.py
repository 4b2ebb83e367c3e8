"""Rules of one's own: `custom_vjp` gives a function its derivative, `checkpoint` recomputes instead of storing."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from chainrule import dtypes, tree
from chainrule.core.autodiff import as_tensor, backward, fresh_leaf, stop_gradient
from chainrule.core.primitive import Primitive, same_type
from chainrule.core.tensor import Scope, Tensor, apply, serials
from chainrule.errors import GradientError

AFTER = Primitive(  # x, but not before `token` is known: keeps a recomputation from being merged with the original
    "after", "elementwise", lambda m, x, token: x, same_type, lambda dy, y, x, token: (dy, None), "dx = dy"
)
CUSTOM = Primitive(  # the first input, with a derivative rule of its own for the others
    "custom",
    "elementwise",
    lambda m, x, *inputs, vjp: x,
    same_type,
    lambda dy, y, x, *inputs, vjp: (None, *_one_for_each(vjp(dy, y, *inputs), inputs)),
)


def _one_for_each(gradients: Any, inputs: tuple[Tensor, ...]) -> Any:
    """What a rule returned, if it fits its arguments."""
    if not isinstance(gradients, (tuple, list)) or len(gradients) != len(inputs):
        raise GradientError(
            f"A rule returns a tuple with a gradient, or None, for each of its {len(inputs)} arguments; this one "
            f"returned {gradients!r:.200}."
        )
    return gradients


def custom_vjp(f: Callable[..., Any], rule: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """`f` with the derivative `rule(dy, y, *args)`, which returns a gradient (or None) for each argument.

    Arguments and result are tensors. The rule is written in tensors, so it can be differentiated again.
    Raises GradientError when `f` closes over a tensor that is being differentiated: it must be an argument.

    >>> import chainrule as cr
    >>> clipped = cr.custom_vjp(lambda x: x, lambda dy, y, x: (cr.clip(dy, -1, 1),))
    >>> float(cr.grad(lambda x: 5 * clipped(x))(cr.tensor(2.0)))
    1.0
    """

    @functools.wraps(f)
    def wrapped(*args: Any) -> Tensor:
        inputs = [as_tensor(x) for x in args]
        y = f(*[stop_gradient(x) for x in inputs])
        if not isinstance(y, Tensor):
            raise GradientError(f"A function with a rule of its own returns one tensor; this one returned {y!r:.100}.")
        if any(scope.open for scope in y.scopes):
            raise GradientError("custom_vjp: the function closes over a tensor that is being differentiated. Pass it.")
        return apply(CUSTOM, y, *inputs, vjp=rule)

    return wrapped


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, whose intermediate values are not kept for the backward pass but computed again there.

    Trades time for memory. The recomputation repeats the same nodes (same random numbers), and does not call `f`.
    Source: Chen et al., "Training deep nets with sublinear memory cost" (2016).

    >>> import chainrule as cr
    >>> float(cr.grad(cr.checkpoint(lambda x: cr.sin(cr.sin(x))))(cr.tensor(0.0)))
    1.0
    """

    @functools.wraps(f)
    def wrapped(*args: Any) -> Any:
        start = next(serials)
        results = tree.flatten(f(*args))
        values = [leaf.value for leaf in results.leaves]
        recipe = Recipe.of([y for y in values if isinstance(y, Tensor)], start)
        if not recipe.steps:
            return tree.build(results, values)
        made = [
            apply(CUSTOM, stop_gradient(y), *recipe.inputs, vjp=functools.partial(recipe.rule, y.serial))
            if isinstance(y, Tensor) and y.serial in recipe.steps and dtypes.is_float(y.dtype)
            else y
            for y in values
        ]
        return tree.build(results, made)

    return wrapped


class Recipe:
    """How some tensors were made of older ones, without the values in between."""

    def __init__(
        self, inputs: list[Tensor], steps: dict[int, tuple[Primitive, tuple[Any, ...], dict[str, Any]]]
    ) -> None:
        self.inputs, self.steps = inputs, steps

    @classmethod
    def of(cls, outputs: Sequence[Tensor], start: int) -> "Recipe":
        """Take down the nodes below `outputs` that are younger than `start`."""
        found: dict[int, Tensor] = {}
        older: dict[int, Tensor] = {}
        stack = list(outputs)
        while stack:
            node = stack.pop()
            if node.serial < start or not node.inputs:
                if node.scopes or node.value is None:
                    older[node.serial] = node
            elif node.serial not in found:
                found[node.serial] = node
                stack.extend(node.inputs)
        steps = {
            serial: (
                found[serial].primitive,
                tuple(x.serial if x.serial in found or x.serial in older else x for x in found[serial].inputs),
                found[serial].attributes,
            )
            for serial in sorted(found)
        }
        return cls([older[serial] for serial in sorted(older)], steps)

    def rule(self, wanted: int, dy: Tensor, y: Tensor, *inputs: Tensor) -> list[Tensor | None]:
        """The vjp: repeat the steps on fresh leaves, then go backward through them."""
        scope = Scope()
        leaves = [fresh_leaf(tree.Leaf("", apply(AFTER, x, dy), "value"), scope) for x in inputs]
        made: dict[int, Tensor] = dict(zip((x.serial for x in self.inputs), leaves, strict=True))
        for serial, (primitive, refs, attributes) in self.steps.items():
            if serial > wanted:
                break
            made[serial] = apply(primitive, *[made[x] if isinstance(x, int) else x for x in refs], **attributes)
        scope.open = False
        floats = [x for x in leaves if dtypes.is_float(x.dtype)]
        grads = dict(zip((x.serial for x in floats), backward([made[wanted]], [dy], floats), strict=True))
        return [grads.get(x.serial) for x in leaves]
