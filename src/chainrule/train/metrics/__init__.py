"""Metrics: numbers that say how good predictions are. They take batches one after the other, and are exact.

A metric counts, or adds up row by row in float64; so its value does not depend, not even in its last bit, on how the
rows were cut into batches. Predictions are what a model returns. For classes these are scores (logits, probabilities or
their logarithms) of shape (rows, classes, ...) with integer targets (rows, ...), as `cross_entropy` takes them, or
targets of the same shape (one-hot, probabilities). For two classes they may be one score a row, of shape (rows,) or
(rows, 1).

>>> import chainrule as cr
>>> accuracy = cr.metrics.Accuracy()
>>> accuracy([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], [0, 1, 1])
0.666666...
"""

from chainrule.train.metrics.base import Mean, Metric
from chainrule.train.metrics.choice import BY_NAME
from chainrule.train.metrics.classes import F1, Accuracy, ConfusionMatrix, Precision, Recall
from chainrule.train.metrics.detection import MeanAveragePrecision
from chainrule.train.metrics.errors import MAE, MSE, R2, RMSE
from chainrule.train.metrics.scores import AUC, Perplexity, TopK

__all__ = [
    "AUC",
    "BY_NAME",
    "F1",
    "MAE",
    "MSE",
    "R2",
    "RMSE",
    "Accuracy",
    "ConfusionMatrix",
    "Mean",
    "MeanAveragePrecision",
    "Metric",
    "Perplexity",
    "Precision",
    "Recall",
    "TopK",
]
