"""Numbers and dates, as people and spreadsheets write them, and their standardisation."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.data import parsing
from chainrule.data.columns import Scale


@pytest.mark.parametrize(
    ("texts", "decimal", "values", "notation"),
    [
        (["1", "2.5", "-3e2"], None, [1, 2.5, -300], "plain"),
        (["1,234", "2,000.5", "7"], None, [1234, 2000.5, 7], "thousands commas"),
        (["1,5", "2", "0,25"], None, [1.5, 2, 0.25], "decimal comma"),
        (["1.234,5", "2.000", "7"], None, [1234.5, 2000, 7], "decimal comma"),
        (["1,234", "2,000"], ",", [1.234, 2.0], "decimal comma"),
        (["1.001", "0.99"], ",", [1.001, 0.99], "plain"),
        (["$1,200", "5 %", "-€3", "−4"], None, [1200, 5, -3, -4], "thousands commas"),
        (["1 234", "1'234.5", "1\u202f234\u202f567"], None, [1234, 1234.5, 1234567], "plain"),
    ],
)
def test_notations_of_numbers(texts, decimal, values, notation):
    read = parsing.numbers(pl.Series("n", texts), decimal)
    assert read.values.tolist() == values
    assert read.notation == notation
    assert not read.bad.any()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(deadline=None, max_examples=100)
def test_numbers_written_by_python_are_read_exactly(values):
    read = parsing.numbers(pl.Series("n", [repr(value) for value in values]))
    assert read.values.tolist() == values


@pytest.mark.parametrize(
    ("texts", "dates"),
    [
        (["2020-02-28", "2021-03-01"], [(2020, 2, 28), (2021, 3, 1)]),
        (["28.02.2020", "01.03.2021"], [(2020, 2, 28), (2021, 3, 1)]),
        (["28/2/2020", "1/3/2021"], [(2020, 2, 28), (2021, 3, 1)]),
        (["2/28/2020", "3/1/2021"], [(2020, 2, 28), (2021, 3, 1)]),
        (["Feb 28, 2020", "Mar 1, 2021"], [(2020, 2, 28), (2021, 3, 1)]),
        (["2/28/20", "3/1/21"], [(2020, 2, 28), (2021, 3, 1)]),
        (["2020-02-28T23:30:00+01:00", "2021-03-01T00:00:00Z"], [(2020, 2, 28), (2021, 3, 1)]),
    ],
)
def test_ways_of_writing_dates(texts, dates):
    read = parsing.dates(pl.Series("d", texts))
    assert [(date.year, date.month, date.day) for date in read.values] == dates


@pytest.mark.parametrize("texts", ["1.2.3 1.2.4", "5-6 7-8", "10.0.0.1 10.0.0.2", "1.5 2.5", "room5 room6", "20200101"])
def test_what_is_no_date(texts):
    assert parsing.dates(pl.Series("d", texts.split())).form is None


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=30))
@settings(deadline=None, max_examples=300)
def test_scale_never_overflows(values):
    scale = Scale.fit(np.array(values))
    if scale is not None:
        assert scale.deviation > 0 and math.isfinite(scale.mean) and math.isfinite(scale.deviation)
        assert not np.isnan(scale.apply(np.array([*values, 1.7e308, -1.7e308, math.nan]))).any()
