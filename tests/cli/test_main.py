"""The program as a whole: help, exit codes, and that no failure shows a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import chainrule
from chainrule.cli import main, runs
from chainrule.errors import ChainruleError, ConfigError, DataError, Diverged, ProgramError

COMMANDS = [
    "train", "resume", "find-lr", "predict", "evaluate", "runs", "summary", "explain", "diagnose", "replay", "diff",
    "ui", "export", "check-gradients", "doctor", "version",
]  # fmt: skip
PROGRAM = "from chainrule.cli.main import run; run()"


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(chainrule.__file__).parents[1])}  # this tree, installed or not


def start(*command, **options):
    """A process of its own."""
    settings = {"env": ENVIRONMENT, "timeout": 120} | options
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", **settings)


def test_help_lists_every_command(cli):
    shown = cli("--help")
    assert shown.code == 0
    assert all(command in shown.out for command in COMMANDS)


def test_no_arguments_show_the_help(cli):
    assert cli() == cli("--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli, command):
    shown = cli(command, "--help")
    assert shown.code == 0
    assert f"chainrule {command}" in shown.out
    assert cli(command, "-h") == shown


def test_every_option_has_an_explanation():
    commands = typer.main.get_command(main.app).commands
    silent = [
        f"{name} {p.opts[0]}" for name, c in commands.items() for p in c.params if p.name != "help" and not p.help
    ]
    assert silent == []


def test_version(cli):
    assert cli("version").out == cli("--version").out
    assert cli("version").out.strip().count(".") == 2


def test_a_command_that_is_almost_right(cli):
    shown = cli("trian", "digits")
    assert shown.code == 2
    assert "'train'" in shown.err


def test_an_option_that_is_almost_right(cli):
    shown = cli("train", "digits", "--epoch", 3)
    assert shown.code == 2
    assert "--epochs" in shown.err
    assert "chainrule train --help" in shown.err


def test_a_missing_argument(cli):
    shown = cli("train")
    assert shown.code == 2
    assert "SOURCE" in shown.err


FAILURES = [
    (ConfigError("no such thing"), 2, "no such thing"),
    (DataError("no data"), 2, "no data"),
    (Diverged("not a number"), 1, "not a number"),
    (ProgramError("broken"), 1, "broken"),
    (FileNotFoundError(2, "No such file or directory", "x.csv"), 1, "x.csv: No such file or directory"),
    (PermissionError(13, "Permission denied", "x.csv"), 1, "Permission denied"),
    (MemoryError(), 1, "memory"),
    (KeyboardInterrupt(), 130, "Interrupted"),
    (TypeError("a bug"), 1, "mistake of chainrule: TypeError: a bug"),
]


@pytest.mark.parametrize(("error", "code", "text"), FAILURES, ids=lambda x: type(x).__name__)
def test_any_failure_is_one_message(monkeypatch, capsys, error, code, text):
    def fail(*_):
        raise error

    monkeypatch.setattr(runs, "list_runs", fail)
    assert main.execute(["runs"]) == code
    shown = capsys.readouterr()
    assert text in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["--debug", "train", "nowhere.csv"], ["train", "nowhere.csv", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(capsys, arguments):
    assert main.execute(arguments) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "nowhere.csv" in shown.splitlines()[-2]


def test_what_stands_after_two_dashes_is_no_option(capsys):
    assert main.execute(["train", "--", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "there is no file --debug" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('Give the target, such as target="price".', "Give the target, such as --target price."),
        ('or target="my price".', 'or --target "my price".'),
        ('task="regression" takes them as amounts', "--task regression takes them as amounts"),
        ('bad_rows="skip"', "--bad-rows skip"),
        ('kinds={"zip": "category"} keeps it', "--kind zip=category keeps it"),
        ("with drop_rare_classes=True.", "with --drop-rare-classes."),
        ("If line 1 is data, say header=False.", "If line 1 is data, say --no-header."),
        ("or cr.find_lr); clip_norm=1.0;", "or chainrule find-lr); --clip-norm 1.0;"),
        ("nothing to translate", "nothing to translate"),
    ],
)
def test_advice_speaks_of_options(message, told):
    assert main.in_options(message) == told


def test_errors_are_all_of_ours_or_explained():
    assert all(issubclass(kind, ChainruleError) for kind in main.OUR_FAILURES)


def test_start_up_loads_nothing_heavy():
    heavy = ("polars", "llvmlite", "safetensors", "PIL", "torch", "matplotlib")
    code = (
        f"import sys; from chainrule.cli import main; main.execute(['--help']); print(sys.modules.keys() & {heavy!r})"
    )
    assert start(sys.executable, "-c", code).stdout.splitlines()[-1] == "set()"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise on Windows")
def test_a_reader_that_goes_away_is_no_failure_to_speak_of(iris_run, tmp_path):
    command = f"{sys.executable} -c '{PROGRAM}' predict iris digits.csv | head -n 1"
    rows = "\n".join(["sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)", *["5,3,1,0.2"] * 50_000])
    (tmp_path / "digits.csv").write_text(rows)  # more than a pipe holds
    found = start("sh", "-c", command, cwd=tmp_path)
    assert found.stdout == "prediction\n"
    assert found.stderr == ""


def test_a_terminal_with_few_characters_gets_question_marks():
    found = start(sys.executable, "-c", PROGRAM, "summary", "iris", env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"})
    assert found.returncode == 0
    assert "150 rows ? 5 columns" in found.stdout
