"""Flattening and rebuilding: order, roles, sharing, ties, static parts."""

import collections
import dataclasses
import gc

import numpy as np
import pytest

from chainrule import tree
from chainrule.core.tensor import Tensor, tensor

Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    a: Tensor
    b: int


class Layer(tree.Stateful):
    def __init__(self, weight):
        self.weight = weight
        self.width = 3

    def role(self, name):
        return "parameter" if name == "weight" else "state"


class Net(tree.Stateful):
    def __init__(self, *layers):
        self.layers = list(layers)
        self.first = layers[0]
        self.flag = True


def test_leaves_come_in_order_with_paths():
    a, b, c, d = (tensor(float(i)) for i in range(4))
    flat = tree.flatten({"k": [a, (b, 1)], "p": Point(c, "s"), "r": Record(d, 2), "n": np.ones(2)})
    assert [leaf.path for leaf in flat.leaves] == ["k.0", "k.1.0", "p.x", "r.a", "n"]
    rebuilt = tree.build(flat, [1, 2, 3, 4, 5])
    assert rebuilt == {"k": [1, (2, 1)], "p": Point(3, "s"), "r": Record(4, 2), "n": 5}


def test_one_object_met_twice_is_one_object():
    shared = Layer(tensor(1.0))
    flat = tree.flatten(Net(shared, Layer(tensor(2.0)), shared))
    assert [leaf.path for leaf in flat.leaves] == ["layers.0.weight", "layers.1.weight"]
    copy = tree.build(flat, [tensor(5.0), tensor(6.0)])
    assert copy.layers[0] is copy.layers[2] is copy.first
    assert copy.layers[0] is not shared and copy.layers[0].path == "layers.0"
    assert float(shared.weight) == 1


def test_tied_parameters_are_one_leaf_but_equal_values_elsewhere_are_not():
    weight = tensor(1.0)
    assert len(tree.flatten([Layer(weight), Layer(weight)]).leaves) == 1
    assert len(tree.flatten([weight, weight]).leaves) == 2


def test_in_place_writes_to_the_originals():
    net = Net(Layer(tensor(1.0)), Layer(tensor(2.0)))
    first = net.first
    tree.build(tree.flatten(net), [tensor(5.0), tensor(6.0)], in_place=True)
    assert net.first is first and float(first.weight) == 5 and float(net.layers[1].weight) == 6
    assert "path" not in vars(first)


def test_a_copy_has_the_structure_of_its_original():
    net = Net(Layer(tensor(1.0)), Layer(tensor(2.0)))
    flat = tree.flatten(net)
    assert tree.flatten(tree.build(flat, [leaf.value for leaf in flat.leaves])).spec == flat.spec


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [(1, True, False), (1, 1.0, False), (0.0, -0.0, False), ("x", "x", True), (float("nan"),) * 2 + (True,)],
)
def test_static_values_belong_to_the_structure_with_their_type(a, b, same):
    assert (tree.flatten([a]).spec == tree.flatten([b]).spec) is same


def test_settings_of_an_object_belong_to_the_structure():
    a, b = Layer(tensor(1.0)), Layer(tensor(1.0))
    assert tree.flatten(a).spec == tree.flatten(b).spec
    b.width = 4
    assert tree.flatten(a).spec != tree.flatten(b).spec


def test_flattening_leaves_no_reference_cycle():
    gc.collect()
    gc.disable()
    try:
        x = tensor(np.ones(10))
        before = sum(isinstance(o, Tensor) for o in gc.get_objects())
        flat = tree.flatten({"a": tensor(1.0), "b": [tensor(2.0)]})
        tree.build(flat, [1, 2])
        tree.collect(flat, [1, 2], lambda leaf: True)
        del flat
        assert sum(isinstance(o, Tensor) for o in gc.get_objects()) == before
        del x
    finally:
        gc.enable()


def test_a_tied_weight_that_is_frozen_under_one_name_is_frozen():
    weight = tensor(1.0)
    free, frozen = Layer(weight), Layer(weight)
    frozen.role = lambda name: "frozen" if name == "weight" else "state"
    for pair in ([free, frozen], [frozen, free]):
        assert [leaf.role for leaf in tree.flatten(pair).leaves] == ["frozen"]


def test_a_parameter_elsewhere_as_plain_state_does_not_disturb_a_tie():
    class Shadow(tree.Stateful):
        def __init__(self, weight):
            self.average = weight

    weight = tensor(1.0)
    flat = tree.flatten([Layer(weight), Shadow(weight), Layer(weight)])
    assert [leaf.path for leaf in flat.leaves] == ["0.weight", "1.average"]
    a, _, b = tree.build(flat, [5, 6])
    assert a.weight == b.weight == 5
