"""Targets: classes that are rare, labels that look wrong, features that give the target away, rows in both parts."""

import math
from typing import Any

import numpy as np

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.data import is_sparse, named
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.words import counted, listed, share

Array = np.ndarray

MAJORITY = 0.9
"""A class with so many of the rows: always to answer it looks good, and nothing is learned of the others."""

NEIGHBOURS, AGREEING = 10, 9
"""A row is a suspect when so many of its nearest neighbours agree on another class. With wrong labels in a share r of
the rows this happens to about r · P(Binomial(10, 1 − r) ≥ 9) of them (7.5 % for r = 0.2). Where two classes merely
overlap, it is rarer: two normal distributions that overlap by 15 % come to 1.7 %."""

SUSPECT = 0.03
"""The share of suspects, less two standard errors, from which labels are called noisy."""

MOST_WRONG, UNCLEAR, BEYOND, ANYWHERE = 0.3, 6, 0.03, 0.7
"""Wrong labels lie anywhere, those of classes that overlap along their border. So nothing is said where more than 30 %
of the rows are at odds with their neighbours; where more rows than labels alone would make (the votes are binomial
then; by two standard errors and 3 %) have at most 6 votes for their favourite; or where rows with all but unanimous
neighbours are at odds with them less than 0.7 times as often as all rows: a quarter of it for two normal distributions
that overlap by 16 %."""

RECOGNISED = 0.5
"""Both classes must be recognisable by their neighbours: else the features say little, and nothing follows."""

QUERIES, REFERENCES, WIDEST = 1000, 4000, 4096

TELLING = 0.01
"""A feature that alone leaves less than this share of the errors of the majority guess (or of the variance)."""

TWINS = 0.05
"""The share of validation rows found among the training rows, from which it counts (beyond what chance makes)."""


def imbalance(case: Case) -> list[Diagnosis]:
    """One class has nearly all rows."""
    labels = case.labels
    if labels is None or case.weighted or len(labels) < 20:
        return []
    kinds, counts = np.unique(labels, return_counts=True)
    most = counts.max() / len(labels)
    if len(kinds) < 2 or most < MAJORITY:
        return []
    rare = int(counts.min())
    return [
        Diagnosis(
            "class-imbalance",
            "warning",
            "",
            f"{share(most)} of the rows are of class {kinds[counts.argmax()]}: always to answer that is right in "
            f"{share(most)}",
            (f"the rarest class, {kinds[counts.argmin()]}, has {counted(rare, 'row')} of {len(labels):,}",),
            "Try class_weight='balanced', and judge by F1 or AUC instead of accuracy (metrics=['f1', 'auc']).",
        )
    ]


# -- labels that look wrong


def noise(case: Case) -> list[Diagnosis]:
    """Rows among whose nearest neighbours (nearly) all agree on another class.

    Source: the idea of confident learning, Northcutt, Jiang and Chuang (2021), with nearest neighbours as the judge.
    """
    labels, x = case.labels, _rows_as_vectors(case.x)
    if labels is None or x is None or len(x) < 10 * NEIGHBOURS:
        return []
    kinds, classes = np.unique(labels, return_inverse=True)
    if not 2 <= len(kinds) <= 100:
        return []
    rows, votes = _votes(x, classes, len(kinds))
    own = votes[np.arange(len(rows)), classes[rows]] / NEIGHBOURS
    known = np.array([own[classes[rows] == k].mean() if (classes[rows] == k).any() else 0.0 for k in range(len(kinds))])
    favourite = votes.argmax(axis=1)
    unanimous, at_odds = votes.max(axis=1) >= AGREEING, favourite != classes[rows]
    if _along_borders(votes.max(axis=1), at_odds):
        return []
    suspect = unanimous & at_odds & (known[classes[rows]] >= RECOGNISED) & (known[favourite] >= RECOGNISED)
    found = float(suspect.mean())
    error = math.sqrt(max(found * (1 - found), 1e-12) / len(rows))
    if found - 2 * error < SUSPECT:
        return []
    order = rows[suspect]
    told = [
        f"row {i} is {kinds[classes[i]]}, its neighbours are {kinds[k]}"
        for i, k in zip(order, favourite[suspect], strict=True)
    ]
    return [
        Diagnosis(
            "label-noise",
            "warning",
            "",
            f"about {share(found)} of the rows look mislabelled: of their {NEIGHBOURS} nearest neighbours at least "
            f"{AGREEING} have one other label",
            (listed(told, 3), f"looked at {len(rows):,} rows; the classes are told apart well elsewhere"),
            "Look at these rows. Mend or drop wrong labels; or try label_smoothing=0.1 and early stopping.",
        )
    ]


