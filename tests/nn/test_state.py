import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.errors import StateError, TracedValueError


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and a[k].tolist() == b[k].tolist() for k in a)


def test_state_dict_has_pytorchs_names_and_no_history():
    state = model().state_dict()
    assert list(state) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
        "3.weight", "3.bias",
    ]  # fmt: skip
    assert not any(x.requires_grad or x.inputs for x in state.values())


def test_state_dict_is_a_snapshot():
    m = model()
    state = m.state_dict()
    before = {k: x.tolist() for k, x in state.items()}
    m(cr.tensor(np.ones((5, 3), "float32")))
    m.assign({"0.bias": cr.tensor([9.0] * 4)})
    assert {k: x.tolist() for k, x in state.items()} == before


def test_round_trip():
    a, b = model(), model()
    assert not same(a, b)
    report = b.load_state_dict(a.state_dict())
    assert same(a, b) and report == ([], []) and report.converted == {}


def test_the_loaded_model_trains():
    m = model()
    m.load_state_dict(model().state_dict())
    m[0].requires_grad_(False)
    m.load_state_dict(model().state_dict())
    y = m(cr.tensor(np.ones((5, 3), "float32")))
    (y * y).sum().backward()
    assert m[3].weight.grad is not None and m[0].weight.grad is None and m[0].role("weight") == "frozen"


def test_arrays_are_taken_and_dtypes_converted():
    m = model()
    state = {k: np.asarray(x, "float64" if x.dtype == "float32" else "int32") for k, x in model().state_dict().items()}
    report = m.load_state_dict(state)
    assert report.converted["0.weight"] == "float64 to float32"
    assert report.converted["1.num_batches_tracked"] == "int32 to int64"
    assert "converted=" in repr(report)
    assert m[0].weight.dtype.name == "float32" and m[1].num_batches_tracked.dtype.name == "int64"
    np.testing.assert_array_equal(m[0].weight.numpy(), state["0.weight"].astype("float32"))


def test_later_writes_to_a_loaded_array_do_not_reach_the_model():
    layer, weight = nn.Linear(2, 1), np.ones((1, 2), "float32")
    layer.load_state_dict({"weight": weight, "bias": np.zeros(1, "float32")})
    weight[:] = 7
    assert layer.weight.tolist() == [[1.0, 1.0]]


def test_one_message_says_everything_and_nothing_is_loaded():
    m = model()
    before = m.state_dict()
    state = model().state_dict()
    state["0.wieght"] = state.pop("0.weight")
    state["3.weight"] = cr.tensor(np.ones((2, 5), "float32"))
    state["1.num_batches_tracked"] = cr.tensor(1.5)
    state["3.bias"] = cr.tensor([5.0, 5.0])
    with pytest.raises(StateError) as caught:
        m.load_state_dict(state)
    assert str(caught.value) == (
        "The state does not fit Sequential; nothing was loaded.\n"
        "  missing (1): 0.weight of shape (4, 3)\n"
        "  unexpected (1): 0.wieght Did you mean '0.weight'?\n"
        "  does not fit (2): 1.num_batches_tracked is float32 in the state and int64 in the model; "
        "3.weight has shape (2, 5) in the state and (2, 4) in the model"
    )
    after = m.state_dict()
    assert all(before[k].tolist() == after[k].tolist() for k in before)


def test_long_lists_are_cut():
    big = nn.Sequential(*[nn.Linear(1, 1) for _ in range(20)])
    with pytest.raises(StateError, match=r"missing \(40\): .*and 30 more"):
        big.load_state_dict({})


def test_not_strict_reports_names_but_shapes_must_fit():
    m = model()
    missing, unexpected = report = m.load_state_dict({"0.bias": [1.0, 2.0, 3.0, 4.0], "extra": [1.0]}, strict=False)
    assert unexpected == ["extra"] == report.unexpected_keys and "0.weight" in missing == report.missing_keys
    assert m[0].bias.tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(StateError) as caught:
        m.load_state_dict({"0.bias": [1.0]}, strict=False)
    assert "does not fit" in str(caught.value) and "missing" not in str(caught.value)


def test_what_is_no_tensor():
    with pytest.raises(StateError, match="weight of the state is no tensor or array"):
        nn.Linear(1, 1).load_state_dict({"weight": "abc", "bias": [0.0]})


def test_buffers_that_are_not_persistent_are_not_saved():
    m = nn.Linear(1, 1)
    m.register_buffer("scratch", cr.tensor([1.0]), persistent=False)
    assert "scratch" not in m.state_dict()
    m.load_state_dict({"weight": [[1.0]], "bias": [1.0]})
    with pytest.raises(StateError, match=r"unexpected \(1\): scratch"):
        m.load_state_dict({"weight": [[1.0]], "bias": [1.0], "scratch": [1.0]})


def test_files(tmp_path):
    a, b = model(), model()
    a(cr.tensor(np.ones((5, 3), "float32")))
    a.save(tmp_path / "weights.safetensors")
    assert [f.name for f in tmp_path.iterdir()] == ["weights.safetensors"]
    b.load(tmp_path / "weights.safetensors")
    assert same(a, b) and b[1].num_batches_tracked.item() == 1


@settings(max_examples=20, deadline=None)
@given(
    dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "uint32", "bool"]),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
def test_every_dtype_and_shape_survives_a_file(tmp_path_factory, dtype, shape):
    m, other = nn.Module(), nn.Module()
    values = np.random.default_rng(0).normal(size=shape) * 3
    m.register_buffer("x", cr.tensor(np.abs(values)).astype(dtype))
    other.register_buffer("x", cr.tensor(np.zeros(shape)).astype(dtype))
    path = tmp_path_factory.mktemp("state") / "x.safetensors"
    m.save(path)
    other.load(path)
    assert other.x.dtype == m.x.dtype and other.x.shape == tuple(shape)
    assert np.asarray(other.x).tobytes() == np.asarray(m.x).tobytes()


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    model().save(path)
    before = path.read_bytes()
    broken = model()
    traced = cr.compile(lambda m: m[0].weight.sum() if m.save(path) is None else 0)
    with pytest.raises(TracedValueError):
        traced(broken)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_files_that_cannot_be_loaded(tmp_path):
    (tmp_path / "junk").write_bytes(b"not a safetensors file")
    with pytest.raises(StateError, match="no intact safetensors file"):
        model().load(tmp_path / "junk")
    with pytest.raises(StateError, match="cannot be read"):
        model().load(tmp_path / "absent")


def test_importing_nn_does_not_load_safetensors():
    code = "import chainrule.nn, sys; sys.exit('safetensors' in sys.modules)"
    source = str(Path(nn.__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}).returncode == 0
