"""Data given as arrays: what is accepted, what is refused and how, and the order of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import dtypes
from chainrule.errors import ConfigError, DataError
from chainrule.train.batches import check_seed, read, row_order

X = np.arange(12.0).reshape(6, 2)
Y = np.arange(6)


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(1, 1000), rows=st.integers(1, 200))
def test_the_order_is_a_permutation_and_a_pure_function(seed, epoch, rows):
    order = row_order(seed, epoch, rows)
    assert sorted(order.tolist()) == list(range(rows))
    assert (row_order(seed, epoch, rows) == order).all()


def test_the_order_is_known_for_all_time():
    # Philox is specified to the bit; if these change, no run of an older version can be resumed
    assert row_order(0, 1, 10).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert row_order(1, 1, 10).tolist() != row_order(0, 1, 10).tolist() != row_order(0, 2, 10).tolist()


def test_every_position_is_equally_likely():
    firsts = np.bincount([row_order(0, epoch, 5)[0] for epoch in range(1, 2001)], minlength=5)
    assert (abs(firsts - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8)).all()


def test_without_shuffling_rows_stay_in_order():
    assert row_order(7, 3, 4, shuffle=False).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "0", None])
def test_a_seed_is_a_whole_number_of_64_bits(seed):
    with pytest.raises(ConfigError, match="seed"):
        check_seed(seed)


def test_batches_hold_the_rows_asked_for_and_the_last_one_what_is_left():
    data = read((X, Y))
    batches = list(data.in_order(4, dtypes.float32))
    assert [len(b.rows) for b in batches] == [4, 2]
    assert batches[1].x.tolist() == X[4:].tolist()
    assert batches[1].y.tolist() == [4, 5]
    batch = data.gather(np.array([3, 0]), dtypes.float32)
    assert batch.x.tolist() == [[6.0, 7.0], [0.0, 1.0]]
    assert batch.y.tolist() == [3, 0]
    assert batch.rows.tolist() == [3, 0]


def test_floats_take_the_dtype_of_the_model_and_integers_stay_what_they_are():
    ints = [np.arange(6).astype(d) for d in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "?")]
    data = read((tuple([X.astype(">f8"), X.astype(np.float16), *ints]), Y.astype(float)))
    batch = data.gather(np.array([1, 5]), dtypes.float32)
    expected = ["float32", "float32", "uint8", "int32", "int32", "int32", "int32", "uint32", "int64", "bool"]
    assert [a.dtype.name for a in batch.x] == expected
    assert all(a[1] == (1 if a.dtype == bool else 5) for a in batch.x[2:])
    assert batch.y.dtype == np.float32
    assert data.gather(slice(0, 2), dtypes.bfloat16).x[0].dtype == dtypes.bfloat16


def test_tuples_dicts_lists_and_tensors_are_data_too():
    data = read((({"image": X, "age": [1, 2, 3, 4, 5, 6]}, cr.tensor(X)), cr.tensor(Y)))
    batch = data.gather(np.array([2]), dtypes.float64)
    assert batch.x[0]["image"].tolist() == [[4.0, 5.0]]
    assert batch.x[0]["age"].tolist() == [3]
    assert batch.x[1].tolist() == [[4.0, 5.0]]


def test_data_without_targets():
    for data in (X, (X,), (X, None), X.tolist()):
        assert read(data).y is None
        assert read(data).rows == 6
    assert read({"a": X}).x["a"] is X


def test_memory_mapped_rows_are_read_a_batch_at_a_time(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = read((mapped, Y))
    assert data.x is mapped
    batch = data.gather(np.array([5, 1]), dtypes.float64)
    assert batch.x.tolist() == X[[5, 1]].tolist()


def test_weights_are_scaled_to_the_mean_1():
    data = read((X, Y), sample_weight=[1, 2, 3, 4, 5, 0])
    assert data.weight.mean() == 1
    assert data.weight[4] == 2
    assert read((X, Y, np.ones(6))).weight.tolist() == [1] * 6


@pytest.mark.parametrize(
    ("data", "weight", "error", "words"),
    [
        ((X, Y[:5]), None, DataError, "6 rows, but y of data has 5"),
        ((X[:0], Y[:0]), None, DataError, "no rows"),
        (({}, Y), None, None, None),
        ({}, None, DataError, "no array"),
        (np.float64(3), None, DataError, "single number"),
        ((np.array(["a", "b"]), [0, 1]), None, DataError, "holds no numbers but <U1, such as .*'a'"),
        (([[1.0, 2.0], [3.0]], [0, 1]), None, DataError, "different lengths"),
        ([X, Y], None, DataError, "list of 2 arrays"),
        ((X, Y, Y, Y), None, ConfigError, "tuple of 4"),
        ((X, Y, np.ones(6)), np.ones(6), ConfigError, "Give one"),
        ((X, Y), np.ones((6, 1)), DataError, r"\(6,\)"),
        ((X, Y), -np.ones(6), DataError, "not negative"),
        ((X, Y), np.zeros(6), DataError, "no row counts"),
        ((X, Y), [1, 1, np.nan, 1, 1, 1], DataError, "row 2"),
        ((X, Y.astype(np.uint64)), None, DataError, "uint64"),
    ],
)
def test_what_cannot_be_data_is_refused_with_a_reason(data, weight, error, words):
    if error is None:
        assert read(data, sample_weight=weight).rows == 6
        return
    with pytest.raises(error, match=words):
        read(data, sample_weight=weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_counted_and_the_first_is_named(value, monkeypatch):
    monkeypatch.setattr("chainrule.train.batches.SCANNED", 7)  # several blocks
    x = np.zeros((100, 3), np.float32)
    x[41, 2] = x[77, 0] = x[77, 1] = value
    with pytest.raises(DataError, match=r"x of data has 3 values .* row 41 .* at \[41, 2\]"):
        read((x, np.zeros(100)))
    y = np.zeros(100)
    y[99] = value
    with pytest.raises(DataError, match=r"y of validation has 1 value that is .* row 99 "):
        read((np.zeros((100, 3)), y), "validation")


def test_the_fingerprint_tells_data_apart():
    data = read((X, Y)).fingerprint()
    assert read((X.copy(), Y.copy())).fingerprint() == data
    other = X.copy()
    other[3, 1] += 1e-9
    assert read((other, Y)).fingerprint() != data
    assert read((X.astype(np.float32), Y)).fingerprint() != data
    assert read((X, Y), sample_weight=Y + 1).fingerprint() != data
    assert read((X, None)).fingerprint() != data
