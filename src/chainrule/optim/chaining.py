"""Chains of transforms and optimisers."""

from dataclasses import dataclass
from typing import Any

from chainrule.errors import ConfigError
from chainrule.optim.optimizer import Optimizer
from chainrule.optim.transform import Transform, sequence
from chainrule.optim.transforms import scale


@dataclass(frozen=True)
class Around:
    """What stands before and after an optimiser in a chain."""

    before: tuple[Transform, ...]
    after: tuple[Transform, ...]

    def __call__(self, inner: Transform) -> Transform:
        """The whole chain as one Transform."""
        return sequence(*self.before, inner, *self.after)

    def describe(self, inner: str) -> str:
        """How it is printed around the text of an optimiser."""
        return f"chain({', '.join([*map(repr, self.before), inner, *map(repr, self.after)])})"


RESERVED = ("step", "inner", "lr")  # what the state of an Optimizer calls its own parts


def _check_names(parts: tuple[Any, ...]) -> None:
    for part in parts:
        if isinstance(part, Transform) and part.name in RESERVED:
            raise ConfigError(
                f"A transform cannot be named {part.name!r}, which an optimiser's state uses; name it otherwise."
            )


def chain(*parts: Any) -> Any:
    """Apply `parts` one after the other, each to what the one before has made of the gradients.

    Transforms give a Transform. With one optimiser among them, which stands for its rule and learning rate, the result
    is an optimiser, without state yet (bound like the one given); what stands after it sees its updates. A Transform is
    made an optimiser by `Composed`. Raises ConfigError for two optimisers, and for anything else.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.chain(optim.clip_by_value(1.0), optim.SGD(lr=0.5))
    >>> optimizer.update({"w": cr.tensor([1.0])}, {"w": cr.tensor([8.0])})["w"].tolist()
    [0.5]
    """
    _check_names(parts)
    places = [i for i, part in enumerate(parts) if isinstance(part, Optimizer)]
    if not places:
        return sequence(*parts)
    if len(places) > 1:
        raise ConfigError(
            f"A chain holds one optimiser; here are {len(places)}. Chain the scale_by_... transforms instead."
        )
    before, after = tuple(parts[: places[0]]), tuple(parts[places[0] + 1 :])
    sequence(*before, *after)  # says so now if one of them is no transform
    return parts[places[0]].wrapped(Around(before, after))


class Composed(Optimizer):
    """An optimiser made of a Transform, whose updates are added to the parameters as they are (times lr, which is 1).

    Put the learning rate into the chain with `scale_by_learning_rate`, which also turns uphill into downhill.

    >>> import chainrule as cr
    >>> from chainrule import optim
    >>> optimizer = optim.Composed(optim.chain(optim.scale_by_adam(), optim.scale_by_learning_rate(0.5)))
    >>> optimizer.update({"w": cr.tensor([2.0])}, {"w": cr.tensor([-0.1])})["w"].tolist()
    [2.5]
    """

    def __init__(self, transform: Transform, params: Any = None, lr: Any = 1.0) -> None:
        if not isinstance(transform, Transform):
            raise ConfigError(f"Composed takes a transform, such as optim.chain(...); got {transform!r:.80}.")
        _check_names((transform,))
        super().__init__(params, lr, None, transform=transform)

    def rule(self, transform: Transform) -> Transform:  # type: ignore[override]
        """The transform, negated, since the learning rate will negate it again."""
        return sequence(transform, scale(-1.0))
