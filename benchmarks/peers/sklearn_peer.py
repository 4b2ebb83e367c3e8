"""scikit-learn's MLPClassifier and MLPRegressor: one `partial_fit` on all rows, which is one epoch of its own loop.

That is its fastest form; a call for each batch would check its arguments each time. It cannot do quite the same work:
two classes are one logistic output instead of two of softmax, and the output of a regressor is linear, without the
last sigmoid of the autoencoder: a little less in both cases. It starts from weights of its own.
"""

import time
from typing import Any

from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.layers import Activation
from benchmarks.workloads import Workload

ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}


class Epochs:
    """Data are arrays of NumPy; no shuffling, so that batches are views."""

    def __init__(self, workload: Workload) -> None:
        classes = workload.loss == "cross_entropy"
        inner = next(layer for layer in workload.layers if isinstance(layer, Activation))
        self.model = (MLPClassifier if classes else MLPRegressor)(
            hidden_layer_sizes=workload.widths[1:-1], activation=ACTIVATIONS[inner.kind], solver="adam",
            alpha=workload.weight_decay, batch_size=workload.batch, learning_rate_init=workload.learning_rate,
            shuffle=False, random_state=0,
        )  # fmt: skip
        x, y = workload.data
        self.x, self.y = x, y if classes or y.shape[1] > 1 else y[:, 0]
        self.options: dict[str, Any] = {"classes": list(range(workload.widths[-1]))} if classes else {}

    def run(self, passes: int) -> float:
        """So many epochs."""
        start = time.perf_counter()
        for _ in range(passes):
            self.model.partial_fit(self.x, self.y, **self.options)
        return time.perf_counter() - start


def contender(workload: Workload, mode: str, threads: int, engine: str = "") -> Epochs:
    """Ready to train. The number of threads comes from the variables of BLAS."""
    return Epochs(workload)


def losses(workload: Workload, mode: str, threads: int, engine: str, steps: int) -> list[float]:
    """Nothing: it has weights of its own."""
    return []
