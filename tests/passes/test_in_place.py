"""New state in the memory of the old."""

from dataclasses import replace

import numpy as np
from tests.passes.programs import real, traced

import chainrule as cr
from chainrule.compile import trace_program
from chainrule.core.tensor import wrap
from chainrule.engines.native.lowering import lower
from chainrule.passes.grouping import Grouping
from chainrule.passes.in_place import may_fail, schedule
from chainrule.primitives import index
from chainrule.program.program import verify


def planned(f, *inputs, updates):
    """The schedule of a function some of whose results are new values of inputs: {result: input}."""
    program = trace_program(f, *inputs)
    outputs = tuple(
        replace(out, updates=program.inputs[updates[k]] if k in updates else None)
        for k, out in enumerate(program.outputs)
    )
    return schedule(Grouping(lower(verify(replace(program, outputs=outputs)))))


def test_a_new_value_takes_the_place_of_the_old():
    order = planned(lambda w, g: [w - 0.1 * g], real(5, 4), real(5, 4), updates={0: 0})
    assert list(order.in_place.values()) == [0]
    assert not order.copied


def test_what_reads_the_old_value_comes_first():
    def f(w, x):
        return [w - cr.sum(w), x @ w]

    order = planned(f, real(5, 4), real(3, 5), updates={0: 0})
    writers = [i for i, k in enumerate(order.kernels) if set(k.outputs) & set(order.in_place)]
    readers = [i for i, k in enumerate(order.kernels) if 0 in k.inputs]
    assert order.copied or (max(readers) <= min(writers))


def test_what_reads_the_old_value_in_another_order_has_a_copy():
    order = planned(lambda w: [w + w.T], real(9, 9), updates={0: 0})
    assert not order.in_place
    assert list(order.copied.values()) == [0]


def test_two_that_exchange_their_values_have_copies():
    order = planned(lambda a, b: [b * 1.5, a * 1.5], real(5, 4), real(5, 4), updates={0: 0, 1: 1})
    assert len(order.in_place) + len(order.copied) == 2
    for new, old in order.in_place.items():
        writer = next(i for i, k in enumerate(order.kernels) if new in k.outputs)
        assert all(i <= writer for i, k in enumerate(order.kernels) if old in k.inputs)


def test_rows_that_are_reduced_are_not_overwritten_while_they_are_read():
    order = planned(lambda w: [cr.softmax(w, axis=1)], real(5, 400), updates={0: 0})
    assert not order.in_place


def test_what_can_fail_comes_before_what_overwrites():
    f = lambda w, i, x: [w * 0.5, index.take(x, i)]
    order = planned(f, real(5, 4), wrap(np.array([1, 2])), real(9, 3), updates={0: 0})
    fallible = [n for n, k in enumerate(order.kernels) if k.kind == "single"]
    writers = [n for n, k in enumerate(order.kernels) if set(k.outputs) & set(order.in_place)]
    assert order.guard == max(fallible) + 1
    assert min(writers) >= order.guard


def test_what_may_fail():
    program = traced(lambda x, i: [index.take(x, i), i // 2, x / 2], real(3, 4), wrap(np.array([1, 2])))
    grouping = Grouping(program)
    found = {node.primitive.name for n, node in enumerate(program.nodes) if may_fail(grouping, n)}
    assert found == {"take", "floordiv"}
