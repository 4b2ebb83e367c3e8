"""`check-gradients`: backpropagation against numerical derivatives, on a batch of a run's own data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from chainrule import nn
from chainrule.cli import display
from chainrule.cli.checks import whole
from chainrule.cli.options import Json
from chainrule.cli.resume import MovedTo, RunPath
from chainrule.cli.session import Session
from chainrule.core.autodiff import value_and_grad
from chainrule.core.tensor import Tensor, tensor
from chainrule.errors import GradientError
from chainrule.random import Generator

if TYPE_CHECKING:
    from chainrule.data import Prepared

STEPS = (1e-4, 1e-5, 1e-6)
"""Differences are taken over these, and the best counts: a kink of ReLU within a step spoils it, but hardly all."""

TOLERANCE = 1e-6
"""Of the difference, relative to the derivative (float64)."""


@dataclass(frozen=True)
class Checked:
    """What was found for one parameter."""

    name: str
    shape: tuple[int, ...]
    elements: int
    largest: float  # derivative in the whole parameter
    difference: float  # the largest among the elements that were checked, relative
    worst: tuple[int, ...]
    backprop: float
    numerical: float

    @property
    def passed(self) -> bool:
        """Whether all checked elements agree."""
        return self.difference <= TOLERANCE


def check_gradients(
    run: RunPath,
    rows: Annotated[int, typer.Option("--rows", parser=whole(1), metavar="NUMBER", help="Rows of the batch.")] = 32,
    elements: Annotated[
        int,
        typer.Option(
            "--elements", parser=whole(1), metavar="NUMBER", help="Elements of each parameter, drawn at random."
        ),
    ] = 40,
    seed: Annotated[
        int, typer.Option("--seed", parser=whole(0), metavar="NUMBER", help="Which rows and elements are drawn.")
    ] = 0,
    source: MovedTo = None,
    json: Json = False,
) -> None:
    """Compare the gradients of backpropagation with numerical ones, parameter by parameter.

    The trained network, in float64 and without dropout, on training rows of the run; central differences of the loss.
    """
    session = Session.open(run)
    prepared = session.prepared(source)
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.permutation(len(prepared.x_train))[:rows])
    model, loss = exact(session.model()), loss_of(prepared, chosen, session.loss_function())
    value, gradients = value_and_grad(loss)(model)
    found = [check(model, loss, name, g.numpy(), elements, draw) for name, g in gradients.items()]
    if json:
        display.print_json([{**vars(one), "passed": one.passed} for one in found])
    else:
        display.say(f"loss {display.number(float(value))} on {len(chosen)} training rows, in float64")
        header = ("parameter", "shape", "checked", "largest ∂loss", "difference", "")
        display.table([line(one) for one in found], header, left=(0, 1))
    wrong = [one for one in found if not one.passed]
    if wrong:
        one = max(wrong, key=lambda checked: checked.difference)
        raise GradientError(
            f"The gradient of {one.name} at {list(one.worst)} is {one.backprop:.9g} by backpropagation, "
            f"{one.numerical:.9g} numerically."
        )


def exact(model: nn.Sequential) -> nn.Sequential:
    """The model in float64, as in training but without chance, so that its loss is a function of its weights alone."""
    model.to("float64").train()
    for module in model.modules():
        if any(isinstance(value, Generator) for value in vars(module).values()):  # dropout, augmentation
            module.eval()
    return model


def loss_of(prepared: "Prepared", rows: NDArray[Any], loss: Callable[..., Tensor]) -> Callable[[Any], Tensor]:
    """The loss of a model on some training rows."""
    y = prepared.y_train[rows]
    x, target = (
        tensor(prepared.x_train[rows].astype(np.float64)),
        tensor(y.astype(np.float64) if y.dtype.kind == "f" else y),
    )
    return lambda model: loss(model(x), target)


def check(
    model: nn.Sequential,
    loss: Callable[[Any], Tensor],
    name: str,
    gradient: NDArray[Any],
    elements: int,
    draw: np.random.Generator,
) -> Checked:
    """Compare some elements of the gradient of one parameter with central differences. The model stays as it is."""
    before = dict(model.named_parameters())[name]
    places = [tuple(map(int, np.unravel_index(i, gradient.shape))) for i in draw.permutation(gradient.size)[:elements]]
    worst, numbers, at = -1.0, (0.0, 0.0), places[0]

    def moved(place: tuple[int, ...], by: float) -> float:
        weights = before.numpy().copy()
        weights[place] += by
        model.assign({name: tensor(weights)})
        return float(loss(model))

    for place in places:
        ours = float(gradient[place])
        differences = []
        for step in STEPS:
            numerical = (moved(place, step) - moved(place, -step)) / (2 * step)
            differences.append((relative(ours, numerical), numerical))
            if differences[-1][0] <= TOLERANCE:
                break
        difference, numerical = min(differences)
        if difference > worst:
            worst, numbers, at = difference, (ours, numerical), place
    model.assign({name: before})
    largest = float(np.abs(gradient).max())
    return Checked(name, gradient.shape, len(places), largest, worst, at, *numbers)


def relative(a: float, b: float) -> float:
    """The difference of two derivatives relative to their size; that of tiny ones, made of rounding, counts less."""
    return abs(a - b) / max(abs(a), abs(b), 1e-3)


def line(one: Checked) -> list[str]:
    """A parameter as the cells of its line."""
    shape = " × ".join(map(str, one.shape))
    checked = f"{one.elements:,} of {int(np.prod(one.shape)):,}"
    return [one.name, shape, checked, f"{one.largest:.3g}", f"{one.difference:.1e}", "✓" if one.passed else "✗"]
