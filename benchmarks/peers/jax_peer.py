"""JAX on the CPU: a step under `jit` that gives its buffers away, called in a loop; Adam written out in jnp.

'jit' leaves the running ahead of Python on, 'jit, inline' computes in the calling thread, which suits short steps
better. 'jit, unrolled' makes several steps of a recurrent network in one turn of its loop. 'scan' is a whole epoch as
one compiled loop; it is shown, but it is no loop of steps in Python.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.layers import Dropout
from benchmarks.peers.jax_layers import Pass, first_weights
from benchmarks.workloads import Workload

Tree = Any
BETA1, BETA2, EPSILON, MOMENTUM = 0.9, 0.999, 1e-8, 0.9
UNROLLED = 8


def first_state(workload: Workload) -> Tree:
    """Weights, the state of the optimiser, running statistics, the step count, a random key."""
    dtype = jnp.dtype(workload.dtype)
    params, statistics = first_weights(workload.layers, workload.shape, workload.weights, dtype)
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2 if workload.optimizer == "adam" else 1)]
    return params, moments, statistics, jnp.zeros((), dtype), jax.random.key(0)


def objective(workload: Workload, unroll: int, params: Tree, statistics: Tree, x: Any, y: Any, key: Any) -> Any:
    """The loss, and the new running statistics."""
    forward = Pass(params, dict(statistics), key, unroll)
    output = forward.sequential(workload.layers, "", x)
    if workload.loss == "mse":
        return jnp.mean((output - y) ** 2), forward.statistics
    chosen = jnp.take_along_axis(jax.nn.log_softmax(output), y[..., None], axis=-1)
    return -chosen.mean(), forward.statistics


def updated(
    workload: Workload, params: Tree, grads: Tree, moments: list[Tree], t: jax.Array
) -> tuple[Tree, list[Tree]]:
    """Clipping, weight decay, and the rule of the optimiser."""
    if workload.clip_norm:
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        factor = jnp.minimum(workload.clip_norm / (norm + 1e-6), 1.0)
        grads = jax.tree.map(lambda g: g * factor, grads)
    if workload.weight_decay:
        grads = jax.tree.map(lambda g, p: g + workload.weight_decay * p, grads, params)
    lr = workload.learning_rate
    if workload.optimizer == "sgd":
        momentum = jax.tree.map(lambda b, g: MOMENTUM * b + g, moments[0], grads)
        return jax.tree.map(lambda p, b: p - lr * b, params, momentum), [momentum]
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, moments[0], grads)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, moments[1], grads)
    c1, c2 = 1 / (1 - BETA1**t), 1 / (1 - BETA2**t)
    return jax.tree.map(lambda p, m, v: p - lr * c1 * m / (jnp.sqrt(c2 * v) + EPSILON), params, m, v), [m, v]


def step_of(workload: Workload, unroll: int = 1) -> Callable[[Tree, jax.Array, jax.Array], tuple[Tree, jax.Array]]:
    """The whole step, to be compiled: (state, x, y) -> (state, loss)."""

    def step(state: Tree, x: jax.Array, y: jax.Array) -> tuple[Tree, jax.Array]:
        params, moments, statistics, t, key = state
        key, drawn = jax.random.split(key) if workload.has(Dropout) else (key, key)
        differentiated = jax.value_and_grad(partial(objective, workload, unroll), has_aux=True)
        (loss, statistics), grads = differentiated(params, statistics, x, y, drawn)
        t = t + 1
        params, moments = updated(workload, params, grads, moments, t)
        return (params, moments, statistics, t, key), loss

    return step


def channels_last(workload: Workload, array: np.ndarray) -> np.ndarray:
    """Images (rows, channels, height, width) with the channels last; other arrays as they are."""
    return np.moveaxis(array, 1, -1) if workload.images and array.ndim == 4 else array


class Loop:
    """Calls of the compiled step; batches are arrays of JAX already. It waits once, at the end."""

    def __init__(self, workload: Workload, unroll: int = 1) -> None:
        self.step = jax.jit(step_of(workload, unroll), donate_argnums=0)
        self.state = first_state(workload)
        x, y = (channels_last(workload, array) for array in workload.data)
        size = workload.batch
        starts = range(0, workload.rows, size)
        self.batches = [(jnp.array(x[i : i + size]), jnp.array(y[i : i + size])) for i in starts]

    def run(self, passes: int) -> float:
        """The whole loop."""
        step, state = self.step, self.state
        start = time.perf_counter()
        for _ in range(passes):
            for x, y in self.batches:
                state, _ = step(state, x, y)
        jax.block_until_ready(state)
        self.state = state
        return time.perf_counter() - start


class Scan:
    """An epoch as one compiled loop over all batches."""

    def __init__(self, workload: Workload) -> None:
        step = step_of(workload)
        self.epoch = jax.jit(
            lambda state, x, y: jax.lax.scan(lambda s, b: step(s, *b), state, (x, y)), donate_argnums=0
        )
        self.state = first_state(workload)
        self.x, self.y = (
            jnp.array(a.reshape(workload.batches, workload.batch, *a.shape[1:])) for a in workload.data
        )  # fmt: skip

    def run(self, passes: int) -> float:
        """So many epochs."""
        state = self.state
        start = time.perf_counter()
        for _ in range(passes):
            state, _ = self.epoch(state, self.x, self.y)
        jax.block_until_ready(state)
        self.state = state
        return time.perf_counter() - start


def _configure(workload: Workload, mode: str) -> None:
    """Both settings count for the process, from before its first array on."""
    jax.config.update("jax_enable_x64", workload.dtype == "float64")
    jax.config.update("jax_cpu_enable_async_dispatch", mode != "jit, inline")


def contender(workload: Workload, mode: str, threads: int, engine: str = "") -> Loop | Scan:
    """Ready to train. The number of threads comes from NPROC and XLA_FLAGS."""
    _configure(workload, mode)
    return Scan(workload) if mode == "scan" else Loop(workload, UNROLLED if "unrolled" in mode else 1)


def losses(workload: Workload, mode: str, threads: int, engine: str, steps: int) -> list[float]:
    """The losses of the first steps, on the batches in their order."""
    made = contender(workload, mode, threads)
    if isinstance(made, Scan):
        return made.epoch(made.state, made.x[:steps], made.y[:steps])[1].tolist()
    found = []
    for x, y in made.batches[:steps]:
        made.state, loss = made.step(made.state, x, y)
        found.append(float(loss))
    return found
