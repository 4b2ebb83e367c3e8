"""What the learning rate does: too low crawls, good converges, high overshoots, too high diverges.

Twice: on a quadratic valley f(w) = ½ wᵀAw, where theory says everything, and on a small network that learns
handwritten digits. On the valley a step of gradient descent multiplies the part of w along an eigenvector of A by
1 − rate · λ, so it converges exactly when 0 < rate < 2 / λmax, and changes sides at each step when rate > 1 / λmax.
Source: Goodfellow, Bengio and Courville, Deep Learning (2016), sections 4.3.1 and 8.3.1; LeCun et al., "Efficient
BackProp" (1998), section 5.

    python examples/learning_rates.py
    python examples/learning_rates.py --plot learning_rates.png
"""

import argparse
import math

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

A = np.array([[6.5, 5.5], [5.5, 6.5]])  # eigenvalues 1 (along the valley) and 12 (across it)
START, VALLEY_STEPS = [2.7, -1.7], 25
SHARES = {"too low": 0.05, "good": 0.9, "high": 1.95, "too high": 2.05}  # of 1 / λmax; the threshold is 2
RATES = {"too low": 0.01, "good": 1.0, "high": 1.7, "too high": 10.0}
NETWORK_STEPS = 100


def valley(params):
    w = params["w"]
    return cr.sum(w * (cr.tensor(A) @ w)) / 2


def largest_curvature() -> float:
    """λmax, from the second derivatives of the function itself."""
    second = cr.hessian(lambda w: valley({"w": w}))(cr.tensor(np.array(START)))
    return float(np.linalg.eigvalsh(second.numpy()).max())


def descend_valley(rate: float, steps: int = VALLEY_STEPS) -> tuple[np.ndarray, list[float]]:
    """Gradient descent from START: the points (steps + 1, 2) and the value at each."""
    params, optimizer = {"w": cr.tensor(np.array(START))}, optim.SGD(lr=rate)
    points, values = [params["w"].numpy()], [float(valley(params))]
    for _ in range(steps):
        _, grads = cr.value_and_grad(valley)(params)
        params = optimizer.update(params, grads)
        points.append(params["w"].numpy())
        values.append(float(valley(params)))
    return np.array(points), values


def closed_form(rate: float, steps: int = VALLEY_STEPS) -> np.ndarray:
    """The same points without a gradient: each eigenvector's part shrinks (or grows) by 1 − rate · λ a step."""
    curvatures, directions = np.linalg.eigh(A)
    powers = (1 - rate * curvatures) ** np.arange(steps + 1)[:, None]
    return (powers * (directions.T @ START)) @ directions.T


