"""What is explained is the step that trains: loss, new weights and state, to the bit; and nothing is touched."""

import numpy as np

from chainrule import optim, tree
from chainrule.explanation import explain
from chainrule.train.batches import Batch, converted
from chainrule.train.criterion import criterion
from chainrule.train.setup import check_optimizer
from chainrule.train.steps import Steps, map_arrays


def leaves(**values):
    return {leaf.path: np.array(leaf.value) for leaf in tree.flatten(values).leaves}


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert [path for path in left if not same(left[path], right[path])] == []


def trained(small, optimizer, engine, clip_norm=None):
    """The leaves of an equal model and optimiser after one compiled step, and the loss."""
    model, x, y = small.make()
    optimizer = check_optimizer(optimizer, model, clip_norm)
    x, y = [map_arrays(lambda a: converted(a, np.dtype(np.float32)), part) for part in (x, y)]
    steps = Steps(criterion(small.loss, False), engine, clip_norm)
    rows = len(next(iter(tree.flatten(x).leaves)).value)
    outcome = steps.train(model, optimizer, None, Batch(x, y, None, np.arange(rows)))
    return leaves(model=model, optimizer=optimizer), outcome.loss


def test_explained_values_are_those_of_the_compiled_step(small, engine):
    after, loss = trained(small, optim.Adam(lr=0.01), engine)
    model, x, y = small.make()
    optimizer = optim.Adam(lr=0.01)
    before = leaves(model=model, optimizer=optimizer)
    explanation = explain(model, x, y, loss=small.loss, optimizer=optimizer, engine=engine)
    assert np.float32(explanation.loss).tobytes() == np.float32(loss).tobytes()
    explained = {**explanation.observation.before, **explanation.observation.after}
    assert_same(after, {path: explained[path] for path in after})
    for parameter in explanation.parameters.values():
        if parameter.update is not None:
            assert same(explained[f"model.{parameter.name}"], after[f"model.{parameter.name}"])
            slots = {slot.name: slot.after for slot in parameter.update.slots}
            assert slots.keys() == {"step", "mean", "square"}
            for slot, array in slots.items():
                assert same(array, after[f"optimizer.state.adam.{slot}.{parameter.name}"])
    explanation.to_json()
    _ = explanation.loss_change
    assert_same(leaves(model=model, optimizer=optimizer), before)


def test_a_second_observation_sees_the_same_bits(small, engine):
    model, x, y = small.make()
    first, second = (
        explain(model, x, y, loss=small.loss, optimizer=optim.SGD(lr=0.1, momentum=0.9), engine=engine) for _ in "ab"
    )
    assert len(first.nodes) == len(second.nodes)
    assert sum(node.observed for node in first.nodes) > len(first.nodes) / 2
    for one, other in zip(first.nodes, second.nodes, strict=True):
        assert one.observed == other.observed
        assert same(one.value, other.value)
        assert (one.gradient is None) == (other.gradient is None)
        assert one.gradient is None or same(one.gradient, other.gradient)


def test_engines_tell_the_same_story(small):
    model, x, y = small.make()
    one, other = (explain(model, x, y, loss=small.loss, engine=engine) for engine in ("reference", "native"))
    assert [repr(node) for node in one.nodes] == [repr(node) for node in other.nodes]
    for a, b in zip(one.nodes, other.nodes, strict=True):
        if a.gradient is not None:
            np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-3, atol=1e-5)
