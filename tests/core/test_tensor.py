"""Tensors as values: making them, NumPy and DLPack interop, representation, what they refuse."""

import copy
import gc
import pickle

import ml_dtypes
import numpy as np
import pytest

from chainrule import dtypes, errors
from chainrule.compile import compile
from chainrule.core.tensor import Tensor, full, tensor


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1.5, "float32", ()),
        ([1.0, 2.0], "float32", (2,)),
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        (True, "bool", ()),
        ([], "float32", (0,)),
        (np.ones(3), "float64", (3,)),
        (np.float16(2), "float16", ()),
        (np.zeros((2, 0), np.uint8), "uint8", (2, 0)),
        (np.ones(2, ml_dtypes.bfloat16), "bfloat16", (2,)),
    ],
)
def test_dtype_and_shape_follow_the_data(data, dtype, shape):
    x = tensor(data)
    assert (x.dtype.name, x.shape) == (dtype, shape)


def test_python_floats_become_float32_and_arrays_keep_their_dtype():
    assert tensor([1.0]).dtype == dtypes.float32
    assert tensor(np.array([1.0])).dtype == dtypes.float64


def test_the_data_is_copied():
    source = np.ones(3)
    x = tensor(source)
    source[0] = 5
    assert x.tolist() == [1, 1, 1]


def test_asarray_is_a_read_only_view_and_numpy_a_copy():
    x = tensor([1.0, 2.0])
    view = np.asarray(x)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 9
    free = x.numpy()
    free[0] = 9
    assert x.tolist() == [1, 2]
    assert np.asarray(x, np.float64).dtype == np.float64


def test_numpy_operands_make_tensors():
    result = np.ones(2, np.float32) + tensor([1.0, 2.0])
    assert isinstance(result, Tensor)
    assert result.tolist() == [2, 3]


def test_dlpack_goes_both_ways():
    x = tensor([[1.0, 2.0], [3.0, 4.0]])
    out = np.from_dlpack(x)
    np.testing.assert_array_equal(out, np.asarray(x))
    assert tensor(np.from_dlpack(out)).tolist() == x.tolist()


@pytest.mark.parametrize("bad", ["complex64", "int8", "S3", "nonsense", object])
def test_an_unsupported_dtype_is_named(bad):
    with pytest.raises(errors.DTypeError, match="Supported: bool, uint8"):
        tensor([1.0], dtype=bad)


def test_ragged_lists_are_refused():
    with pytest.raises(errors.ShapeError, match="different lengths"):
        tensor([[1.0], [1.0, 2.0]])


def test_integers_have_no_gradient():
    with pytest.raises(errors.DTypeError, match="Only floating-point"):
        tensor([1, 2], requires_grad=True)


def test_scalars_convert_and_others_say_why_not():
    assert float(tensor(2.5)) == 2.5
    assert int(tensor([3])) == 3
    assert [10, 20, 30][tensor(1)] == 20
    assert bool(tensor(1.0))
    with pytest.raises(errors.ShapeError, match="one element"):
        float(tensor([1.0, 2.0]))
    with pytest.raises(errors.DTypeError, match="integer"):
        [1, 2][tensor(1.0)]


def test_tensors_are_immutable():
    with pytest.raises(TypeError, match="immutable"):
        tensor([1.0])[0] = 2.0


def test_repr_shows_values_shape_and_dtype():
    assert repr(tensor([1.0, 2.5])) == "Tensor([1. , 2.5], shape=(2,), dtype=float32)"
    assert "requires_grad=True" in repr(tensor(1.0, requires_grad=True))
    assert "..." in repr(tensor(np.zeros(1000)))


@pytest.mark.parametrize("use", [bool, float, int, np.asarray, lambda x: x.numpy(), lambda x: 1 if x > 0 else 2])
def test_a_traced_tensor_has_no_value_and_says_where_one_was_needed(use):
    with pytest.raises(errors.TracedValueError, match=r"line \d+ of .*test_tensor.py.*cr.where"):
        compile(lambda x: use(x) and x)(tensor(1.0))


def test_copies_and_pickles_keep_value_and_leafhood():
    x = tensor([1.0, 2.0], requires_grad=True)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.tolist() == [1, 2]
        assert twin.requires_grad
        assert twin is not x


def test_a_constant_takes_the_memory_of_one_element():
    x = full((1000, 1000), 3, dtypes.float32)
    assert x.value.strides == (0, 0)
    assert float((x + 0)[0, 0]) == 3
    with pytest.raises(errors.DTypeError, match="does not fit"):
        full((2,), 300, dtypes.uint8)


def test_an_eager_loop_keeps_no_history():
    x = tensor([1.0])
    gc.collect()
    before = sum(isinstance(o, Tensor) for o in gc.get_objects())
    for _ in range(100):
        x = x * 1.01 + 0.1
    gc.collect()
    assert sum(isinstance(o, Tensor) for o in gc.get_objects()) <= before + 1
    assert x.inputs == ()
