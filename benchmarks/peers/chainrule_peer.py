"""chainrule: a native epoch through `cr.fit`, and single calls of a compiled step."""

import time
from typing import Any

import chainrule as cr
from benchmarks.peers.chainrule_layers import sequential
from benchmarks.workloads import Workload
from chainrule import losses as loss_functions
from chainrule import nn, optim


def network(workload: Workload) -> nn.Module:
    """The network, at its first weights."""
    options = {"dtype": workload.dtype, "generator": cr.random.Generator(0)}
    model = sequential(workload.layers, workload.shape, options)
    names = {name.replace("inner.", ""): name for name, _ in model.named_parameters()}
    model.load_state_dict({names[name]: value for name, value in workload.weights.items()}, strict=False)
    return model


def objective(workload: Workload) -> Any:
    """The loss, a function (prediction, target)."""
    function = getattr(loss_functions, workload.loss)
    if not workload.stepwise:
        return function
    return lambda logits, target: function(logits.reshape((-1, logits.shape[-1])), target.reshape((-1,)))


def precision(workload: Workload, engine: str) -> dict[str, str]:
    """The argument, for the engine that can choose."""
    return {"precision": workload.precision} if engine == "native" else {}


def make_optimizer(workload: Workload) -> optim.Optimizer:
    """Adam, or SGD with all that the workload asks for."""
    lr, decay = workload.learning_rate, workload.weight_decay
    if workload.optimizer == "adam":
        made: Any = optim.Adam(lr=lr, weight_decay=decay)
    else:
        made = optim.SGD(lr=lr, momentum=0.9, weight_decay=decay)
    return optim.chain(optim.clip_by_global_norm(workload.clip_norm), made) if workload.clip_norm else made


class Epoch:
    """`cr.fit` on arrays of NumPy. Rows are shuffled and gathered anew in every epoch, as fit does it."""

    def __init__(self, workload: Workload, engine: str) -> None:
        self.workload, self.engine = workload, engine
        self.model, self.optimizer = network(workload), make_optimizer(workload)
        x, y = workload.data
        self.data = (x, None) if workload.unsupervised else (x, y)

    def run(self, passes: int) -> float:
        """The epochs after the first one, by the column `seconds` of the history: the first epoch compiles."""
        history = self.fit(1 + passes)
        return history[-1]["seconds"] - history[0]["seconds"]

    def fit(self, epochs: int, **options: Any) -> cr.train.History:
        """Train, and return the history. Nothing else is switched off that the peers do, too."""
        result = cr.fit(
            self.model, self.data, loss=objective(self.workload), optimizer=self.optimizer,
            epochs=epochs, batch_size=self.workload.batch, keep_best=False, engine=self.engine, progress="silent",
            **precision(self.workload, self.engine),
            **options,
        )  # fmt: skip
        return result.history


class Calls:
    """A loop of one's own around a compiled step."""

    def __init__(self, workload: Workload, engine: str) -> None:
        self.model, self.optimizer = network(workload), make_optimizer(workload)
        loss_of = objective(workload)

        def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
            loss, grads = cr.value_and_grad(lambda m: loss_of(m(x), y))(model)
            optimizer.update(model, grads)
            return loss

        self.step = cr.compile(step, engine=engine, **precision(workload, engine))
        x, y = workload.data
        size = workload.batch
        self.batches = []
        for i in range(0, workload.rows, size):
            part = cr.tensor(x[i : i + size])
            self.batches.append((part, part if workload.unsupervised else cr.tensor(y[i : i + size])))

    def run(self, passes: int) -> float:
        """The whole loop."""
        step, model, optimizer = self.step, self.model, self.optimizer
        start = time.perf_counter()
        for _ in range(passes):
            for x, y in self.batches:
                loss = step(model, optimizer, x, y)
        float(loss)  # whatever an engine may put off is done now
        return time.perf_counter() - start


class _Collect(cr.train.Callback):
    """Remembers the loss of each step, and ends the training after `steps`."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.losses: list[float] = []

    def on_step(self, training: Any, loss: float) -> None:
        """After each update."""
        self.losses.append(loss)
        if len(self.losses) == self.steps:
            training.stop("enough")


def contender(workload: Workload, mode: str, threads: int, engine: str) -> Epoch | Calls:
    """Ready to train. The number of threads comes from CHAINRULE_THREADS."""
    return Epoch(workload, engine) if mode == "epoch" else Calls(workload, engine)


def losses(workload: Workload, mode: str, threads: int, engine: str, steps: int) -> list[float]:
    """The losses of the first steps, on the batches in their order."""
    if mode == "epoch":
        collected = _Collect(steps)
        Epoch(workload, engine).fit(1, shuffle=False, callbacks=[collected])
        return collected.losses
    calls = Calls(workload, engine)
    return [float(calls.step(calls.model, calls.optimizer, x, y)) for x, y in calls.batches[:steps]]
