"""The `chainrule` command: its sub-commands put together, and every failure turned into one clear message.

Exit codes: 0 done; 1 it could not be carried through; 2 what was asked for makes no sense, or the data or the run
cannot be used; 130 interrupted by Ctrl-C.
"""

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from chainrule.cli import (
    check_gradients,
    diagnose,
    diff,
    display,
    doctor,
    evaluate,
    explain,
    export,
    find_lr,
    predict,
    replay,
    report,
    resume,
    runs,
    summary,
    train,
    ui,
)
from chainrule.errors import ChainruleError, Diverged, GradientError, MissingDependency, ProgramError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

OUR_FAILURES = (Diverged, GradientError, MissingDependency, ProgramError)
"""Failures that are not a matter of what was asked for."""

UsageError: Any = typer.BadParameter.__mro__[1]
"""What typer raises for a command line that it cannot read; typer itself has no name for it."""

app = typer.Typer(
    name="chainrule",
    help="Trains neural networks by backpropagation, and shows how they learn. Begin with: chainrule train digits",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also after the command).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=doctor.print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before the command; `execute` has read --debug already."""


LEARN, USE, LOOK = "Learn", "Use", "Look closer"

app.command("train", rich_help_panel=LEARN)(train.train)
app.command("resume", rich_help_panel=LEARN)(resume.resume)
app.command("find-lr", rich_help_panel=LEARN)(find_lr.find_lr)
app.command("predict", rich_help_panel=USE)(predict.predict)
app.command("evaluate", rich_help_panel=USE)(evaluate.evaluate)
app.command("runs", rich_help_panel=USE)(runs.runs)
app.command("export", rich_help_panel=USE)(export.export)
app.command("explain", rich_help_panel=LOOK)(explain.explain)
app.command("diagnose", rich_help_panel=LOOK)(diagnose.diagnose)
app.command("replay", rich_help_panel=LOOK)(replay.replay)
app.command("diff", rich_help_panel=LOOK)(diff.diff)
app.command("ui", rich_help_panel=LOOK)(ui.ui)
app.command("summary", rich_help_panel=LOOK)(summary.summary)
app.command("check-gradients", rich_help_panel=LOOK)(check_gradients.check_gradients)
app.command("doctor", rich_help_panel=LOOK)(doctor.doctor)
app.command("version", rich_help_panel=LOOK)(doctor.version)


def run() -> None:
    """What the console script `chainrule` calls."""
    for stream in (sys.stdout, sys.stderr):
        tolerate(stream)
    code = execute(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`chainrule runs | head -1`), and Python would complain of it once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or FAILED
    sys.exit(code)


def tolerate(stream: TextIO) -> None:
    """A terminal without × or ∂ shows a question mark instead, rather than nothing at all."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def execute(arguments: Sequence[str]) -> int:
    """Carry out a command line, given without the name of the program. Returns the exit code; raises nothing.

    >>> from chainrule.cli.main import execute
    >>> execute(["version"])
    0.1.0
    0
    """
    arguments, debug = without_debug(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code = typer.main.get_command(app).main(
                arguments or ["--help"], prog_name="chainrule", standalone_mode=False
            )
            if code == INTERRUPTED:  # so typer tells of Ctrl-C
                raise KeyboardInterrupt
            return code if isinstance(code, int) else DONE
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else FAILED
        except BaseException as error:
            if debug:
                traceback.print_exc()
            return tell(error)


def without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, wherever it stands among the options, and whether it was there."""
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:end] if word != "--debug"] + arguments[end:]
    return kept, len(kept) < len(arguments)


def tell(error: BaseException) -> int:
    """Say what went wrong in one message, and give the exit code."""
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "chainrule"
        message = error.format_message().rstrip(".") + from_file(error)
        display.fail(f"{message}{'' if message.endswith('?') else '.'}\nSee {command} --help.")
        return MISUSED
    if isinstance(error, report.Interruption):
        display.fail(str(error))
        return error.code
    if isinstance(error, ChainruleError):
        display.fail(in_options(str(error)))
        return FAILED if isinstance(error, OUR_FAILURES) else MISUSED
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        display.fail("Interrupted.")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        display.fail(f"{where}{error.strerror or error}.")
        return FAILED
    if isinstance(error, MemoryError):
        display.fail("There is not enough memory. Try a smaller --batch-size, smaller --layers, or less data.")
        return FAILED
    display.fail(
        f"This is a mistake of chainrule: {type(error).__name__}: {error}\n"
        "Run the command again with --debug, and report what it shows."
    )
    return FAILED


def from_file(error: Any) -> str:
    """Where a bad value came from, when it was not typed."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or parameter is None:
        return ""
    origin = context.get_parameter_source(parameter.name)
    return f" (from {context.params.get('config')})" if origin is not None and origin.name == "DEFAULT_MAP" else ""


IN_PYTHON = re.compile(r'\b(target|task|separator|decimal|encoding|bad_rows)="([^"]*)"')
OTHERS_IN_PYTHON = (
    (re.compile(r'\bkinds=\{"([^"]*)": "([^"]*)"\}'), r"--kind \1=\2"),
    (re.compile(r"\bkinds names the column"), "--kind names the column"),
    (re.compile(r"\bvalidation=(\S+) and test=(\S+) are"), r"--validation \1 and --test \2 are"),
    (re.compile(r"\bcr\.find_lr\b"), "chainrule find-lr"),
    (re.compile(r"\bclip_norm=(\S+?)\b"), r"--clip-norm \1"),
    (re.compile(r"\bdrop_rare_classes=True"), "--drop-rare-classes"),
    (re.compile(r"\bimage_size\b"), "--image-size"),
    (re.compile(r"\bheader=False"), "--no-header"),
    (re.compile(r"\bheader=True"), "--header"),
    (re.compile(r"\bexplanation\.why\('([^']*)'\)"), r'--why "\1"'),
)


def in_options(message: str) -> str:
    """The message with arguments as Python writes them turned into options of the command line.

    >>> from chainrule.cli.main import in_options
    >>> in_options('Give the target, such as target="price".')
    'Give the target, such as --target price.'
    """
    message = IN_PYTHON.sub(lambda found: f"--{found[1].replace('_', '-')} {quoted(found[2])}", message)
    for pattern, option in OTHERS_IN_PYTHON:
        message = pattern.sub(option, message)
    return message


def quoted(word: str) -> str:
    """The word as a shell takes it."""
    return f'"{word}"' if re.search(r"[^\w.,:/=+-]", word) or not word else word


def show_warning(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
    """A warning without the place in the source, which is of no use here."""
    display.notice(f"note: {message}")
