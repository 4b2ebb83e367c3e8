"""The column to learn: which task it sets, and how it becomes numbers and back."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from chainrule.data import parsing
from chainrule.data.arrays import Images, Source
from chainrule.data.columns import Scale, labels
from chainrule.data.findings import close_name, counted, listed, shortened
from chainrule.data.kinds import mostly_numbers, unreadable
from chainrule.data.shipped import Task
from chainrule.data.tables import Decimal, Table, cleaned
from chainrule.errors import ConfigError, DataError

MOST_INTEGER_CLASSES = 20
"""Whole numbers with more different values than this are amounts, not classes."""

COMMON_TARGETS = ("target", "label", "class", "y", "labels", "targets")
"""What a target is often called: taken if none is named and one column is called so."""

Where = Callable[[int], str]


@dataclass(frozen=True)
class Classes:
    """A class target: `names` in the order of their numbers."""

    task: Task
    names: tuple[str, ...]

    def decode(self, prediction: ArrayLike) -> NDArray[Any]:
        """Class names (rows,) from class numbers (rows,) or from one score per class (rows, classes).

        Raises ConfigError for anything else, such as one score for two classes: compare it with its threshold first.
        """
        array = np.asarray(prediction)
        if array.ndim == 2 and array.shape[1] == len(self.names):
            array = array.argmax(1)
        if array.ndim != 1 or array.dtype.kind not in "iub":
            raise ConfigError(
                f"cannot name the classes of a {array.dtype} array of shape {array.shape}: give class numbers (rows,) "
                f"as integers, or scores (rows, {len(self.names)})."
            )
        return np.array(self.names)[array.astype(np.int64)]


@dataclass(frozen=True)
class Values:
    """A regression target, standardised by the mean and deviation of the training rows."""

    scale: Scale
    task: Task = "regression"

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Standardised (rows, 1): the shape of a network's output."""
        limit = float(np.finfo(np.float32).max)
        return np.clip(self.scale.apply(values), -limit, limit).astype(np.float32)[:, None]

    def decode(self, prediction: ArrayLike) -> NDArray[Any]:
        """Numbers (rows,) in the units of the source, float64, from standardised ones (rows, 1) or (rows,)."""
        array = np.asarray(prediction, np.float64)
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
            raise ConfigError(f"predictions of one number have the shape (rows, 1) or (rows,), not {array.shape}.")
        return array.reshape(len(array)) * self.scale.deviation + self.scale.mean


Target = Classes | Values


def find_target(source: Source, target: str | None) -> str:
    """The name of the target column. Raises DataError, with what may have been meant, if there is none."""
    if isinstance(source, Images):
        if source.y is None:
            raise DataError(f"{source.name} has images, but no labels.")
        if target not in (None, source.target):
            raise DataError(f'{source.name} holds images; their target is called "{source.target}", not "{target}".')
        return source.target
    if target is None:
        target = source.target
    if target is None:
        common = [name for name in source.columns if name.lower() in COMMON_TARGETS]
        if len(common) == 1:
            return common[0]
        last = source.columns[-1] if source.columns else "column"
        raise DataError(
            f'{source.name}: which column is to be learned? Give the target, such as target="{last}".\n'
            f"Columns: {listed(source.columns, 12)}"
        )
    if target in source.columns:
        return target
    close = close_name(target, source.columns)
    hint = f' Did you mean "{close}"?' if close else ""
    guessed = "".join(f"\n{note}" for note in source.notes if "header=" in note)
    raise DataError(f'{source.name} has no column "{target}".{hint}\nColumns: {listed(source.columns, 12)}{guessed}')


def target_series(source: Source, name: str) -> pl.Series:
    """The target as a column."""
    if isinstance(source, Table):
        return source.frame[name]
    assert source.y is not None  # find_target has seen to it
    if source.files:  # classes by the names of folders: one called `None` is no gap
        return pl.Series(name, source.y)
    return cleaned(pl.DataFrame({name: source.y})).to_series()


@dataclass(frozen=True)
class Learnable:
    """A target column, judged: its task, the rows that have it, and its labels (classes) or numbers (regression)."""

    task: Task
    usable: NDArray[np.bool_]
    labels: NDArray[Any]
    numbers: NDArray[np.float64]
    notes: tuple[str, ...]


def judge(name: str, series: pl.Series, task: Task | None, decimal: Decimal | None, where: Where) -> Learnable:
    """What the target column asks for. Raises DataError if nothing can be learned from it, ConfigError for the task."""
    if task is not None and task not in get_args(Task):
        raise ConfigError(f'"{task}" is no task. Tasks: {", ".join(get_args(Task))}.')
    if unreadable(series):
        raise DataError(f'target "{name}" holds {series.dtype} values: a target is a number or a class.')
    text = labels(series)
    present = text.is_not_null().to_numpy()
    if not present.any():
        raise DataError(f'target "{name}" has no value in any row. Choose another column.')
    read = parsing.numbers(series, decimal)
    notes: list[str] = []
    if task is None:
        task = inferred_task(name, series, read, notes)
    usable = present if task != "regression" else ~np.isnan(read.values)
    if task != "regression" and series.dtype.is_float():
        usable = present & ~read.infinite
    if task == "regression":
        require_numbers(name, series, read, where)
        refused = read.bad | read.infinite
        if refused.any():
            first = int(np.flatnonzero(refused)[0])
            value, rows = shortened(str(series[first])), counted(int(refused.sum()), "row")
            notes.append(
                f'{name} (target): {rows} left out where it is no finite number, first "{value}" in {where(first)}'
            )
    gone = np.flatnonzero(~present)
    if len(gone):
        places = listed((where(int(row)) for row in gone), 3)
        notes.append(f"{name} (target): {counted(len(gone), 'row')} left out where it is missing ({places})")
    if read.notation != "plain" and task == "regression":
        notes.append(f"{name} (target): numbers are read with {read.notation}")
    return Learnable(task, usable, text.to_numpy(), read.values, tuple(notes))


