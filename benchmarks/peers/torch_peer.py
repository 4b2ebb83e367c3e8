"""PyTorch on the CPU: the usual loop, with Adam as it comes ('eager') or with its fused form ('fused').

For larger networks, fused Adam and: images with channels last, the network compiled, both. 'sparse': embeddings with
sparse gradients and SparseAdam, which moves only the rows of a table that took part in the step; that is less work and
another training, the same up to the second loss.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers import torch_layers
from benchmarks.workloads import Workload

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def network(workload: Workload, sparse: bool = False) -> torch.nn.Sequential:
    """The network, at its first weights."""
    model = torch_layers.sequential(workload.layers, workload.shape, sparse).to(getattr(torch, workload.dtype))
    named = {name.replace("inner.", ""): parameter for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, value in workload.weights.items():
            named[name].copy_(torch.from_numpy(value))
    return model


def optimizers(workload: Workload, model: torch.nn.Module, fused: bool, sparse: bool) -> list[torch.optim.Optimizer]:
    """One, or one more for the tables with sparse gradients."""
    tables = {m.weight for m in model.modules() if sparse and isinstance(m, torch.nn.Embedding)}
    rest = [parameter for parameter in model.parameters() if parameter not in tables]
    options: dict[str, Any] = {
        "lr": workload.learning_rate,
        "weight_decay": workload.weight_decay,
        "fused": fused or None,
    }
    if workload.optimizer == "adam":
        made: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, **options)]
    else:
        made = [torch.optim.SGD(rest, momentum=0.9, **options)]
    return made + ([torch.optim.SparseAdam(list(tables), lr=workload.learning_rate)] if tables else [])


class Loop:
    """Batches are tensors already, cut before the clock runs."""

    def __init__(self, workload: Workload, mode: str) -> None:
        channels_last, compiled, sparse = (word in mode for word in ("channels last", "compiled", "sparse"))
        self.model = network(workload, sparse)
        x, y = (torch.from_numpy(array) for array in workload.data)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
            y = x if workload.unsupervised else y
        self.parameters = list(self.model.parameters())
        self.clip_norm = workload.clip_norm
        self.optimizers = optimizers(workload, self.model, mode != "eager", sparse)
        objective = self._objective(workload)
        self.objective = torch.compile(objective) if compiled else objective
        self.batches = list(zip(x.split(workload.batch), y.split(workload.batch), strict=True))

    def _objective(self, workload: Workload) -> Step:
        model = self.model
        loss = getattr(torch.nn.functional, {"mse": "mse_loss"}.get(workload.loss, workload.loss))
        if workload.stepwise:
            return lambda x, y: loss(model(x).flatten(0, 1), y.flatten())
        return lambda x, y: loss(model(x), y)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One update; the loss before it."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.objective(x, y)
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
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
    return Loop(workload, mode)


def losses(workload: Workload, mode: str, threads: int, engine: str, steps: int) -> list[float]:
    """The losses of the first steps, on the batches in their order."""
    loop = contender(workload, mode, threads)
    return [loop.step(x, y).item() for x, y in loop.batches[:steps]]
