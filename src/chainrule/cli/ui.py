"""`ui`: the web app, served to this machine alone."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.cli import display
from chainrule.cli.checks import whole
from chainrule.cli.diff import difference_of
from chainrule.cli.replay import explanation_of
from chainrule.errors import ConfigError, MissingDependency

Runs = Annotated[Path, typer.Option("--runs", "--runs-dir", metavar="FOLDER", help="Where runs are kept.")]
Port = Annotated[int, typer.Option("--port", metavar="NUMBER", parser=whole(0), help="The port; 0 takes a free one.")]
Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="127.0.0.1 or ::1: this machine alone.")]
NoOpen = Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")]


def ui(runs: Runs = Path("runs"), port: Port = 0, host: Host = "127.0.0.1", no_open: NoOpen = False) -> None:
    """Watch runs as they train, explain their steps, and play with small networks, in the browser."""
    if runs.exists() and not runs.is_dir():
        raise ConfigError(f"{runs} is a file, not a folder of runs.")
    if port > 65535:
        raise ConfigError(f"--port {port}: ports go up to 65535; 0 takes a free one.")
    server().serve(runs, host, port, FromFolders(), tell=tell, open_browser=not no_open)


def server() -> Any:
    """The module of the server, whose packages not everybody has."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise MissingDependency(f"chainrule ui needs {' and '.join(missing)}. Try: pip install 'chainrule[ui]'")
    return import_module("chainrule.ui.server")


def tell(address: str) -> None:
    """Say where the app is, at once: programs that start it wait for this line."""
    display.field("chainrule ui", address)
    display.say("For this machine and this address alone. Ctrl-C ends it.")
    sys.stdout.flush()


class FromFolders:
    """What needs models and data of runs again, which the folders of runs made by `chainrule train` tell."""

    def explain(self, run: Path, step: int, row: int | None) -> dict[str, Any]:
        """The explanation of a step. Raises ChainruleError when the folder does not tell how to replay it."""
        return explanation_of(run, step, row)

    def diff(self, first: Path, second: Path) -> dict[str, Any]:
        """What differs between two runs."""
        return difference_of(first, second)
