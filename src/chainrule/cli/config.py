"""Options from a file, and options that several commands share.

`--config file.toml` gives options by their names, as on the command line without the dashes:

    source = "houses.csv"
    target = "price"
    layers = [64, 64]
    lr = 0.003

What stands on the command line wins over the file, and the file over the defaults.
"""

import difflib
import functools
import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from chainrule.errors import ConfigError


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are dataclasses of options are spread out, an option a field.

    Each field is declared once, as `name: Annotated[type, typer.Option(...)] = default`; the command receives the
    dataclasses, filled.
    """
    signature = inspect.signature(command)
    groups: dict[str, Any] = {n: p.annotation for n, p in signature.parameters.items() if is_dataclass(p.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += spread(groups[name]) if name in groups else [parameter]

    @functools.wraps(command)
    def spread_command(**values: Any) -> None:
        for name, group in groups.items():
            # Lists become tuples, so that options are values that never change.
            own = {f.name: values.pop(f.name) for f in fields(group)}
            values[name] = group(**{key: tuple(x) if isinstance(x, list) else x for key, x in own.items()})
        command(**values)

    ordered = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    spread_command.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    spread_command.__annotations__ = {p.name: p.annotation for p in ordered}
    return spread_command


def spread(group: Any) -> list[inspect.Parameter]:
    """A parameter for each field of a dataclass of options."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            # typer wants lists where an option may be given several times
            annotation=as_lists(hints[field.name]),
            default=list(field.default) if isinstance(field.default, tuple) else field.default,
        )
        for field in fields(group)
    ]


def as_lists(hint: Any) -> Any:
    """`Annotated[tuple[str, ...], option]` as `Annotated[list[str], option]`; anything else as it is."""
    base, options = hint.__origin__, hint.__metadata__
    if getattr(base, "__origin__", None) is tuple:
        item: Any = base.__args__[0]
        return Annotated[(list[item], *options)]
    return hint


def take_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values in the file the defaults of the command. Raises ConfigError for a file that makes no sense."""
    if path is not None and not context.resilient_parsing:
        known = {str(p.name): p for p in context.command.params if p.name not in ("config", "help")}
        context.default_map = {**(context.default_map or {}), **read(path, known)}
    return path


def read(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a TOML file, each as the text that one would type: so both are checked in the same way."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    options: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if isinstance(value, dict):
            raise ConfigError(
                f'{path}: "{key}" is a table. Options stand at the top level of the file, not below [{key}].'
            )
        if name not in known:
            names = [other.replace("_", "-") for other in known]
            close = difflib.get_close_matches(key.replace("_", "-"), names, 1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise ConfigError(f'{path}: "{key}" is not an option.{hint}\nOptions: {", ".join(sorted(names))}')
        options[name] = as_typed(path, key, value, bool(getattr(known[name], "multiple", False)))
    return options


def as_typed(path: Path, key: str, value: Any, multiple: bool) -> Any:
    """A value of TOML as the text of an option: numbers as they are written, lists joined by commas."""
    if isinstance(value, list):
        if any(isinstance(item, list | dict) for item in value):
            raise ConfigError(f'{path}: "{key}" holds lists in a list; give plain values.')
        return [str(item) for item in value] if multiple else ",".join(str(item) for item in value)
    return [str(value)] if multiple else str(value)
