"""PyTorch on the CPU: the usual loop, with Adam as it comes ('eager') and with its fused form."""

import time
from typing import Any

import torch

from benchmarks.workloads import Workload

LAYERS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}


def network(workload: Workload) -> torch.nn.Sequential:
    """The network, at its first weights."""
    dtype = getattr(torch, workload.dtype)
    layers: list[torch.nn.Module] = []
    for kind, a, b in workload.layers:
        if kind == "linear":
            layers.append(torch.nn.Linear(int(a), int(b), dtype=dtype))
        elif kind == "batch_norm":
            layers.append(torch.nn.BatchNorm1d(int(a), dtype=dtype))
        else:
            layers.append(torch.nn.Dropout(a) if kind == "dropout" else LAYERS[kind]())
    model = torch.nn.Sequential(*layers)
    model.load_state_dict({name: torch.tensor(value) for name, value in workload.weights.items()}, strict=False)
    return model


class Loop:
    """Batches are tensors already, cut before the clock runs."""

    def __init__(self, workload: Workload, fused: bool) -> None:
        self.model = network(workload)
        self.clip_norm = workload.clip_norm
        options: dict[str, Any] = {
            "lr": workload.learning_rate,
            "weight_decay": workload.weight_decay,
            "fused": fused or None,
        }
        if workload.optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.model.parameters(), **options)
        else:
            self.optimizer = torch.optim.SGD(self.model.parameters(), momentum=0.9, **options)
        self.objective = getattr(torch.nn.functional, {"mse": "mse_loss"}.get(workload.loss, workload.loss))
        x, y = (torch.from_numpy(array) for array in workload.data)
        self.batches = list(zip(x.split(workload.batch), y.split(workload.batch), strict=True))

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One update; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.objective(self.model(x), y)
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return loss

    def run(self, passes: int) -> float:
        """The whole loop."""
        start = time.perf_counter()
        for _ in range(passes):
            for x, y in self.batches:
                self.step(x, y)
        return time.perf_counter() - start


def contender(workload: Workload, mode: str, threads: int, engine: str = "") -> Loop:
    """Ready to train. Denormal numbers are flushed to zero, as chainrule and XLA do: they slow down small networks."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return Loop(workload, mode == "fused")


def losses(workload: Workload, mode: str, threads: int, engine: str, steps: int) -> list[float]:
    """The losses of the first steps, on the batches in their order."""
    loop = contender(workload, mode, threads)
    return [loop.step(x, y).item() for x, y in loop.batches[:steps]]
