"""Features: their scale, outliers, those that are constant or there twice."""

import itertools

import numpy as np

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.gradients import matrices
from chainrule.diagnosis.words import counted, layer_named, listed, number

Array = np.ndarray

LARGE, SMALL = 10.0, 0.01
"""First weights are made for inputs of about unit size (Glorot and Bengio, 2010; He et al., 2015). Curvature grows with
the square of the size of an input (LeCun et al., "Efficient BackProp", 1998, section 4.3): beyond a factor of ten steps
along other features have to be a hundred times smaller than they could be."""

OUTLYING = 10.0
"""An outlier lies this many times as far out as 99 % of the values, and is large for the network, too."""

SPARSE = 0.25
"""Where so many values are 0 and none is negative (pixels, counts, one column a word), features that are always 0 are
to be expected."""


def inputs(case: Case) -> tuple[Array, str, str] | None:
    """What the first layer with weights gets, its path and class: of all rows, where it gets them as they are."""
    if case.before is None:
        return None
    layer = next((x for x in case.before.layers if matrices(case.before, x)), None)
    if layer is None or layer.input is None or layer.layer.startswith("Embedding"):
        return None
    seen, x = layer.input, case.x
    whole = (
        isinstance(x, np.ndarray) and x.dtype.kind == "f" and case.rows is not None and x.shape[1:] == seen.shape[1:]
    )
    if whole and np.allclose(x[case.rows], seen, rtol=1e-5, atol=0):
        return x, layer.path, layer.layer
    return seen, layer.path, layer.layer


def scale(case: Case) -> list[Diagnosis]:
    """Inputs that are large, tiny, or of very different sizes."""
    given = inputs(case)
    if given is None or given[0].ndim < 2:
        return []
    x, path, layer = given
    wide = np.asarray(x, np.float64)
    table = x.ndim == 2
    size = np.sqrt(np.mean(wide**2, axis=0)) if table else np.atleast_1d(np.sqrt(np.mean(wide**2)))
    where = layer_named(path, layer)
    outlying = _outliers(case, wide, path) if table else []
    if outlying:
        return outlying
    large = np.flatnonzero(size > LARGE)
    if len(large):
        worst = int(large[np.argmax(size[large])])
        if table:
            column = wide[:, worst]
            what = f"{named(case, worst)} has mean {number(column.mean())} and deviation {number(column.std())}"
            rest = np.delete(size, large)
            evidence = [
                what,
                f"{counted(len(large), 'feature')} of {len(size)} are larger than {LARGE:g} (root mean square)",
            ]
            evidence += [f"the others are {number(float(np.median(rest)))} (median)"] if len(rest) else []
        else:
            evidence = [
                f"their root mean square is {number(float(size[0]))}, between {number(wide.min())} and "
                f"{number(wide.max())}"
            ]
        return [
            Diagnosis(
                "unscaled-inputs",
                "warning",
                path,
                f"{where} gets inputs that are not scaled: values of {number(float(size[worst]))}",
                tuple(evidence),
                "Scale each feature to mean 0 and deviation 1 by the training rows, (x − mean) / std; pixels to 0 … 1.",
            )
        ]
    if size.max() < SMALL and size.max() > 0:
        return [
            Diagnosis(
                "unscaled-inputs",
                "warning",
                path,
                f"{where} gets inputs that are not scaled: the largest feature is {number(float(size.max()))}",
                ("first weights are made for inputs of about 1: here the biases drown them",),
                "Scale each feature to mean 0 and deviation 1 by the training rows, (x − mean) / std.",
            )
        ]
    return []


