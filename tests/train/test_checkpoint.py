"""Checkpoints keep every bit, notice every lost one, and survive kills."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chainrule.errors import CheckpointError, ConfigError, DTypeError
from chainrule.train import checkpoint as module
from chainrule.train.checkpoint import (
    CheckpointWarning,
    delete_checkpoints_after,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)

# The library under test is the one that this process imported, wherever it lies.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


DTYPES = [
    np.dtype(name)
    for name in (
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    )
] + [np.dtype(ml_dtypes.bfloat16)]


def some_tensors() -> dict[str, np.ndarray]:
    return {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "step": np.array(7),
        "empty": np.zeros((0, 4)),
        "moments": np.arange(3).astype(ml_dtypes.bfloat16),
        "mask": np.array([True, False, True]),
    }


def assert_same_bits(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].shape == right[name].shape
        assert left[name].tobytes() == right[name].tobytes()


@st.composite
def arrays(draw):
    """Any bits at all, NaN payloads included, in any layout."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    count = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=count, max_size=count))
    if dtype.kind == "b":
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(raw, dtype).reshape(shape)
    return draw(
        st.sampled_from(
            [array, array.T, array[..., ::-1] if array.ndim else array, array[::2] if array.ndim else array]
        )
    )


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text().filter(lambda name: name != "__metadata__"), arrays(), max_size=5),
    st.integers(0, 10**12),
    st.booleans(),
)
def test_any_arrays_come_back_bit_for_bit(tmp_path_factory, tensors, step, best):
    folder = tmp_path_factory.mktemp("any")
    save_checkpoint(folder, step, tensors, {"a": [1.5, None]}, best=best)
    loaded = load_checkpoint(folder)
    assert_same_bits(loaded.tensors, tensors)
    assert (loaded.step, loaded.best, loaded.state) == (step, best, {"a": [1.5, None]})
    for array in loaded.tensors.values():
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)], ids=str)
def test_every_dtype_and_kind_of_shape(tmp_path, dtype, shape):
    tensors = {"x": np.arange(int(np.prod(shape)), dtype=np.int64).astype(dtype).reshape(shape)}
    save_checkpoint(tmp_path, 0, tensors, {})
    assert_same_bits(load_checkpoint(tmp_path).tensors, tensors)


def test_nan_payloads_and_signs_survive(tmp_path):
    tensors = {
        "f64": np.array([0x7FF0000000000001, 0xFFF8DEADBEEF0001, 0x8000000000000000], np.uint64).view(np.float64),
        "f32": np.array([0x7F800001, 0xFFC12345, 0x80000000], np.uint32).view(np.float32),
        "f16": np.array([0x7C01, 0xFE01, 0x8000], np.uint16).view(np.float16),
        "bf16": np.array([0x7F81, 0xFFC1, 0x8000], np.uint16).view(ml_dtypes.bfloat16),
    }
    save_checkpoint(tmp_path, 0, tensors, {})
    assert_same_bits(load_checkpoint(tmp_path).tensors, tensors)


def test_state_keeps_order_types_and_non_finite_floats(tmp_path):
    state = {
        "z": float("inf"),
        "a": -float("inf"),
        "deep": [{"n": None, "t": True, "i": 2**200, "f": -0.0, "s": "é\ud800"}],
    }
    save_checkpoint(tmp_path, 0, {}, {**state, "nan": float("nan")})
    loaded = load_checkpoint(tmp_path).state
    assert np.isnan(loaded.pop("nan"))
    assert loaded == state and list(loaded) == list(state)
    assert str(loaded["deep"][0]["f"]) == "-0.0"


def test_the_same_content_is_the_same_file(tmp_path):
    one = save_checkpoint(tmp_path / "one", 3, some_tensors(), {"a": 1})
    two = save_checkpoint(tmp_path / "two", 3, some_tensors(), {"a": 1})
    assert one.read_bytes() == two.read_bytes()


