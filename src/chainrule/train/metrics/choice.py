"""From what users write (names, objects, functions) to metrics."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from chainrule.errors import ConfigError
from chainrule.train.metrics.base import Mean, Metric
from chainrule.train.metrics.classes import F1, Accuracy, ClassMetric, ConfusionMatrix, Precision, Recall
from chainrule.train.metrics.errors import MAE, MSE, R2, RMSE
from chainrule.train.metrics.scores import AUC, Perplexity, TopK

BY_NAME: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "auc": AUC,
    "confusion_matrix": ConfusionMatrix,
    "f1": F1,
    "mae": MAE,
    "mse": MSE,
    "perplexity": Perplexity,
    "precision": Precision,
    "r2": R2,
    "recall": Recall,
    "rmse": RMSE,
    "top5": TopK,
}


def as_metrics(metrics: Any, probabilities: bool = False) -> list[Metric]:
    """Fresh metrics for names, metrics and functions (prediction, target) -> number; one, or several of them.

    With `probabilities`, one score a row is a probability: metrics given by name decide at 0.5 instead of 0.
    Raises ConfigError for unknown and for equal names.

    >>> from chainrule.train.metrics.choice import as_metrics
    >>> as_metrics(["accuracy", "f1"])
    [Accuracy(name='accuracy'), F1(name='f1')]
    """
    several = isinstance(metrics, Iterable) and not isinstance(metrics, str)
    made = [_as_metric(m, probabilities) for m in (metrics if several else [metrics])]
    names = [m.name for m in made]
    for name in names:
        if names.count(name) > 1 or name in ("loss", "seconds", "epoch", "step", "learning_rate"):
            raise ConfigError(f"Two columns of the history would be called {name!r}. Give one a name: name='...'.")
    return made


def _as_metric(metric: Any, probabilities: bool) -> Metric:
    if isinstance(metric, Metric):
        return metric.fresh()
    if isinstance(metric, str):
        if metric not in BY_NAME:
            close = difflib.get_close_matches(metric, BY_NAME, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"There is no metric {metric!r}.{guess} There are: {', '.join(BY_NAME)}; or give an object "
                "of cr.metrics, or a function (prediction, target)."
            )
        made = BY_NAME[metric]()
        if probabilities and isinstance(made, ClassMetric):
            made.boundary = 0.5
        return made
    if callable(metric) and not isinstance(metric, type):
        return Mean(metric)
    raise ConfigError(
        f"{metric!r:.80} is no metric: give a name, an object of cr.metrics, or a function (prediction, "
        "target) -> number."
    )
