"""What goes over the wire: JSON with names for NaN and infinity, requests read strictly, refusals with a status."""

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from chainrule.errors import ChainruleError

DEEPEST = 32  # containers within one another in a request; ours need three


class Refused(ChainruleError):
    """A request that is not answered: the HTTP status, and a message that says what to do instead."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Answer(Response):
    """A JSON value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The value as standard JSON."""
        return to_json(content).encode("ascii")


def to_json(value: Any) -> str:
    """Standard JSON, which has no NaN: "NaN", "Infinity" and "-Infinity" stand for the numbers that it lacks.

    >>> from chainrule.ui.answers import to_json
    >>> to_json({"loss": float("nan"), "best": [1.5, float("-inf")]})
    '{"loss":"NaN","best":[1.5,"-Infinity"]}'
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:  # rare, and looking through every value first would be slow
        return json.dumps(_with_names(value), allow_nan=False, separators=(",", ":"))


def _with_names(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _with_names(item) for key, item in value.items()}
    return [_with_names(item) for item in value] if isinstance(value, list | tuple) else value


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request. Refuses other types and everything that is not standard JSON."""
    # Browsers let any page send forms and plain text to any address; JSON they do not.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, f"The body is {kind or 'of no type'}; send JSON, with Content-Type: application/json.")
    try:
        value = json.loads(await request.body(), parse_constant=_no_constant, object_pairs_hook=_no_doubles)
        _check_depth(value)
    except RecursionError:
        raise Refused(400, "The JSON in the body is nested too deeply.") from None
    except ValueError as error:  # UnicodeDecodeError too
        raise Refused(400, f"The body is not standard JSON: {error}.") from None
    if not isinstance(value, dict):
        raise Refused(400, f'The body is a JSON {type(value).__name__}; send an object, such as {{"steps": 1}}.')
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("an object has the same field twice")
    return result


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        containers = [x for x in level if isinstance(x, list | dict)]
        level = [item for x in containers for item in (x.values() if isinstance(x, dict) else x)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def whole_query(request: Request, *names: str) -> dict[str, int]:
    """The whole numbers of at least 0 in the query of a request that has no others; 400 for anything else."""
    found = {}
    for name, text in single_queries(request, *names).items():
        if not (text.isascii() and text.isdecimal() and len(text) <= 15):
            raise Refused(400, f"{name}={text[:40]!r} in the address: give a whole number of at least 0.")
        found[name] = int(text)
    return found


def single_queries(request: Request, *names: str) -> dict[str, str]:
    """The query of a request, each of the names at most once and no others; 400 for anything else."""
    pairs = request.query_params.multi_items()
    for name, _ in pairs:
        if name not in names or sum(other == name for other, _ in pairs) > 1:
            raise Refused(400, f"{name[:40]!r} in the address is unknown, or there twice; known: {list(names)}.")
    return dict(pairs)
