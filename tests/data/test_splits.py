"""Which rows train, validate and test: a partition, of the right sizes, the same for a seed for ever."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.data.splits import split
from chainrule.errors import ConfigError

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.3])


@given(st.integers(5, 400), st.integers(0, 2**64 - 1), SHARES, SHARES)
@settings(deadline=None, max_examples=100)
def test_split_is_a_partition_of_the_right_sizes(rows, seed, validation, test):
    parts = split(seed, rows, None, validation, test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert len(parts.train) >= 1
    assert len(parts.validation) == max(round(rows * validation), math.ceil(validation))
    assert len(parts.test) == max(round(rows * test), math.ceil(test))
    again = split(seed, rows, None, validation, test)
    assert all((one == two).all() for one, two in zip(parts, again, strict=True))


@given(st.lists(st.integers(0, 4), min_size=5, max_size=300), st.integers(0, 1000))
@settings(deadline=None, max_examples=100)
def test_stratified_split_keeps_shares_and_trains_every_class(labels, seed):
    labels = np.array(labels)
    parts = split(seed, len(labels), labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert set(labels[parts.train]) == set(labels)
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        assert (labels[parts.test] == label).sum() <= math.ceil(0.1 * size) + 1
        if size >= 20:
            assert (labels[parts.test] == label).sum() >= math.floor(0.1 * size) - 1


def test_a_row_is_always_left_to_train_on():
    assert len(split(0, 6, None, 0.45, 0.45).train) == 1
    labels = np.arange(6)
    assert split(0, 6, labels, 0.3, 0.3).train.tolist() == labels.tolist()


def test_split_depends_on_the_seed_and_shuffles():
    one, two = split(0, 1000), split(1, 1000)
    assert (one.test != two.test).any()
    assert abs(one.test.mean() - 500) < 100


def test_split_is_pinned():
    """The split of a seed never changes: a saved run must find its own test rows again."""
    assert split(0, 20).test.tolist() == [0, 2]
    assert split(7, 20, np.arange(20) % 2).test.tolist() == [1, 8]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (0.1, 1.0), (float("nan"), 0.1)])
def test_shares_that_leave_nothing(shares):
    with pytest.raises(ConfigError, match="shares of the rows"):
        split(0, 100, None, *shares)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_have_64_bits(seed):
    with pytest.raises(ConfigError, match="seed"):
        split(seed, 100)