def test_the_file_is_valid_safetensors(tmp_path):
    tensors = some_tensors() | {"__ü": np.ones((2, 2), np.uint8)}
    path = save_checkpoint(tmp_path, 3, tensors, {"epoch": 4})
    described = dict(safetensors.deserialize(path.read_bytes()))
    assert described.keys() == tensors.keys()
    for name, entry in described.items():
        assert tuple(entry["shape"]) == tensors[name].shape
        assert bytes(entry["data"]) == tensors[name].tobytes()
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["step"] == "3"
        assert json.loads(file.metadata()["state"]) == {"epoch": 4}
        np.testing.assert_array_equal(file.get_tensor("weight"), tensors["weight"])


def test_last_best_and_given_steps(tmp_path):
    for step, best in [(0, True), (10, True), (20, False)]:
        save_checkpoint(tmp_path, step, {"x": np.array(step)}, {}, best=best)
    assert load_checkpoint(tmp_path).step == load_checkpoint(tmp_path, "last").step == 20
    assert load_checkpoint(tmp_path, "best").step == 10
    assert load_checkpoint(tmp_path, 0).tensors["x"] == 0
    assert load_checkpoint(tmp_path, np.int64(10)).tensors["x"] == 10
    assert [(info.step, info.best, info.damage) for info in list_checkpoints(tmp_path)] == [
        (0, True, ""),
        (10, True, ""),
        (20, False, ""),
    ]


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (999_999_999, 10**9, 5):
        save_checkpoint(tmp_path, step, {}, {})
    assert [info.step for info in list_checkpoints(tmp_path)] == [5, 999_999_999, 10**9]
    assert load_checkpoint(tmp_path).step == 10**9


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, 5, {"x": np.zeros(3)}, {"a": 1}, best=True)
    save_checkpoint(tmp_path, 5, {"y": np.ones(2)}, {"a": 2})
    loaded = load_checkpoint(tmp_path)
    assert (list(loaded.tensors), loaded.state, loaded.best) == (["y"], {"a": 2}, False)
    assert len(list_checkpoints(tmp_path)) == 1


def test_prune_keeps_the_last_and_the_best(tmp_path):
    for step in range(8):
        save_checkpoint(tmp_path, step, {}, {}, best=step in (1, 3))
    deleted = prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in deleted] == [f"step-00000000{step}.safetensors" for step in (0, 1, 2, 4, 5)]
    assert [info.step for info in list_checkpoints(tmp_path)] == [3, 6, 7]
    assert prune_checkpoints(tmp_path, keep=2) == []
    assert load_checkpoint(tmp_path, "best").step == 3


def test_prune_does_not_count_damaged_files_nor_delete_them(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {"x": np.zeros(9)}, {})
    for step in (1, 4):
        cut(tmp_path, step, 3)
    prune_checkpoints(tmp_path, keep=2)
    assert [(info.step, bool(info.damage)) for info in list_checkpoints(tmp_path)] == [
        (1, True),
        (2, False),
        (3, False),
        (4, True),
    ]


def test_delete_after_removes_later_ones_newest_first(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {}, {})
    cut(tmp_path, 4, 3)
    assert [path.name[-13] for path in delete_checkpoints_after(tmp_path, 1)] == ["4", "3", "2"]
    assert [info.step for info in list_checkpoints(tmp_path)] == [0, 1]


def cut(folder, step, lost):
    path = folder / f"step-{step:09d}.safetensors"
    path.write_bytes(path.read_bytes()[:-lost])


def test_every_truncation_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path, 0, some_tensors(), {"a": 1})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"intact"):
            load_checkpoint(tmp_path)
        assert list_checkpoints(tmp_path)[0].damage
    for longer in (content + b"\0", content + content):
        path.write_bytes(longer)
        with pytest.raises(CheckpointError, match=r"intact"):
            load_checkpoint(tmp_path)
        assert list_checkpoints(tmp_path)[0].damage


def test_every_single_bit_flip_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path, 0, some_tensors(), {"a": [1.5, "text"]}, best=True)
    content = path.read_bytes()
    for position, bit in itertools.product(range(len(content)), range(8)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"intact|damaged"):
            load_checkpoint(tmp_path)
        assert len(list_checkpoints(tmp_path)) == 1  # whatever the header says now, listing does not break
    path.write_bytes(content)
    assert_same_bits(load_checkpoint(tmp_path).tensors, some_tensors())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_foreign_content_is_noticed(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "step-000000000.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"intact"):
        load_checkpoint(folder)
    assert list_checkpoints(folder)[0].damage


def test_a_safetensors_file_of_somebody_else_is_noticed(tmp_path):
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "step-000000000.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not begin as a checkpoint of chainrule"):
        load_checkpoint(tmp_path)


