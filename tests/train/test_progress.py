"""What is shown while training: plain lines, nothing, and a bar drawn by rich."""

import io

import pytest
from rich.console import Console

from chainrule.errors import ConfigError
from chainrule.train import progress
from chainrule.train.progress import PlainProgress, SilentProgress, Standing, clock, describe, number, rate
from chainrule.train.progress_rich import RichProgress, line
from chainrule.train.setup import find_progress

ROW = {
    "epoch": 3,
    "step": 12,
    "loss": 0.5,
    "accuracy": 0.75,
    "validation_loss": 0.25,
    "learning_rate": 0.1,
    "seconds": 2,
}


def standing(epoch, **changes):
    values = {"epochs": 9, "batch": 4, "batches": 4, "loss": 0.5, "row": ROW, "monitor": "validation_loss"}
    return Standing(epoch=epoch, **(values | changes))


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_tells_epoch_values_rate_and_time_left():
    text = describe(standing(3, rows_per_second=1940.0, seconds_left=62.0, best=0.2, best_epoch=2))
    assert text == (
        "epoch 3/9  loss 0.500  accuracy 0.750  validation loss 0.250 (best 0.200 at 2)  1.9 k rows/s  1:02 left"
    )
    assert describe(standing(3, epochs=None)) == "epoch   3  loss 0.500  accuracy 0.750  validation loss 0.250"
    assert describe(standing(3, batch=2), inside=True) == "epoch 3/9  batch 2/4  loss 0.500"


def test_numbers_are_short():
    assert [number(x) for x in (0.0, 1.0, 12.3456, 99.9999, 123.456, 1e6, 0.001, -0.5)] == [
        "0", "1.000", "12.346", "100.000", "123.5", "1e+06", "0.001", "-0.500",
    ]  # fmt: skip
    assert (number(float("nan")), number(float("inf"))) == ("nan", "inf")
    assert [rate(x) for x in (0.4, 999, 1000, 12e3, 3.21e9)] == ["0", "999", "1.0 k", "12 k", "3.2 G"]
    assert [clock(x) for x in (-1, 0.4, 59.6, 3600, 90061)] == ["0:00", "0:00", "1:00", "1:00:00", "25:01:01"]


def test_plain_lines_do_not_come_faster_than_one_a_second_and_the_last_is_not_lost(time):
    file = io.StringIO()
    plain = PlainProgress(file)
    plain.start(standing(1))
    for epoch in range(1, 6):
        plain.epoch(standing(epoch))
        time.now += 0.4
    plain.finish("stopped: enough")
    lines = file.getvalue().splitlines()
    assert [text.split()[1] for text in lines[:-1]] == ["1/9", "4/9", "5/9"]
    assert lines[-1] == "stopped: enough"


def test_long_epochs_say_now_and_then_where_they_are(time):
    file = io.StringIO()
    plain = PlainProgress(file)
    plain.start(standing(1))
    for batch in range(1, 26):
        time.now += 1.0
        plain.step(standing(1, batch=batch, batches=30))
    assert [text.split()[3] for text in file.getvalue().splitlines()] == ["9/30", "19/30"]


def test_plain_lines_go_to_the_error_stream(capsys):
    plain = PlainProgress()
    plain.start(standing(1))
    plain.epoch(standing(1))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("epoch 1/9")


def test_silence(capsys):
    silent = SilentProgress()
    silent.start(standing(1))
    silent.step(standing(1))
    silent.epoch(standing(1))
    silent.finish("stopped")
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_drawn_and_the_reason_stays():
    file = io.StringIO()
    bar = RichProgress(Console(file=file, force_terminal=True, width=150, color_system=None))
    bar.start(standing(1, row={}))
    bar.step(standing(1, batch=2, row={}))
    bar.epoch(standing(2, rows_per_second=5000.0, seconds_left=3.0, best=0.2, best_epoch=1))
    bar.finish("stopped: [enough]")
    text = file.getvalue()
    assert "epoch   2/9" in text
    assert "validation loss 0.250 (best 0.200 at 1)" in text
    assert "5.0 k rows/s" in text
    assert "0:03 left" in text
    assert text.rstrip().endswith("stopped: [enough]")
    assert "\x1b[?25h" in text  # the cursor is shown again


@pytest.mark.parametrize(
    ("at", "share"),
    [(standing(1, batch=0), 0), (standing(5, batch=2), 18 / 36), (standing(3, batch=1, epochs=None), 1 / 4)],
)
def test_the_bar_is_as_long_as_the_work_done(at, share):
    bar = next(iter(line(at).columns[1].cells))
    assert bar.completed / bar.total == share


def test_auto_draws_on_terminals_only(monkeypatch):
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert isinstance(find_progress("auto"), PlainProgress)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(find_progress("auto"), RichProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(find_progress("auto"), PlainProgress)


def test_progress_by_name_or_object():
    assert isinstance(find_progress("silent"), SilentProgress)
    mine = PlainProgress()
    assert find_progress(mine) is mine
    for wrong in ("loud", None, object()):
        with pytest.raises(ConfigError, match="progress"):
            find_progress(wrong)
