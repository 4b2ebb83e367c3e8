"""At every node upstream × local derivative = downstream, and local derivatives are those of what nodes compute."""

import numpy as np

from chainrule import dtypes
from chainrule.explanation import explain
from chainrule.explanation.local import column, handed, slopes
from chainrule.functions.custom import CUSTOM

EPS = float(np.finfo(np.float32).eps)


def flows(explanation):
    """(node, position, values of the inputs, downstream) of every edge that a gradient flows along."""
    for node in explanation.nodes:
        if not node.role and node.gradient is not None:
            inputs = [explanation.nodes[i].value for i in node.inputs]
            for position in range(len(inputs)):
                downstream = node.downstream(position)
                if downstream is not None:
                    yield node, position, inputs, downstream


def some_places(shape, count, seed):
    size = int(np.prod(shape, dtype=np.int64))
    chosen = np.random.default_rng(seed).choice(size, min(count, size), replace=False)
    return [tuple(map(int, np.unravel_index(i, shape))) for i in chosen]


def test_upstream_times_local_is_downstream(small, engine):
    model, x, y = small.make()
    explanation = explain(model, x, y, loss=small.loss, engine=engine)
    count = 0
    for node, position, inputs, downstream in flows(explanation):
        upstream = node.gradient.astype(np.float64)
        largest = np.abs(upstream).max(initial=0)
        whole = handed(node, position, inputs, upstream)
        near(downstream, whole, np.abs(whole).max(initial=0) + largest, node)
        slope = slopes(node, position, inputs)
        if slope is not None:
            near(downstream, upstream * slope, np.abs(upstream * slope) + largest * EPS, node)
        for place in some_places(downstream.shape, 3, node.id):
            local = column(node, position, inputs, place)
            parts = local * upstream
            near(downstream[place], parts.sum(), np.abs(parts).sum() + largest, node)
            count += 1
    assert count > 30


def near(found, expected, scale, node):
    """Within the rounding of float32 operations on numbers of this size."""
    np.testing.assert_array_less(np.abs(found - expected), 64 * EPS * scale + 1e-30, err_msg=f"{node!r} {node.rule}")


def test_local_derivatives_are_central_differences(small):
    """Of what the primitive computes, in float64. Not of loops and of rules that a function brings along."""
    model, x, y = small.make()
    explanation = explain(model, x, y, loss=small.loss, engine="reference")
    count = 0
    for node, position, inputs, downstream in flows(explanation):
        x = node.tensor
        if x.primitive is CUSTOM or x.primitive.kind == "control":
            continue
        widened = [a.astype(np.float64) if dtypes.is_float(a.dtype) else a for a in inputs]
        for place in some_places(downstream.shape, 2, node.id):
            step = 1e-6 * max(1.0, abs(widened[position][place]))
            made = []
            for sign in (1, -1):
                moved = [a.copy() for a in widened]
                moved[position][place] += sign * step
                made.append(np.asarray(x.primitive.evaluate(np.dtype(np.float64), tuple(moved), x.attributes)))
            difference = (made[0] - made[1]) / (2 * step)
            local = column(node, position, inputs, place)
            np.testing.assert_allclose(local, difference, rtol=1e-5, atol=1e-7, err_msg=f"{node!r} {position} {place}")
            count += 1
    assert count > 20