def _along_borders(votes: Array, at_odds: Array) -> bool:
    """Whether classes overlap, rather than labels being wrong. `votes` are those for the favourite of each row."""
    wrong = float(at_odds.mean())
    unanimous = votes >= AGREEING
    if wrong > MOST_WRONG or not unanimous.any() or at_odds[unanimous].mean() < ANYWHERE * wrong:
        return True
    expected = sum(math.comb(NEIGHBOURS, i) * (1 - wrong) ** i * wrong ** (NEIGHBOURS - i) for i in range(UNCLEAR + 1))
    error = math.sqrt(expected * (1 - expected) / len(votes))
    return float(np.mean(votes <= UNCLEAR)) > expected + 2 * error + BEYOND


def _rows_as_vectors(x: Any) -> Array | None:
    """Rows as vectors whose distance means something: columns of a table on one scale, pixels as they are."""
    if (
        not isinstance(x, np.ndarray)
        or x.ndim < 2
        or x[0].size > WIDEST
        or (x.dtype.kind != "f" and x.dtype != np.uint8)
    ):
        return None
    rows = np.linspace(0, len(x) - 1, min(len(x), REFERENCES + QUERIES)).astype(np.int64)
    if x.ndim == 2 and x.dtype.kind == "f" and not is_sparse(x[rows]):
        std = x[rows].std(axis=0, dtype=np.float64)
        return np.asarray((x - x[rows].mean(axis=0)) / np.where(std > 0, std, 1), np.float64)
    return np.asarray(x, np.float64).reshape(len(x), -1)


def _votes(x: Array, classes: Array, kinds: int) -> tuple[Array, Array]:
    """Up to 1,000 rows, and for each how many of its nearest neighbours (itself left out) are of each class."""
    queries = np.unique(np.linspace(0, len(x) - 1, min(len(x), QUERIES)).astype(np.int64))
    references = np.unique(np.linspace(0, len(x) - 1, min(len(x), REFERENCES)).astype(np.int64))
    squares = np.sum(x[references] ** 2, axis=1)
    distance = squares - 2 * x[queries] @ x[references].T
    distance[queries[:, None] == references] = np.inf
    nearest = references[np.argpartition(distance, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]]
    votes = np.zeros((len(queries), kinds), np.int64)
    np.add.at(votes, (np.arange(len(queries))[:, None], classes[nearest]), 1)
    return queries, votes


# -- features that give the target away


def leakage(case: Case) -> list[Diagnosis]:
    """A single feature, of several, that all but is the target."""
    x = case.x
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] < 2 or len(x) < 50 or x.dtype.kind != "f":
        return []
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), REFERENCES)).astype(np.int64))
    labels = case.labels
    if labels is not None:
        left, how = _unexplained_classes(x[rows], labels[rows]), "of the errors of the majority guess"
    elif isinstance(case.y, np.ndarray) and case.y.dtype.kind == "f" and case.y.size == len(x):
        left, how = _unexplained_amounts(x[rows], case.y.reshape(-1)[rows]), "of the variance of the target"
    else:
        return []
    found = np.flatnonzero(left < TELLING)
    if not len(found) or len(found) * 2 > x.shape[1]:  # when most features can do it, the task is easy
        return []
    worst = found[np.argsort(left[found])]
    others = np.delete(left, found)
    return [
        Diagnosis(
            "leakage",
            "warning",
            "",
            f"{listed([named(case, int(i)) for i in worst])} alone {'tells' if len(found) == 1 else 'tell'} the target "
            f"almost perfectly: it leaves {share(float(left[worst[0]]))} {how}",
            (f"the best of the other features leaves {share(float(others.min()))}",),
            "Is it known before the target is? If it is made from the target, or noted after it, leave it out.",
        )
    ]