@cr.compile
def train_step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: losses.cross_entropy(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def train_network(rate: float, steps: int = NETWORK_STEPS) -> list[float]:
    """The loss before each step. All images at once, so whatever rises was overshot, not drawn badly."""
    digits = cr.data.load("digits")
    x, y = cr.tensor(digits.x / 16), cr.tensor(digits.y)  # pixels 0..16 -> 0..1
    generator = cr.random.Generator(0)
    hidden, output = nn.Linear(64, 32, generator=generator), nn.Linear(32, 10, generator=generator)
    model, optimizer = nn.Sequential(hidden, nn.Tanh(), output), optim.SGD(lr=rate)
    return [float(train_step(model, optimizer, x, y)) for _ in range(steps)]


def rises(values: list[float]) -> int:
    """How many steps made the loss larger."""
    return int(np.sum(np.diff(values) > 0))


def crossings(points: np.ndarray) -> int:
    """How many steps landed on the other side of the valley's floor (those that rounding decides do not count)."""
    across = points @ np.linalg.eigh(A)[1][:, -1]
    return int(np.sum(across[1:] * across[:-1] < -1e-12))


def verdict(values: list[float], turns: int) -> str:
    """What the curve says: the values from first to last, and how many steps overshot. Diverged is what ends above."""
    first, last = values[0], values[-1]
    if not math.isfinite(last) or last > first:
        return "diverges"
    if last > first / 2:
        return "crawls"
    return "overshoots, then settles" if turns > len(values) / 20 else "converges"


def main(plot: str | None = None) -> dict[str, dict[str, dict]]:
    """Print both tables (and draw); returns for "valley" and "network" and each setting what was measured."""
    threshold = 2 / largest_curvature()
    valley_runs, network_runs = {}, {}
    for name, share in SHARES.items():
        points, values = descend_valley(rate := share * threshold / 2)
        turns = crossings(points)
        valley_runs[name] = {"rate": rate, "values": values, "points": points, "turns": turns}
    for name, rate in RATES.items():
        values = train_network(rate)
        network_runs[name] = {"rate": rate, "values": values, "turns": rises(values)}
    print(f"valley: λmax = {2 / threshold:.4g}, so gradient descent converges below 2/λmax = {threshold:.4g}")
    show(valley_runs, f"f after {VALLEY_STEPS}", "crossings")
    print(f"network: 64-32-10 with tanh, cross-entropy on digits, {NETWORK_STEPS} steps over all images")
    show(network_runs, f"loss after {NETWORK_STEPS}", "rises")
    if plot:
        draw(valley_runs, network_runs, threshold, plot)
        print(f"picture: {plot}")
    return {"valley": valley_runs, "network": network_runs}


def show(runs: dict[str, dict], last: str, turns: str) -> None:
    print(f"  {'':10}{'rate':>9}{'at start':>10}{'largest':>10}{last:>16}{turns:>11}")
    for name, run in runs.items():
        values = run["values"]
        run["verdict"] = verdict(values, run["turns"])
        numbers = f"{run['rate']:9.4g}{values[0]:10.4g}{max(values):10.4g}{values[-1]:16.4g}{run['turns']:11}"
        print(f"  {name:10}{numbers}  {run['verdict']}")


def draw(valley_runs: dict[str, dict], network_runs: dict[str, dict], threshold: float, path: str) -> None:
    """Above the paths through the valley, below the loss of the network; a column a learning rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(11, 6), layout="constrained", sharey="row")
    u, v = np.meshgrid(np.linspace(-3.2, 3.2, 120), np.linspace(-3.2, 3.2, 120))
    height = (A[0, 0] * u * u + 2 * A[0, 1] * u * v + A[1, 1] * v * v) / 2
    for axis, (name, run) in zip(axes[0], valley_runs.items(), strict=True):
        axis.contour(u, v, height, levels=[0.2, 1, 3, 7, 15, 30, 60], colors="0.8", linewidths=0.8)
        axis.plot(*run["points"].T, "o-", color="tab:blue", markersize=3, linewidth=1)
        axis.plot(*START, "o", color="black", markersize=5)
        axis.plot(0, 0, "*", color="tab:red", markersize=11)
        axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xlabel="$w_1$")
        axis.set_title(f"{name}: {2 * run['rate'] / threshold:.2f} / λmax\n{run['verdict']}", fontsize=10)
    for axis, (name, run) in zip(axes[1], network_runs.items(), strict=True):
        axis.plot(run["values"], color="tab:blue", linewidth=1.2)
        axis.axhline(run["values"][0], color="0.5", linewidth=0.8, linestyle="--")
        axis.set(yscale="log", xlabel="step", ylim=(0.05, 500))
        axis.set_title(f"{name}: {run['rate']:g}\n{run['verdict']}", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"valley, {VALLEY_STEPS} steps from • to ★\n\n$w_2$")
    axes[1, 0].set_ylabel("network on digits\n\ncross-entropy (dashed: at start)")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the learning rate does.")
    parser.add_argument("--plot", metavar="FILE.png", help="draw a picture (needs matplotlib)")
    main(parser.parse_args().plot)
