"""What a trained network is worth: its answers to rows, the numbers that sum them up, the tables that show these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chainrule import nn
from chainrule.cli import display
from chainrule.compile import compile
from chainrule.core.tensor import Tensor, tensor
from chainrule.engines import DEFAULT_ENGINE
from chainrule.train.metrics import AUC, F1, MAE, R2, RMSE, Accuracy, ConfusionMatrix

if TYPE_CHECKING:
    from chainrule.data import Preparation

ROWS_AT_ONCE = 4096
IMAGES_AT_ONCE = 100
TITLES = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "accuracy": "accuracy", "loss": "loss", "f1": "F1", "auc": "AUC"}
SHARES = ("accuracy",)


def answering(model: nn.Module, engine: str = DEFAULT_ENGINE) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """What the network returns in evaluation mode, as a function: (rows, ...) -> (rows, outputs).

    Networks for images are compiled for the engine. Those for tables are done before that would pay.
    """
    model.eval()
    compiled = compile(forward, engine=engine)

    def answer(x: NDArray[Any]) -> NDArray[np.float32]:
        images = x.ndim > 2
        run, size = (compiled, IMAGES_AT_ONCE) if images else (forward, ROWS_AT_ONCE)
        parts = []
        for begin in range(0, len(x), size):
            rows = x[begin : begin + size]
            some = np.resize(rows, (size, *rows.shape[1:])) if images else rows  # one shape, so that it compiles once
            parts.append(np.asarray(run(model, tensor(some)))[: len(rows)])
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    return answer


def answers(model: nn.Module, x: NDArray[Any], engine: str = DEFAULT_ENGINE) -> NDArray[np.float32]:
    """The same for one set of rows."""
    return answering(model, engine)(x)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    """What is compiled."""
    result: Tensor = model(x)
    return result


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """How probable each class is, by softmax of the scores: (rows, classes) -> (rows, classes)."""
    wide = scores.astype(np.float64)
    raised = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Part:
    """One part of the data with the answers to it. `truth` and `answers` are as the network has them."""

    name: str
    truth: NDArray[Any]
    answers: NDArray[np.float32]

    def scores(self, preparation: "Preparation", loss: Callable[..., Any]) -> dict[str, float]:
        """The numbers of the table; those of a regression are in the units of the target."""
        own_loss = float(loss(tensor(self.answers), tensor(self.truth)))
        if preparation.task == "regression":
            given, true = self.amounts(preparation)
            return {"rmse": RMSE()(given, true), "mae": MAE()(given, true), "r2": R2()(given, true), "loss": own_loss}
        found = {
            "accuracy": Accuracy()(self.answers, self.truth),
            "loss": own_loss,
            "f1": F1()(self.answers, self.truth),
        }
        if preparation.task == "binary":
            found["auc"] = AUC()(self.answers, self.truth)
        return found

    def amounts(self, preparation: "Preparation") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The answers and the truth in the units of the target."""
        return preparation.decode_prediction(self.answers), preparation.decode_prediction(self.truth)


def confusion_of(part: Part) -> NDArray[np.int64]:
    """How often each class (row) was taken for each other (column)."""
    return np.asarray(ConfusionMatrix()(part.answers, part.truth))


def scored(scores: Mapping[str, float]) -> str:
    """The numbers in one line: `accuracy 97.2 %, loss 0.0915`."""
    return ", ".join(f"{TITLES[name]} {cell(name, value)}" for name, value in scores.items())


def cell(name: str, value: float) -> str:
    """One number as text."""
    return display.share(value) if name in SHARES else display.number(value)


def show(parts: Sequence[Part], scores: Mapping[str, Mapping[str, float]], preparation: "Preparation") -> None:
    """The table of all parts, and for the last one what went wrong where."""
    names = list(next(iter(scores.values())))
    rows = [[part.name, *(cell(name, scores[part.name][name]) for name in names)] for part in parts]
    display.table(rows, ["", *(TITLES[name] for name in names)])
    last = parts[-1]
    if preparation.task == "regression":
        given, true = last.amounts(preparation)
        display.residuals(true, given, last.name)
    else:
        display.confusion(confusion_of(last), preparation.class_names, last.name)