def _unexplained_classes(x: Array, labels: Array) -> Array:
    """By feature: the errors of guessing each row by those next to it in the order of that feature alone, as a share of
    those of the majority guess. Rows with equal values are guessed by the others of that value."""
    _, classes = np.unique(labels, return_inverse=True)
    kinds = int(classes.max()) + 1
    guess = len(classes) - np.bincount(classes).max()
    if kinds < 2 or guess < 10:
        return np.ones(x.shape[1])
    one = np.eye(kinds)[classes]
    left = np.ones(x.shape[1])
    for i in range(x.shape[1]):
        order = np.argsort(x[:, i], kind="stable")
        values, sorted_one = x[order, i], one[order]
        total = np.vstack([np.zeros(kinds), np.cumsum(sorted_one, axis=0)])
        begin, end = np.searchsorted(values, values, "left"), np.searchsorted(values, values, "right")
        place = np.arange(len(values))
        small = end - begin < 5
        begin, end = (
            np.where(small, np.maximum(place - 2, 0), begin),
            np.where(small, np.minimum(place + 3, len(values)), end),
        )
        votes = total[end] - total[begin] - sorted_one
        left[i] = np.sum(votes.max(axis=1) > (votes * sorted_one).sum(axis=1)) / guess  # a draw is no error
    return left


def _unexplained_amounts(x: Array, y: Array) -> Array:
    """By feature: the share of the variance of y that a straight line leaves."""
    y = np.asarray(y, np.float64) - np.mean(y, dtype=np.float64)
    z = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    size = np.sqrt(np.sum(z**2, axis=0) * np.sum(y**2))
    return np.asarray(1 - (np.divide(z.T @ y, size, out=np.zeros_like(size), where=size > 0)) ** 2)


def twins(case: Case) -> list[Diagnosis]:
    """Validation rows that are training rows, too: more of them than the training rows have twins among themselves."""
    if not isinstance(case.x, np.ndarray) or not isinstance(case.x_validation, np.ndarray):
        return []
    if case.x.ndim < 2 or case.x[0].size < 2 or (case.x.dtype.kind in "iu" and case.x.dtype != np.uint8):
        return []
    train, held_out = _digests(case.x), _digests(case.x_validation)
    _, inverse, counts = np.unique(train, return_inverse=True, return_counts=True)
    natural = float(np.mean(counts[inverse] > 1))
    shared = np.flatnonzero(np.isin(held_out, train))
    found = len(shared) / len(held_out)
    error = math.sqrt(max(natural * (1 - natural), 1.0 / len(train)) / len(held_out))
    if found < TWINS or found < natural + 4 * error or len(shared) < 3:
        return []
    return [
        Diagnosis(
            "leakage",
            "error" if found > 0.5 else "warning",
            "",
            f"{share(found)} of the validation rows are among the training rows, too",
            (
                f"such as validation rows {listed([str(i) for i in shared], 3)}",
                f"of the training rows {share(natural)} have a twin among themselves",
            ),
            "Drop duplicates before the split: the validation loss says nothing about new rows.",
        )
    ]


def _digests(x: Array) -> Array:
    """A number for each row, equal for equal rows and practically only for these: two random projections of its
    bytes."""
    flat = np.ascontiguousarray(x).reshape(len(x), -1)
    raw = flat.view(np.uint8).reshape(len(x), -1).astype(np.uint64)
    drawn = np.random.Philox(key=7).random_raw(raw.shape[1]) | np.uint64(1)
    return np.asarray((raw * drawn).sum(axis=1, dtype=np.uint64))
