import copy
import dataclasses

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.tensor import context
from chainrule.errors import ChainruleError, ConfigError, DTypeError, ShapeError, StateError, TracedValueError
from chainrule.tree import Stateful


class Net(nn.Module):
    def __init__(self):
        self.scale = nn.Parameter(cr.tensor([2.0]))
        self.first = nn.Linear(3, 4)
        self.rest = [nn.Linear(4, 4), {"last": nn.Linear(4, 1)}]
        self.register_buffer("offset", cr.tensor([0.5]))
        self.register_buffer("scratch", cr.tensor([0.0]), persistent=False)
        self.plain = cr.tensor([7.0])
        self.width = 4

    def forward(self, x):
        return self.rest[1]["last"](self.rest[0](self.first(x))) * self.scale + self.offset


def rows(n=5, features=3):
    return cr.tensor(np.random.default_rng(0).normal(size=(n, features)).astype("float32"))


def total(y):
    return (y * y).sum()


# -- attributes


def test_a_parameter_stays_one_whatever_is_assigned_later():
    net = Net()
    net.scale = cr.tensor([3.0])
    assert net.role("scale") == "parameter"
    assert net.scale.requires_grad and not net.scale.inputs
    net.scale = net.scale * 2  # made of the old one: its history must go
    assert net.scale.tolist() == [6.0] and not net.scale.inputs
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    net.scale = cr.tensor([1.0])
    assert "scale" in dict(net.named_parameters())


def test_roles():
    net = Net()
    assert [net.role(n) for n in ("scale", "offset", "plain", "first")] == ["parameter", "state", "state", "state"]
    net.scale = nn.Parameter(cr.tensor([1.0]), requires_grad=False)
    assert net.role("scale") == "frozen" and not net.scale.requires_grad


def test_plain_tensors_are_neither_parameters_nor_saved():
    net = Net()
    assert "plain" not in dict(net.named_parameters()) and "plain" not in dict(net.named_buffers())
    assert "plain" not in net.state_dict()


def test_a_parameter_takes_the_name_of_a_buffer_and_del_forgets_it():
    net = Net()
    net.offset = nn.Parameter(cr.tensor([1.0]))
    assert net.role("offset") == "parameter" and "offset" not in dict(net.named_buffers())
    del net.offset
    assert "offset" not in net.state_dict() and not hasattr(net, "offset")
    net.offset = cr.tensor([1.0])
    assert net.role("offset") == "state" and "offset" not in dict(net.named_buffers())


def test_what_cannot_be_assigned():
    net = Net()
    with pytest.raises(DTypeError, match="parameter 'scale' is a tensor or None, not list"):
        net.scale = [1.0]
    with pytest.raises(DTypeError, match="buffer 'offset' is a tensor or None, not float"):
        net.offset = 1.0
    with pytest.raises(ConfigError, match="is a parameter already"):
        net.register_buffer("scale", cr.tensor([1.0]))
    with pytest.raises(ConfigError, match="its own name"):
        net.weights = [nn.Parameter(cr.tensor([1.0]))]
    with pytest.raises(DTypeError, match="floating-point"):
        net.number = nn.Parameter(cr.tensor([1]))
    with pytest.raises(ConfigError, match=r"module\.requires_grad_\(False\)"):
        net.scale.requires_grad_(False)


def test_parameters_of_integers_may_be_frozen():
    net = Net()
    net.number = nn.Parameter(cr.tensor([1]), requires_grad=False)
    net.requires_grad_(True)
    assert net.role("number") == "frozen"


