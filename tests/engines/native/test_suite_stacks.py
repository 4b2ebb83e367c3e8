"""Stacks of products, as the heads of an attention, are called matrix by matrix: the results of the reference."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.native.suite import compare, native, plans, real

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compile import trace_program
from chainrule.engines.native import plan as planning
from chainrule.engines.native.check import verify_plan
from chainrule.engines.native.cuts import chains, reads_own_matrix
from chainrule.engines.native.evaluate import Place
from chainrule.engines.native.lowering import lower
from chainrule.errors import CompileError
from chainrule.passes.grouping import Grouping


def together(compiled):
    """How many kernels are called together, for each chain of them, and in how many matrices."""
    found = [chain for plan in plans(compiled) for chain in chains(plan.kernels) if len(chain) > 1]
    return [(len(chain), chain[0].stack) for chain in found]


def check(f, *xs, expected=None, **how):
    """Against the reference, on many numbers of threads; `expected`: see `together`."""
    compiled = compare(f, *xs, others=(1, 3, 7), **how)
    assert expected is None or together(compiled) == expected
    return compiled


def attention(x, heads):
    """Scores of all heads, their softmax, and the sums of values: queries, keys and values side by side in `x`."""
    examples, length, width = x.shape
    parts = x.reshape((examples, length, 3, heads, width // 3 // heads))
    q, k, v = (parts[:, :, i].transpose((0, 2, 1, 3)) for i in range(3))
    weights = cr.softmax(q @ k.transpose((0, 1, 3, 2)), axis=-1)
    return (weights @ v).transpose((0, 2, 1, 3)).reshape((examples, length, width // 3))


def test_an_attention_is_computed_head_by_head():
    check(lambda x: (attention(x, 4),), real(3, 20, 3 * 4 * 8), expected=[(3, 12)])


def test_so_is_its_derivative():
    def f(x):
        return (cr.grad(lambda x: cr.sum(attention(x, 4) ** 2))(x),)

    compiled = check(f, real(3, 20, 3 * 4 * 8))
    assert sum(count for count, _ in together(compiled)) >= 7


def test_operands_are_read_where_they_lie():
    compiled = native(lambda x: (attention(x, 4),))
    compiled(real(3, 20, 3 * 4 * 8))
    (plan,) = plans(compiled)
    copied = [n for k in plan.kernels for n in k.kernel.nodes if plan.grouping.nodes[n].primitive.name == "copy"]
    assert len(copied) == 1  # heads side by side, at the end


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 7, 16, 17, 33]), st.sampled_from([1, 3, 8, 16, 17]),
    st.sampled_from([np.float32, np.float64]), st.booleans(),
)  # fmt: skip
def test_attention_of_any_size(examples, heads, length, width, dtype, derivative):
    def f(x):
        return (cr.grad(lambda x: cr.sum(cr.sin(attention(x, heads))))(x) if derivative else attention(x, heads),)

    check(f, real(examples, length, 3 * heads * width, dtype=dtype))


@pytest.mark.parametrize("causal", [False, True])
def test_layers(causal):
    layer = nn.TransformerEncoderLayer(
        24, 4, 40, dropout=0.1, batch_first=True, generator=cr.random.Generator(0)
    ).eval()

    def f(layer, x, y):
        def loss(layer):
            return losses.mse(layer(x, is_causal=causal), y)

        loss, grads = cr.value_and_grad(loss)(layer)
        return loss, *grads.values()

    compiled = check(f, layer, real(4, 20, 24), real(4, 20, 24, seed=1))
    assert max(count for count, _ in together(compiled)) >= 3


def test_few_matrices_are_shared_out_in_another_way():
    check(lambda x: (attention(x, 1),), real(3, 40, 3 * 8), expected=[])


def test_what_reads_other_matrices_waits():
    def f(a, b):
        scores = a @ b
        return cr.exp(scores[::-1]) * cr.max(scores, axis=-1, keepdims=True)[::-1], cr.sum(scores, axis=0)

    compiled = check(f, real(12, 9, 5), real(12, 5, 17))
    assert all(count < 3 for count, _ in together(compiled))


def test_sums_over_the_stack_wait():
    def f(a, b, c):
        weights = cr.softmax(a @ b, axis=-1)
        return weights @ c, cr.sum(weights, axis=0) @ c[0]

    check(f, real(12, 9, 5), real(12, 5, 9), real(12, 9, 6))


def test_a_stack_inside_of_a_loop():
    def step(carry, bias):
        out = cr.tanh(attention(cr.concat([carry, carry, carry], axis=-1), 3)) + bias
        return out, cr.sum(out, axis=(1, 2))

    compiled = check(lambda x, biases: cr.scan(step, x, biases), real(4, 20, 12), real(5, 12))
    assert (3, 12) in together(compiled)


def test_training_steps():
    model = nn.TransformerEncoderLayer(16, 4, 20, dropout=0.0, batch_first=True, generator=cr.random.Generator(0))
    optimizer = optim.Adam(lr=3e-2)

    def step(model, optimizer, x):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x), x))(model)
        optimizer.update(model, grads)
        return loss

    compiled = native(step, 2)
    x = real(4, 20, 16)
    first = float(compiled(model, optimizer, x))
    for _ in range(30):
        last = float(compiled(model, optimizer, x))
    assert last < first / 2
    assert max(count for count, _ in together(compiled)) >= 3


# -- which parts of a value a matrix reads


def places_read(grouping, kernel, x, count):
    """For each of so many matrices the places of `x` that it reads, one by one."""
    found = [set() for _ in range(count)]
    for n in kernel.nodes:
        for i in grouping.nodes[n].inputs:
            view = grouping.views[i]
            if view.base == x:
                for at in product(*map(range, view.shape)):
                    number = int(np.ravel_multi_index(at, view.shape)) if view.shape else 0
                    place = view.offset + sum(k * stride for k, stride in zip(at, view.strides, strict=True))
                    found[number * count // int(np.prod(view.shape))].add(place)
    return found


@pytest.mark.parametrize(
    ("f", "own"),
    [
        (lambda x: cr.exp(x) + 1, True),
        (lambda x: cr.exp(x[:, ::-1]), True),
        (lambda x: cr.exp(x.transpose((0, 2, 1))), True),
        (lambda x: cr.exp(x[::-1]), False),
        (lambda x: cr.exp(x[:1]) * x, False),
        (lambda x: cr.exp(x.transpose((1, 0, 2))), False),
        (lambda x: cr.sum(x, axis=2), True),
        (lambda x: x @ cr.ones((4, 40)), True),
        (lambda x: cr.exp(x[2:3, 1:2, 1:2]) * x, False),
    ],
)
def test_whether_a_matrix_reads_its_own_part(f, own):
    program = lower(trace_program(f, real(6, 4, 4)))
    grouping, (x,) = Grouping(program), program.inputs
    kernels = [k for k in grouping.kernels if x in k.inputs]
    answers = [reads_own_matrix(grouping, k, x, 6) for k in kernels]
    assert all(answers) == own
    for kernel, answer in zip(kernels, answers, strict=True):
        parts = [set(range(16 * k, 16 * k + 16)) for k in range(6)]
        assert not answer or all(a <= b for a, b in zip(places_read(grouping, kernel, x, 6), parts, strict=True))


# -- the proof of a plan


@pytest.fixture
def plan():
    return planned()


def planned():
    compiled = native(lambda x: (attention(x, 4),), guarded=False)  # there every value would be whole
    compiled(real(3, 20, 3 * 4 * 8))
    return plans(compiled)[0]


def wrong(plan, message):
    with pytest.raises(CompileError, match=message):
        verify_plan(plan)


def chain_of(plan):
    """The kernels that are called together, and the one behind them, whose result is moved to memory of its own."""
    chain = next(chain for chain in chains(plan.kernels) if len(chain) > 1)
    after = plan.kernels[plan.kernels.index(chain[-1]) + 1]
    (x,) = after.kernel.outputs
    plan.places[x] = Place(plan.arena_bytes)
    plan.arena_bytes += plan.sizes[x]
    return chain, after


def test_matrices_of_different_stacks(plan):
    for planned in chain_of(plan)[0]:
        planned.stack = 5
    wrong(plan, "is not cut into 5 equal parts")


def test_a_kernel_that_reads_what_is_not_made_yet(plan):
    chain, after = chain_of(plan)
    after.barrier, after.stack, after.share = False, chain[0].stack, chain[1].share
    wrong(plan, "has not made yet")


def test_values_of_a_chain_in_the_same_memory(monkeypatch):
    monkeypatch.setattr(planning, "parts_of", lambda plan: {})
    plan = planned()
    chain, _ = chain_of(plan)
    plan.places[chain[2].kernel.outputs[0]] = plan.places[chain[0].kernel.outputs[0]]
    wrong(plan, "looks for")


# -- one part at a time


def test_what_a_chain_alone_needs_is_there_in_parts(plan):
    """As the scores of heads are: a thread has those that it works on."""
    assert plan.parts
    scores = [x for x in plan.parts if plan.grouping.nodes[x].shape[-2:] == (20, 20)]
    assert scores
    assert plan.scratch_bytes - plan.parts_at < sum(plan.grouping.nodes[x].nbytes for x in plan.parts)


def test_results_are_there_as_a_whole():
    def f(x):
        scores = cr.exp(x @ x.transpose((0, 2, 1)))
        return scores, scores @ x

    compiled = compare(f, real(16, 20, 8), others=(1, 3, 7))
    assert together(compiled)
    assert not any(plan.parts for plan in plans(compiled))


def test_a_part_that_lies_over_another(plan):
    a, b = list(plan.parts)[:2]
    plan.parts[a] = plan.parts[a]._replace(at=plan.parts[b].at)
    wrong(plan, "overlaps")


def test_a_part_that_has_no_place_in_the_table(plan):
    x = next(iter(plan.parts))
    plan.places[x] = Place(plan.arena_bytes)
    plan.arena_bytes += plan.sizes[x]
    wrong(plan, "has no place")


def test_a_part_that_is_a_result(plan):
    plan.schedule.copied[next(iter(plan.parts))] = plan.program.inputs[0]
    wrong(plan, "not enough")


def test_a_part_that_a_kernel_outside_reads(plan):
    after = chain_of(plan)[1]
    after.kernel.inputs.append(next(iter(plan.parts)))
    wrong(plan, "one part at a time")


def test_values_that_barriers_part_are_there_as_a_whole(monkeypatch):
    place = planning.place_barriers

    def more(plan):
        place(plan)
        for planned in plan.kernels:
            planned.barrier = True

    monkeypatch.setattr(planning, "place_barriers", more)
    assert not planned().parts