def _outliers(case: Case, x: Array, path: str) -> list[Diagnosis]:
    """Single values far beyond all others of their feature."""
    if len(x) < 20:
        return []
    far, usual = np.abs(x).max(axis=0), np.quantile(np.abs(x), 0.99, axis=0, method="lower")
    found = np.flatnonzero((far > LARGE * OUTLYING) & (far > OUTLYING * usual) & (usual > 0))
    if not len(found):
        return []
    worst = int(found[np.argmax(far[found] / usual[found])])
    row = int(np.argmax(np.abs(x[:, worst])))
    return [
        Diagnosis(
            "unscaled-inputs",
            "warning",
            path,
            f"{named(case, worst)} has outliers: {number(x[row, worst])} in row {row}, while 99 % of the values are "
            f"below {number(float(usual[worst]))}",
            (f"{counted(len(found), 'feature')} of {x.shape[1]} {'is' if len(found) == 1 else 'are'} like this",),
            "Look at these rows: mistakes are to be mended; else clip the values, or take logarithms.",
        )
    ]


def table_of(case: Case) -> Array | None:
    """x, where it is a table of floating-point features."""
    x = case.x
    return x if isinstance(x, np.ndarray) and x.ndim == 2 and x.dtype.kind == "f" and len(x) > 1 else None


def is_sparse(x: Array) -> bool:
    """Whether columns of zeros are to be expected."""
    return bool(np.min(x) >= 0 and np.mean(x == 0) > SPARSE)


def constant(case: Case) -> list[Diagnosis]:
    """Features that have one value in all rows."""
    x = table_of(case)
    if x is None:
        return []
    low, high = x.min(axis=0), x.max(axis=0)
    found = np.flatnonzero((low == high) & ~((low == 0) & is_sparse(x)))
    if not len(found):
        return []
    what = [f"{named(case, int(i))} is always {number(float(low[i]))}" for i in found]
    everything = len(found) == x.shape[1]
    return [
        Diagnosis(
            "constant-features",
            "error" if everything else "warning",
            "",
            f"{'all' if everything else len(found)} of {counted(x.shape[1], 'feature')} "
            f"{'is' if len(found) == 1 else 'are'} constant: {listed(what)}",
            (f"no row of {len(x):,} differs there from the others",),
            "Leave them out, or find out what has made them constant.",
        )
    ]


def duplicated(case: Case) -> list[Diagnosis]:
    """Features that say the same as another one: equal but for scale and offset."""
    x = table_of(case)
    if x is None or len(x) < 8 or x.shape[1] < 2:
        return []
    wide = np.asarray(x, np.float64)
    std = wide.std(axis=0)
    varied = np.flatnonzero(std > 1e-12 * np.maximum(1, np.abs(wide).max(axis=0)))
    if len(varied) < 2 or _two_valued_everywhere(wide[:, varied]):
        return []
    z = (wide[:, varied] - wide[:, varied].mean(axis=0)) / std[varied]
    many = np.array([len(np.unique(z[:200, i])) > 2 for i in range(z.shape[1])])  # flags and levels may well coincide
    probe = np.random.Generator(np.random.Philox(key=0)).standard_normal(len(z)) @ z / np.sqrt(len(z))
    order = np.argsort(probe)
    pairs = []
    for a, b in itertools.pairwise(order):
        if many[a] and many[b] and abs(probe[a] - probe[b]) < 1e-4 and np.abs(z[:, a] - z[:, b]).max() < 1e-4:
            pairs.append((min(varied[a], varied[b]), max(varied[a], varied[b])))
    if not pairs:
        return []
    told = [f"{named(case, int(b))} = {named(case, int(a))}" for a, b in sorted(pairs)]
    return [
        Diagnosis(
            "duplicated-features",
            "warning",
            "",
            f"{counted(len(pairs), 'feature')} {'is' if len(pairs) == 1 else 'are'} there twice: {listed(told)}",
            (f"they are the same in all {len(x):,} rows, but for scale and offset",),
            "Leave one of each out: the network counts it twice, and weights say nothing about importance.",
        )
    ]


def _two_valued_everywhere(x: Array) -> bool:
    return all(len(np.unique(x[:200, i])) <= 2 for i in range(x.shape[1]))


def named(case: Case, column: int) -> str:
    """`feature 3 (rooms)`."""
    names = case.feature_names
    return f"feature {column} ({names[column]})" if column < len(names) else f"feature {column}"