def test_super_init_may_be_left_out_or_called_late():
    class Late(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(cr.tensor([1.0]))
            super().__init__()

    assert [n for n, _ in Late().named_parameters()] == ["weight"]


def test_a_dataclass_can_be_a_module():
    @dataclasses.dataclass(eq=False)
    class Scale(nn.Module):
        layer: nn.Linear
        factor: float = 2.0

        def forward(self, x):
            return self.layer(x) * self.factor

    model = Scale(nn.Linear(3, 2))
    assert [n for n, _ in model.named_parameters()] == ["layer.weight", "layer.bias"]
    assert model(rows()).shape == (5, 2)


def test_no_forward():
    with pytest.raises(ConfigError, match="Module defines no forward"):
        nn.Module()(1)


# -- what is inside


def test_names_follow_attributes_lists_and_dicts():
    net = Net()
    names = [name for name, _ in net.named_parameters()]
    assert names == [
        "scale", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias", "rest.1.last.weight", "rest.1.last.bias"
    ]  # fmt: skip
    assert [n for n, _ in net.named_buffers()] == ["offset", "scratch"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "rest.0", "rest.1.last"]
    assert [n for n, _ in net.named_children()] == ["first", "rest.0", "rest.1.last"]
    assert list(net.children()) == list(net.modules())[1:]
    assert net.get_submodule("rest.1.last") is net.rest[1]["last"] and net.get_submodule("") is net
    assert net.parameter_count() == sum(p.size for p in net.parameters()) == 1 + 16 + 20 + 5


def test_gradients_have_the_names_of_parameters():
    net = Net()
    _, grads = cr.value_and_grad(lambda m: total(m(rows())))(net)
    assert list(grads) == [name for name, _ in net.named_parameters()]
    assert all(grads[name].shape == p.shape for name, p in net.named_parameters())


def test_grandchildren_are_no_children():
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.ReLU())
    assert [n for n, _ in model.named_children()] == ["0", "1"]
    assert [n for n, _ in model.named_modules()] == ["", "0", "0.0", "1"]


def test_get_submodule_suggests_a_name():
    with pytest.raises(ConfigError, match=r"no part 'frist'\. Did you mean 'first'"):
        Net().get_submodule("frist")


def test_a_module_used_twice_is_one():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert [n for n, _ in model.named_modules()] == ["", "0", "1"]
    assert sorted(model.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert model.get_submodule("2") is layer
    assert model.parameter_count() == 12


def test_a_part_that_refers_to_the_whole_is_no_endless_loop():
    net = Net()
    net.first.owner = net
    assert [n for n, _ in net.named_modules()] == ["", "first", "rest.0", "rest.1.last"]
    assert "first.owner.scale" not in net.state_dict()


def test_modules_inside_other_stateful_objects_are_found():
    class Holder(Stateful):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

    net = nn.Module()
    net.holder = Holder()
    assert [n for n, _ in net.named_parameters()] == ["holder.layer.weight", "holder.layer.bias"]


# -- modes, freezing, dtypes


def test_train_and_eval_reach_everything():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())


def test_freezing():
    net = Net()
    net.first.requires_grad_(False)
    _, grads = cr.value_and_grad(lambda m: total(m(rows())))(net)
    assert "first.weight" not in grads and "rest.0.weight" in grads
    total(net(rows())).backward()
    assert net.first.weight.grad is None and net.rest[0].weight.grad is not None
    assert net.parameter_count(trainable_only=True) == net.parameter_count() - 16
    assert [n for n, _ in net.named_parameters()][1] == "first.weight"  # still a parameter, and saved
    net.requires_grad_(True)
    _, grads = cr.value_and_grad(lambda m: total(m(rows())))(net)
    assert "first.weight" in grads


def test_a_wholly_frozen_model_keeps_no_history():
    net = Net().requires_grad_(False)
    assert not net(rows()).inputs


def test_zero_grad():
    net = Net()
    total(net(rows())).backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_to_converts_floats_only_and_keeps_what_is_trained():
    net = Net()
    net.register_buffer("count", cr.tensor(3))
    net.first.requires_grad_(False)
    net.to("float64")
    assert {p.dtype.name for p in net.parameters()} == {"float64"}
    assert net.offset.dtype.name == "float64" and net.count.dtype.name == "int64" and net.plain.dtype.name == "float32"
    assert net.scale.requires_grad and not net.scale.inputs and not net.first.weight.requires_grad
    with pytest.raises(DTypeError, match="int32 is not"):
        net.to("int32")


def test_apply_visits_the_inside_first():
    seen = []
    nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh()).apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["ReLU", "Sequential", "Tanh", "Sequential"]


def test_apply_can_set_weights():
    def ones(module):
        if isinstance(module, nn.Linear):
            module.weight = nn.init.ones(module.weight.shape)

    net = Net()
    net.apply(ones)
    assert net.rest[1]["last"].weight.tolist() == [[1.0] * 4]
    assert net.role("scale") == "parameter" and net.first.weight.requires_grad


# -- assign


