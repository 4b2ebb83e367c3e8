"""Backpropagation by hand, and by chainrule: the same numbers.

A network of two inputs, two hidden and two output units, all sigmoid, learns one example by one step of gradient
descent on half the squared error. The left column is arithmetic as one would do it on paper (error of a unit = what
comes back to it × the slope of its sigmoid); the right column is what the library says.

The numbers are those of Matt Mazur's "A Step by Step Backpropagation Example" (2015), which many courses use. The
deltas are those of Rumelhart, Hinton and Williams (1986), equations (13) and (14).

    python examples/by_hand.py
"""

import math

import chainrule as cr

INPUT, TARGET, RATE = [0.05, 0.10], [0.01, 0.99], 0.5
HIDDEN, HIDDEN_BIAS = [[0.15, 0.20], [0.25, 0.30]], 0.35  # a row a unit
OUTPUT, OUTPUT_BIAS = [[0.40, 0.45], [0.50, 0.55]], 0.60


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def by_hand() -> dict[str, list]:
    """Every number of the step, in plain Python."""
    h = [sigmoid(w[0] * INPUT[0] + w[1] * INPUT[1] + HIDDEN_BIAS) for w in HIDDEN]
    o = [sigmoid(w[0] * h[0] + w[1] * h[1] + OUTPUT_BIAS) for w in OUTPUT]
    loss = sum((t - y) ** 2 for t, y in zip(TARGET, o, strict=True)) / 2
    # output units: error × slope
    delta_o = [(y - t) * y * (1 - y) for t, y in zip(TARGET, o, strict=True)]
    # hidden units: the errors that come back over the weights × slope
    delta_h = [(delta_o[0] * OUTPUT[0][j] + delta_o[1] * OUTPUT[1][j]) * h[j] * (1 - h[j]) for j in range(2)]
    # a weight's gradient: the error of the unit it leads to × the activation it comes from
    grad_output = [[d * h[0], d * h[1]] for d in delta_o]
    grad_hidden = [[d * INPUT[0], d * INPUT[1]] for d in delta_h]
    return {
        "hidden activations": h,
        "output activations": o,
        "loss": [loss],
        "output deltas": delta_o,
        "hidden deltas": delta_h,
        "output weight gradients": grad_output,
        "hidden weight gradients": grad_hidden,
        "new output weights": [
            [w - RATE * g for w, g in zip(ws, gs, strict=True)] for ws, gs in zip(OUTPUT, grad_output, strict=True)
        ],
        "new hidden weights": [
            [w - RATE * g for w, g in zip(ws, gs, strict=True)] for ws, gs in zip(HIDDEN, grad_hidden, strict=True)
        ],
    }


def by_chainrule() -> dict[str, list]:
    """The same from the library: activations as auxiliary results, deltas as gradients by the weighted sums."""
    f64 = cr.float64
    x, t = cr.tensor(INPUT, dtype=f64), cr.tensor(TARGET, dtype=f64)
    weights = {"hidden": cr.tensor(HIDDEN, dtype=f64), "output": cr.tensor(OUTPUT, dtype=f64)}

    def network(weights, nudge_hidden, nudge_output):
        """`nudge_…` is added to the weighted sums of a layer: the gradient by it is the delta of that layer."""
        h = cr.sigmoid(weights["hidden"] @ x + HIDDEN_BIAS + nudge_hidden)
        o = cr.sigmoid(weights["output"] @ h + OUTPUT_BIAS + nudge_output)
        return cr.sum((t - o) ** 2) / 2, (h, o)

    nothing = cr.zeros((2,), dtype=f64)
    step = cr.value_and_grad(network, argnums=(0, 1, 2), has_aux=True)
    (loss, (h, o)), (grads, delta_h, delta_o) = step(weights, nothing, nothing)
    return {
        "hidden activations": h.tolist(),
        "output activations": o.tolist(),
        "loss": [float(loss)],
        "output deltas": delta_o.tolist(),
        "hidden deltas": delta_h.tolist(),
        "output weight gradients": grads["output"].tolist(),
        "hidden weight gradients": grads["hidden"].tolist(),
        "new output weights": (weights["output"] - RATE * grads["output"]).tolist(),
        "new hidden weights": (weights["hidden"] - RATE * grads["hidden"]).tolist(),
    }


def flat(values: list) -> list[float]:
    return [v for value in values for v in (value if isinstance(value, list) else [value])]


if __name__ == "__main__":
    library = by_chainrule()
    print(f"{'':26}{'by hand':>16}{'chainrule':>16}")
    for name, values in by_hand().items():
        for i, (mine, theirs) in enumerate(zip(flat(values), flat(library[name]), strict=True)):
            print(f"{name if i == 0 else '':26}{mine:16.9f}{theirs:16.9f}")