def inferred_task(name: str, series: pl.Series, read: parsing.Numbers, notes: list[str]) -> Task:
    """Amounts are regression; texts, yes/no and few different whole numbers are classes."""
    if series.dtype == pl.Boolean:
        return "binary"
    if series.dtype in (pl.Date, pl.Datetime) or parsing.dates(series).form is not None:
        raise DataError(
            f'target "{name}" holds dates. Choose another target, or add a column with a number made of it, such as '
            f'days since a fixed date. (task="multiclass" takes every date as a class.)'
        )
    if series.dtype == pl.String and not mostly_numbers(series, read, len(series) - series.null_count()):
        return "binary" if labels(series).drop_nulls().n_unique() == 2 else "multiclass"
    values, sizes = np.unique(read.values[~np.isnan(read.values)], return_counts=True)
    whole = bool((values == np.floor(values)).all())
    few = len(values) <= MOST_INTEGER_CLASSES and sizes.sum() >= 5 * len(values) and sizes.min(initial=2) >= 2
    if not whole or read.bad.any() or not (len(values) == 2 or (few and len(values) > 2)):
        return "regression"
    if len(values) > 2:
        span = f"{values[0]:g} to {values[-1]:g}"
        notes.append(
            f"{name} (target): whole numbers from {span} are taken as {len(values)} classes; "
            f'task="regression" takes them as amounts'
        )
    return "binary" if len(values) == 2 else "multiclass"


def require_numbers(name: str, series: pl.Series, read: parsing.Numbers, where: Where) -> None:
    """Raise DataError unless most cells of a regression target are numbers that vary."""
    values = read.values[~np.isnan(read.values)]
    if len(values) <= read.bad.sum():
        first = int(np.flatnonzero(read.bad | read.infinite)[0])
        raise DataError(
            f'target "{name}" should hold numbers for regression, but {int(read.bad.sum()):,} of {len(series):,} cells '
            f'are none, first "{shortened(str(series[first]))}" in {where(first)}. Choose another target or task.'
        )
    if len(values) and values.min() == values.max():
        raise DataError(f'target "{name}" is {values[0]:g} in every row: nothing to learn. Choose another column.')


def fit_values(name: str, numbers: NDArray[np.float64]) -> Values:
    """The scale of a regression target, from its training rows."""
    scale = Scale.fit(numbers)
    if scale is None:
        raise DataError(f'target "{name}" is the same in every training row: there is nothing to learn.')
    return Values(scale)


def class_numbers(
    name: str, learnable: Learnable, drop_rare: bool, where: Where
) -> tuple[Classes, NDArray[np.int64], NDArray[np.bool_], list[str]]:
    """The classes, the class number of every usable row (-1 elsewhere), the rows that stay usable, and notes.

    Raises DataError for one class, for too many, and for a class with a single example unless `drop_rare`.
    """
    usable, notes = learnable.usable.copy(), []
    sizes = Counter(learnable.labels[usable].tolist())
    rows = int(usable.sum())
    single = [label for label, size in sizes.items() if size == 1]
    if len(sizes) > 10 and (2 * len(single) > len(sizes) or 2 * len(sizes) > rows):
        raise DataError(
            f'target "{name}" has {len(sizes):,} classes in {rows:,} rows, {len(single):,} of them with a single '
            f"example (such as {listed(single[:2], quote=True)}): it looks like an identifier, free text or an amount. "
            f'Choose another target, or task="regression" if it holds numbers.'
        )
    if single and len(sizes) > 1:
        alone = np.isin(learnable.labels.astype(str), single) & usable
        places = listed((f'"{shortened(learnable.labels[i])}" in {where(int(i))}' for i in np.flatnonzero(alone)), 3)
        if not drop_rare:
            noun = "a class has" if len(single) == 1 else f"{len(single):,} classes have"
            raise DataError(
                f'target "{name}": {noun} a single example ({places}). One example cannot be both learned from and '
                f"tested on. Correct or merge it, add examples, or leave such rows out with drop_rare_classes=True."
            )
        usable &= ~alone
        what = counted(len(single), "class", "classes")
        notes.append(f"{name} (target): {what} with a single example left out ({places})")
        sizes = Counter(learnable.labels[usable].tolist())
    if len(sizes) < 2:
        only = f'("{shortened(next(iter(sizes)))}" in every row)' if sizes else "(no row is left)"
        raise DataError(f'target "{name}" has one class only {only}: there is nothing to tell apart.')
    if learnable.task == "binary" and len(sizes) != 2:
        raise DataError(f'target "{name}" has {len(sizes)} classes ({listed(sizes)}): a binary task has two.')
    names = ordered(sizes)
    notes += [f"{name} (target): classes {pair} differ in upper and lower case only" for pair in same_but_case(names)]
    index = {label: i for i, label in enumerate(names)}
    numbers = np.array([index.get(label, -1) for label in learnable.labels.tolist()], np.int64)
    return Classes(learnable.task, names), np.where(usable, numbers, -1), usable, notes


def ordered(names: Counter[str]) -> tuple[str, ...]:
    """Class names in the order of their numbers if all are numbers, else of the alphabet."""
    try:
        return tuple(sorted(names, key=lambda text: (float(text), text)))
    except ValueError:
        return tuple(sorted(names))


def same_but_case(names: tuple[str, ...]) -> list[str]:
    """Pairs of class names that a slip of the shift key may have parted."""
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            pairs.append(f'"{shortened(other)}" and "{shortened(name)}"')
    return pairs