def test_assign_makes_leaves_for_the_next_backward():
    net = Net()
    for _ in range(2):
        net.zero_grad()
        total(net(rows())).backward()
        net.assign({name: p - 0.01 * p.grad for name, p in net.named_parameters()})
        assert all(p.requires_grad and not p.inputs for p in net.parameters())
    net.assign({"offset": net.scale * 2})
    assert not net.offset.inputs and not net.offset.requires_grad


def test_assign_shares_nothing_with_another_model():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.assign(dict(a.named_parameters()))
    b.requires_grad_(False)
    assert b.weight.tolist() == a.weight.tolist() and a.weight.requires_grad


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        ({"wieght": cr.tensor([1.0])}, StateError, "no parameter or buffer 'wieght'. Did you mean 'weight'"),
        ({"weight": cr.tensor([1.0])}, ShapeError, r"'weight' has shape \(2, 2\); the new value has \(1,\)"),
        ({"bias": cr.tensor([1, 2])}, DTypeError, "'bias' is float32; the new value is int64"),
    ],
)
def test_assign_says_what_does_not_fit_and_changes_nothing(new, error, message):
    layer = nn.Linear(2, 2)
    before = layer.weight, layer.bias
    with pytest.raises(error, match=message):
        layer.assign({"bias": cr.tensor([5.0, 5.0]), **new} if "bias" not in new else new)
    assert (layer.weight, layer.bias)[0] is before[0] and layer.bias is before[1]


# -- copies, calls


def test_deepcopy_unties_from_the_original():
    net = Net()
    net.first.requires_grad_(False)
    other = copy.deepcopy(net)
    pairs = list(zip(net.parameters(), other.parameters(), strict=True))
    assert all(not np.shares_memory(np.asarray(a), np.asarray(b)) for a, b in pairs)
    other.scale = cr.tensor([9.0])
    other.first.requires_grad_(True)
    other.register_buffer("extra", cr.tensor([1.0]))
    assert net.scale.tolist() == [2.0] and net.role("scale") == "parameter"
    assert net.first.role("weight") == "frozen" and "extra" not in net.state_dict()
    assert other(rows()).shape == (5, 1)
    assert other.scale.requires_grad and not other.first.weight.inputs


def test_a_run_on_copies_leaves_the_records_of_the_original_alone():
    net = nn.Linear(2, 2)

    def add_a_parameter(m):
        m.extra = nn.Parameter(cr.tensor([1.0]))
        return total(m(rows(3, 2)))

    with pytest.raises(ChainruleError, match="added"):
        cr.value_and_grad(add_a_parameter)(net)
    assert net._parameters == {"weight": True, "bias": True}


def test_the_stack_of_modules_is_put_back_after_an_error():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(context.modules)
            raise ValueError("stop")

    class Outer(nn.Module):
        def __init__(self):
            self.spy = Spy()

        def forward(self, x):
            return self.spy(x)

    with pytest.raises(ValueError, match="stop"):
        Outer()(1)
    assert seen == [(("", "Outer"), ("", "Spy"))] and context.modules == ()


def test_errors_name_the_path_in_a_traced_copy():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(5, 1)))
    with pytest.raises(ShapeError, match=r"Linear '.*1\.0' expects last axis 5, got shape \(2, 4\)"):
        cr.value_and_grad(lambda m: total(m(rows(2))))(model)
    with pytest.raises(ShapeError, match=r"^Linear expects last axis 5, got shape \(2, 4\)"):
        model(rows(2))


def test_a_traced_parameter_cannot_become_a_new_one():
    def f(x):
        return total(nn.Parameter(x))

    with pytest.raises(TracedValueError, match=r"nn\.Parameter needs the value"):
        cr.compile(f)(rows())


def test_repr_shows_the_tree():
    net = Net()
    net.rest = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Dropout(0.25))
    assert repr(net) == (
        "Net(width=4\n"
        "  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (rest): Sequential(\n"
        "    (0): Linear(in_features=4, out_features=1, bias=False)\n"
        "    (1): Dropout(p=0.25)\n"
        "  )\n"
        ")"
    )


def test_seed_starts_each_generator_afresh_by_seed_and_path():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    other = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    ones = cr.tensor(np.ones((200,), "float32"))
    model.seed(3)
    first = [model[0](ones).tolist(), model[1](ones).tolist()]
    assert first[0] != first[1]
    assert model[0](ones).tolist() != first[0]
    other.seed(3)
    assert [other[0](ones).tolist(), other[1](ones).tolist()] == first
    model.seed(4)
    assert model[0](ones).tolist() != first[0]
