"""Lines and tables, and what a terminal shows of them."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import chainrule
from chainrule.cli import display
from chainrule.cli.find_lr import plot

SOURCE = str(Path(chainrule.__file__).parents[1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"), (0.12345, "0.1235"), (-1.5, "-1.500"), (12.3456, "12.35"), (123.456, "123.5"),
        (12345.6, "12,346"), (1e9, "1e+09"), (0.00001, "1e-05"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert display.number(value) == text


def test_json_has_no_nan(capsys):
    display.print_json(
        {"a": float("nan"), "b": [np.float32(1.5), float("-inf")], "c": np.arange(2), 3: ("x", None, True)}
    )
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": [0, 1], "3": ["x", None, True]}


def test_columns_align_by_what_is_seen_on_the_screen():
    lines = display.aligned([["日本", "1"], ["a", "100"]])
    assert [cell_len(line) for line in lines] == [10, 10]


def test_a_small_confusion_matrix(capsys):
    display.confusion(np.array([[5, 0], [2, 30]]), ["no", "yes"], "test")
    assert capsys.readouterr().out.splitlines()[1:] == [" truth  no  yes", " no      5    ·", " yes     2   30"]


def test_many_classes_show_the_most_frequent_confusions(capsys):
    counts = np.diag(np.full(30, 10))
    counts[3, 7], counts[7, 3], counts[29, 0] = 4, 9, 1
    display.confusion(counts, [f"class {i}" for i in range(30)], "test")
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "confusion, test: the most frequent"
    assert [" ".join(line.split()) for line in lines] == [
        "class 7 taken for class 3 9 of 19",
        "class 3 taken for class 7 4 of 14",
        "class 29 taken for class 0 1 of 11",
    ]


def test_many_classes_without_a_mistake(capsys):
    display.confusion(np.diag(np.full(30, 10)), [str(i) for i in range(30)], "test")
    assert "every answer is right" in capsys.readouterr().out


def test_residuals(capsys):
    truth = np.arange(101, dtype=float)
    display.residuals(truth, truth + truth / 10, "test")
    assert capsys.readouterr().out.splitlines()[2].split() == [
        "0.0000",
        "2.500",
        "5.000",
        "7.500",
        "10.00",
        "5.000",
        "2.915",
    ]


def test_markup_in_names_stays_as_it_is(capsys):
    display.say("[bold]column[/bold] [1, 2] :smile:")
    assert capsys.readouterr().out == "[bold]column[/bold] [1, 2] :smile:\n"


def test_long_lines_stay_whole_where_there_is_no_terminal(capsys):
    display.say("word " * 100)
    display.field("network", "word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_plot_points_at_the_rate():
    rates = list(np.geomspace(1e-4, 1, 50))
    losses = [1 - 0.5 * np.exp(-((np.log10(rate) + 2) ** 2)) + max(0, np.log10(rate) + 1) * 9 for rate in rates]
    lines = plot(rates, losses, mark=1e-2)
    assert all(len(line) <= 80 for line in lines)
    below = next(i for i, line in enumerate(lines) if line.startswith(" " * 4) and "0.01" in line)
    assert abs(lines[0].index("┊") - lines[below].index("0.01")) <= 1


def on_terminal(columns, *arguments, folder):
    """What a terminal of so many columns gets: the raw text, and its lines without control sequences."""
    import fcntl
    import pty
    import struct
    import termios

    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(folder)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        environment |= {"TERM": "xterm-256color", "PYTHONPATH": SOURCE}
        code = "import time; time.sleep(0.2); from chainrule.cli.main import run; run()"
        os.execve(sys.executable, [sys.executable, "-c", code, *arguments], environment)
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    raw = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:
            break
        if not piece:
            break
        raw += piece
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    text = raw.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return text, re.split(r"[\r\n]+", plain)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_terminal_of_80_columns_shows_everything_in_them(tmp_path):
    text, lines = on_terminal(80, "train", "breast_cancer", "--epochs", "4", folder=tmp_path)
    assert max(map(cell_len, lines)) <= 80
    assert "\x1b[36mnetwork" in text  # colours
    assert "━" in text  # the bar
    assert "\x1b[?25h" in text  # the cursor is shown again
    assert any(line.startswith("             most 4 epochs") or "most 4 epochs" in line for line in lines)