def test_a_damaged_last_one_falls_back_and_says_so(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"x": np.full(9, step)}, {})
    cut(tmp_path, 3, 8)
    with pytest.warns(CheckpointWarning, match=r"step-000000003.safetensors is damaged: .*checksum.* step 2 is used"):
        assert load_checkpoint(tmp_path).tensors["x"][0] == 2
    with pytest.raises(CheckpointError, match=r"step-000000003.safetensors is damaged.*Others in its folder: 1, 2"):
        load_checkpoint(tmp_path, 3)
    cut(tmp_path, 2, 1)
    with pytest.warns(CheckpointWarning, match=r"000000003.*000000002.*step 1 is used"):
        assert load_checkpoint(tmp_path).step == 1
    cut(tmp_path, 1, 1)
    with pytest.raises(CheckpointError, match=r"None of the checkpoints.*intact.*000000003.*000000001"):
        load_checkpoint(tmp_path)


def test_a_damaged_best_one_falls_back_to_the_best_before(tmp_path):
    for step, best in [(1, True), (2, False), (3, True), (4, False)]:
        save_checkpoint(tmp_path, step, {"x": np.full(9, step)}, {}, best=best)
    cut(tmp_path, 3, 8)
    with pytest.warns(CheckpointWarning, match=r"000000003.*step 1 is used"):
        assert load_checkpoint(tmp_path, "best").step == 1
    cut(tmp_path, 1, 8)
    with pytest.raises(CheckpointError, match=r"No intact checkpoint .* best.*Try the last one"):
        load_checkpoint(tmp_path, "best")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(tmp_path, "last").step == 4


def test_a_renamed_checkpoint_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path, 1, {}, {})
    path.rename(tmp_path / "step-000000009.safetensors")
    with pytest.raises(CheckpointError, match=r"holds step 1, so it was renamed"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_a_later_version_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {}, {})
    with monkeypatch.context() as patch:
        patch.setattr(module, "_FORMAT", "chainrule checkpoint 2")
        save_checkpoint(tmp_path, 2, {}, {})
    with pytest.raises(CheckpointError, match=r"'chainrule checkpoint 2'.*Install the version"):
        load_checkpoint(tmp_path)
    prune_checkpoints(tmp_path, keep=1)
    assert [info.step for info in list_checkpoints(tmp_path)] == [1, 2]


def test_nothing_to_load(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no folder"):
        load_checkpoint(tmp_path / "no")
    with pytest.raises(CheckpointError, match=r"There are no checkpoints"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, 5, {}, {})
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 6 .* There are: 5"):
        load_checkpoint(tmp_path, 6)
    with pytest.raises(CheckpointError, match=r"No checkpoint .* best"):
        load_checkpoint(tmp_path, "best")


@pytest.mark.parametrize("step", [-1, 1.0, True, "3", None])
def test_a_step_is_a_count(tmp_path, step):
    with pytest.raises(ConfigError, match=r"count from 0"):
        save_checkpoint(tmp_path, step, {}, {})


@pytest.mark.parametrize("step", ["first", 1.5, True])
def test_a_wrong_choice_is_named(tmp_path, step):
    save_checkpoint(tmp_path, 1, {}, {})
    with pytest.raises(ConfigError, match=r"'last' or 'best'"):
        load_checkpoint(tmp_path, step)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros(2, ">f4"), DTypeError, "little-endian"),
        (np.zeros(2, np.complex64), DTypeError, "complex64"),
        (np.array([object()]), DTypeError, "cannot hold"),
        (np.array(["text"]), DTypeError, "cannot hold"),
        ([1.0, 2.0], DTypeError, "'x' is of type list, not a NumPy array"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path, array, error, message):
    with pytest.raises(error, match=message):
        save_checkpoint(tmp_path / "new", 0, {"x": array}, {})
    assert not (tmp_path / "new").exists()


