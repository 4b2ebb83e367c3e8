"""An explanation as one HTML file that opens by double click: no network, no server, nothing beside it.

The template, page.html, is built from web/ and shipped with the package. It holds the viewer, and a policy that lets
the browser run that one script and connect to nothing; only the explanation itself is put in here.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.explanation.arrays import array_to_json
from chainrule.train.files import atomic_write

PLACEHOLDER = '<script id="explanation" type="application/json">null</script>'
SHORT = ("float32", "bfloat16", "float16")  # types that float32 holds exactly
BUDGET = 2_500_000  # numbers in a page, of about ten characters each
WHOLE = (4096, 2048, 1024, 512, 256, 64)  # how many numbers of an array are shown one by one, the more the better


def page(explanation: Mapping[str, Any]) -> str:
    """The HTML page of an explanation, given as `Explanation.to_dict()` gives it.

    Of an explanation with very many numbers (a deep network on images, say) the larger arrays are shown by their
    statistics and a small picture, as `to_dict` shows the largest.

    Raises `ConfigError` for what is not such a dict, or cannot be written as JSON.

    >>> from chainrule.explanation.page import page
    >>> text = page({"format": "chainrule explanation 1", "nodes": []})
    >>> text.count("chainrule explanation 1")
    1
    """
    told = explanation.get("format") if isinstance(explanation, Mapping) else None
    if not str(told).startswith("chainrule explanation"):
        raise ConfigError(
            f"A page shows an explanation as a dict with a 'format'; got {explanation!r:.80}. "
            "Try cr.explain(model, x, y, loss=...).to_dict()."
        )
    try:
        plain = _plain(explanation, _whole(explanation))
        data = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ConfigError(f"The explanation cannot be written as JSON: {error}.") from error
    # Inside of a script element "</script" would end it and "<!--" change how it is read; with no "<" there is neither.
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    before, after = _template().split(PLACEHOLDER)
    return f"{before}{PLACEHOLDER.replace('null', data)}{after}"


def write_page(explanation: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page to a file, whole or not at all; returns its path.

    Raises `ConfigError` as `page` does, and `OSError` when the file cannot be written.

    >>> import tempfile, pathlib
    >>> from chainrule.explanation.page import write_page
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page({"format": "chainrule explanation 1", "nodes": []}, pathlib.Path(folder, "step.html")).name
    'step.html'
    """
    # What UTF-8 cannot write (half of a surrogate pair in a name) becomes a question mark, so that the page opens.
    atomic_write(path, page(explanation).encode("utf-8", errors="replace"))
    return Path(path)


def _template() -> str:
    return files("chainrule.explanation").joinpath("page.html").read_text("utf-8")


def _whole(explanation: Mapping[str, Any]) -> int:
    """So many numbers of an array are shown, at most, that the page stays within its budget."""
    sizes = np.array([len(data) for data in _number_lists(explanation)], dtype=np.int64)
    return next((most for most in WHOLE if np.minimum(sizes, most).sum() <= BUDGET), WHOLE[-1])


def _number_lists(value: Any) -> Iterator[list[Any]]:
    """The lists of numbers of all arrays and pictures."""
    if isinstance(value, Mapping):
        data = value.get("data")
        if isinstance(data, list):
            yield data
        else:
            for item in value.values():
                yield from _number_lists(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _number_lists(item)


def _plain(value: Any, whole: int) -> Any:
    """As JSON has it: NaN and infinities spelled as the explanation spells them, float32 in its own few digits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        data = value.get("data")
        if isinstance(data, list) and "dtype" in value:
            return _array(value, data, whole)
        if isinstance(data, list) and "columns" in value:
            return _picture(value["rows"], value["columns"], data, whole)
        return {key: _plain(item, whole) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, whole) for item in value]
    return value


def _array(array: Mapping[str, Any], data: list[Any], whole: int) -> Any:
    if len(data) > whole:
        numbers = np.array([float(x) for x in data]).reshape(array["shape"])
        return _plain(array_to_json(numbers, whole) | {"dtype": array["dtype"]}, whole)
    if array["dtype"] not in SHORT:
        return dict(array) | {"data": _plain(data, whole)}
    # The shortest text that still says which float32 it is: 0.1, not 0.10000000149011612.
    short = [float(str(np.float32(x))) if isinstance(x, float) and math.isfinite(x) else _plain(x, 0) for x in data]
    return dict(array) | {"data": short}


def _picture(rows: int, columns: int, data: list[Any], whole: int) -> dict[str, Any]:
    """A picture of block averages, of larger blocks where it has more than `whole` cells; colours need few digits."""
    cells = np.array([float(x) for x in data]).reshape(rows, columns)
    side = math.isqrt(whole)
    for axis in (0, 1):
        size = cells.shape[axis]
        if size > side:
            starts = np.linspace(0, size, side, endpoint=False).astype(np.int64)
            widths = np.diff(np.append(starts, size)).reshape((-1, 1) if axis == 0 else (1, -1))
            with np.errstate(invalid="ignore"):
                cells = np.add.reduceat(cells, starts, axis=axis) / widths
    shown = [_plain(float(f"{x:.5g}"), whole) for x in cells.ravel().tolist()]
    return {"rows": cells.shape[0], "columns": cells.shape[1], "data": shown}
