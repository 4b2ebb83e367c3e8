"""The proof that a plan is sound: it accepts what is planned, and finds whatever is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from tests.engines.native.suite import SuiteEngine, native
from tests.engines.native.test_suite_training import STEPS, data

from chainrule.compile import trace_program
from chainrule.core.tensor import tensor
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.evaluate import Place
from chainrule.engines.native.places import FIRST
from chainrule.errors import CompileError
from chainrule.passes.views import View


def plan_of(name="odd"):
    make, optimizer, f, shape = STEPS[name]
    compiled = native(f)
    model = make()
    compiled(model, optimizer(), *data(shape, next(iter(model.parameters())).dtype))
    return compiled.engine.compiled[0][3]


@pytest.fixture(scope="module")
def program_and_held():
    make, optimizer, f, shape = STEPS["odd"]
    compiled = native(f)
    compiled(make(), optimizer(), *data(shape, "float32"))
    program, manifest, _, _ = compiled.engine.compiled[0]
    return program, manifest.held


@pytest.fixture
def plan(program_and_held):
    return SuiteEngine().plan(*program_and_held)


@pytest.mark.parametrize("name", STEPS)
def test_plans_are_sound(name):
    assert verify_plan(plan_of(name)).kernels


def wrong(plan, message):
    with pytest.raises(CompileError, match=message):
        verify_plan(plan)


def test_a_value_that_is_not_stored(plan):
    kernel = next(k.kernel for k in plan.kernels if k.kernel.outputs)
    kernel.outputs.pop(0)
    wrong(plan, "nobody has stored|not stored as it is to come out")


def test_an_operand_that_is_missing(plan):
    kernel = next(k.kernel for k in plan.kernels if k.kernel.inputs)
    kernel.inputs.pop(0)
    wrong(plan, "has no %")


def test_kernels_in_the_wrong_order(plan):
    plan.kernels.reverse()
    wrong(plan, "nobody has stored")


def test_nodes_in_the_wrong_order(plan):
    next(k.kernel for k in plan.kernels if len(k.kernel.nodes) > 3).nodes.reverse()
    wrong(plan, "has no %")


def test_a_view_that_leaves_its_memory(plan):
    i, view = next(
        (i, v) for i, v in enumerate(plan.grouping.views) if len(v.shape) == 2 and plan.grouping.nodes[v.base].size > 1
    )
    plan.grouping.views[i] = replace(view, offset=view.offset + 1)
    wrong(plan, "reads elements")


def test_an_operand_in_another_order(plan):
    grouping = plan.grouping
    for planned in plan.kernels:
        for n in planned.kernel.nodes:
            for x in grouping.nodes[n].inputs:
                view = grouping.views[x]
                if (
                    view.base in planned.kernel.nodes
                    and len(view.shape) == 2
                    and min(view.shape) > 1
                    and grouping.elementwise(n)
                ):
                    grouping.views[x] = View(view.base, view.shape, view.strides[::-1], view.offset)
                    wrong(plan, "cannot read|reads elements")
                    return
    raise AssertionError("no kernel with two nodes")


def test_two_values_in_one_memory(plan):
    alive = [x for k in plan.kernels for x in k.kernel.inputs if plan.places[x].external is None]
    x, y = next(
        (x, y)
        for x in alive
        for y in alive
        if plan.places[x].offset != plan.places[y].offset
        and plan.sizes[x] == plan.sizes[y]
        and x in plan.held
        and y in plan.held
    )
    plan.places[x] = plan.places[y]
    wrong(plan, "alive at once in the same memory|does not lie where")


def test_memory_that_is_too_small_or_outside(plan):
    x = plan.held[0]
    plan.sizes[x] -= 64
    wrong(plan, "too little memory|lies where|does not lie|alive at once")
    plan.sizes[x] += 64
    plan.places[x] = Place(FIRST - 64)
    wrong(plan, "outside of the arena|does not lie")


def test_state_that_is_overwritten_too_early(plan):
    new = next(iter(plan.schedule.in_place))
    plan.schedule.guard = 1 + next(i for i, k in enumerate(plan.kernels) if new in k.kernel.outputs)
    wrong(plan, "before errors were looked for")


def test_what_fails_too_late():
    program = trace_program(lambda x, i: x // i, tensor(np.array([4, 2])), tensor(np.array([1, 2])))
    plan = SuiteEngine().plan(program)
    plan.schedule.guard = 0
    wrong(plan, "may fail after")