def test_wrong_names_and_states_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"__metadata__"):
        save_checkpoint(tmp_path, 0, {"__metadata__": np.zeros(1)}, {})
    with pytest.raises(ConfigError, match=r"state\['x'\] is of type ndarray.*among the tensors"):
        save_checkpoint(tmp_path, 0, {}, {"x": np.zeros(1)})
    with pytest.raises(ConfigError, match=r"is a dict, not list"):
        save_checkpoint(tmp_path, 0, {}, [])
    with pytest.raises(ConfigError, match=r"at least 1"):
        prune_checkpoints(tmp_path, 0)


def test_a_full_disk_is_one_of_our_errors_and_the_others_stay(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, some_tensors(), {})

    def full(path, content, sync):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "atomic_write", full)
    with pytest.raises(CheckpointError, match=r"step 2 could not be written.*No space left.*Those saved before"):
        save_checkpoint(tmp_path, 2, some_tensors(), {})
    assert load_checkpoint(tmp_path).step == 1


def test_loading_takes_no_more_memory_than_the_file(tmp_path):
    path = save_checkpoint(tmp_path, 0, some_tensors(), {})
    loaded = load_checkpoint(tmp_path)
    bases = {id(array.base if array.base is not None else array) for array in loaded.tensors.values()}
    assert len(bases) == 1
    assert loaded.tensors["weight"].base.nbytes == path.stat().st_size


# A state of step n is a few arrays that are functions of n alone, so that a loaded one can be proven complete.
SAVE_FOREVER = """
import sys
import numpy as np
from chainrule.train.checkpoint import list_checkpoints, prune_checkpoints, save_checkpoint

folder = sys.argv[1]
step = max([info.step for info in list_checkpoints(folder)], default=-1)
while True:
    step += 1
    rng = np.random.default_rng(step)
    tensors = {"weight": rng.random((40, 50), np.float32), "moment": rng.random(30_000), "count": np.array(step)}
    save_checkpoint(folder, step, tensors, {"step": step, "loss": float("inf")}, best=step % 3 == 0)
    prune_checkpoints(folder, keep=2)
    print(step, flush=True)
"""


def assert_complete(loaded):
    rng = np.random.default_rng(loaded.step)
    assert_same_bits(
        loaded.tensors,
        {"weight": rng.random((40, 50), np.float32), "moment": rng.random(30_000), "count": np.array(loaded.step)},
    )
    assert loaded.state == {"step": loaded.step, "loss": float("inf")}


def test_killed_at_random_moments_while_saving_in_a_loop(tmp_path):
    moments = np.random.default_rng(0)
    acknowledged = -1
    for _ in range(10):
        process = start(SAVE_FOREVER, tmp_path)
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.08))
        process.kill()
        rest, _ = process.communicate()
        acknowledged = max(acknowledged, *(int(line) for line in (first + rest).splitlines()))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a kill never damages a checkpoint: no fallback is needed
            last, best = load_checkpoint(tmp_path), load_checkpoint(tmp_path, "best")
        assert_complete(last)
        assert_complete(best)
        assert acknowledged <= last.step <= acknowledged + 1
        assert best.step == last.step - last.step % 3
    save_checkpoint(tmp_path, acknowledged + 5, {}, {})
    assert not list(tmp_path.glob(".*"))
    assert acknowledged >= 9  # each of the processes did get on


def test_reading_while_another_process_saves_and_prunes(tmp_path):
    process = start(SAVE_FOREVER, tmp_path)
    errors: list[BaseException] = []
    steps: dict[str, list[int]] = {"last": [], "best": []}

    def read(which):
        try:
            begin = time.monotonic()
            while time.monotonic() < begin + (2 if len(set(steps[which])) > 2 else 60):
                loaded = load_checkpoint(tmp_path, which)
                assert_complete(loaded)
                steps[which].append(loaded.step)
                list_checkpoints(tmp_path)
        except BaseException as error:
            errors.append(error)

    try:
        process.stdout.readline()
        threads = [threading.Thread(target=read, args=(which,)) for which in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        process.kill()
        process.communicate()
    assert errors == []
    for seen in steps.values():
        assert seen == sorted(seen) and len(set(seen)) > 2
