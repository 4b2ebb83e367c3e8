"""The routes of runs, and the news of a run while another process trains it."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from chainrule.train.store import Run
from chainrule.ui import events
from chainrule.ui.answers import to_json
from chainrule.ui.events import ROWS, Follower

SNAPSHOT = {"layers": [], "parameters": [], "learning_rate": 0.1, "loss": 1.0, "gradient_norm": float("nan")}
DIAGNOSIS = {
    "kind": "dead-units",
    "severity": "warning",
    "where": "2",
    "message": "m",
    "evidence": ["e"],
    "remedy": "r",
}


def parsed(text):
    """Server-sent events as (event, data), as a browser reads them."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@pytest.fixture
def training(site):
    """A run that somebody trains."""
    with Run.create(site.root, "live", config={}) as run:
        yield run


# routes


def test_the_list_has_the_runs_in_the_order_in_which_they_began(site):
    told = site.get("/api/runs").json()
    assert told["root"] == str(site.root)
    assert [run["name"] for run in told["runs"]] == ["first", "second", "foreign"]
    first = told["runs"][0]
    assert first["best"] == {"metric": "loss", "value": 0.25, "step": 4, "epoch": 2}
    assert (first["status"], first["reason"], first["epochs"]) == ("finished", "all done", 2)
    assert first["started"].startswith("20") and first["seconds"] >= 0


def test_a_folder_of_runs_that_is_missing_has_none(site):
    shutil.rmtree(site.root)
    assert site.get("/api/runs").json()["runs"] == []
    assert site.get("/api/runs/first").status_code == 404


def test_one_run_has_its_configuration_and_checkpoints(site):
    with Run.open(site.root / "first", train=True) as run:
        run.save(3, {}, {}, best=True)
        run.save(4, {}, {})
        run.set_status("finished")
    told = site.get("/api/runs/first").json()
    assert told["config"] == {"epochs": 2, "rate": "Infinity"}
    assert (told["name"], told["monitor"], told["mode"]) == ("first", "loss", "min")
    assert told["checkpoints"] == [{"step": 3, "best": True}, {"step": 4, "best": False}]


def test_histories_begin_after_the_step_that_is_given(site):
    rows = site.get("/api/runs/first/history").json()["rows"]
    assert rows[0] == {"step": 1, "epoch": 1, "loss": 1.0}
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert site.get("/api/runs/first/history?after=2").json()["rows"] == rows[2:]
    assert site.get("/api/runs/first/history?after=99").json()["rows"] == []


def test_numbers_that_json_lacks_have_names(site):
    with Run.open(site.root / "second", train=True) as run:
        run.record(3, 2, loss=float("nan"), rate=float("-inf"))
        run.set_status("failed")
    text = site.get("/api/runs/second/history?after=2").text
    assert json.loads(text, parse_constant=pytest.fail)["rows"] == [
        {"step": 3, "epoch": 2, "loss": "NaN", "rate": "-Infinity"}
    ]


def test_old_runs_without_recordings_have_none(site):
    for part in ("snapshots", "diagnoses"):
        with closing(sqlite3.connect(site.root / "first" / "metrics.sqlite")) as connection, connection:
            connection.execute("DROP TABLE IF EXISTS recordings")
            connection.execute("DROP TABLE IF EXISTS diagnoses")
        assert site.get(f"/api/runs/first/{part}").json() == {part: []}
    assert [event for event, _ in parsed(site.get("/api/runs/first/events").text)] == ["history", "status"]


def test_snapshots_and_diagnoses_are_told_with_step_and_epoch(site):
    with Run.open(site.root / "first", train=True) as run:
        for step in (1, 3):
            run.record_snapshot(step, 1, SNAPSHOT)
        run.record_diagnosis(3, 1, DIAGNOSIS)
        run.set_status("finished")
    told = site.get("/api/runs/first/snapshots").json()["snapshots"]
    assert told == [SNAPSHOT | {"step": step, "epoch": 1, "gradient_norm": "NaN"} for step in (1, 3)]
    assert [s["step"] for s in site.get("/api/runs/first/snapshots?after=1").json()["snapshots"]] == [3]
    assert site.get("/api/runs/first/diagnoses").json() == {"diagnoses": [DIAGNOSIS | {"step": 3, "epoch": 1}]}
    told = dict(parsed(site.get("/api/runs/first/events").text))
    assert list(told) == ["history", "snapshots", "diagnoses", "status"]
    assert told["diagnoses"]["diagnoses"][0]["kind"] == "dead-units"


def test_the_log_is_the_last_lines_of_the_file(site):
    assert [line[-6:] for line in site.get("/api/runs/first/log").json()["lines"]] == ["a line"]
    log = site.root / "first" / "log.txt"
    log.write_bytes(b"".join(b"line %d \xff\n" % k for k in range(100_000)))
    lines = site.get("/api/runs/first/log").json()["lines"]
    assert len(lines) == 500
    assert lines[-1].startswith("line 99999 ")
    log.unlink()
    assert site.get("/api/runs/first/log").json() == {"lines": []}
    os.mkfifo(log)  # reading it would wait for ever
    assert site.get("/api/runs/first/log").json() == {"lines": []}


def test_a_damaged_run_is_told_and_does_no_harm_to_the_others(site):
    (site.root / "second" / "metrics.sqlite").write_bytes(b"no database" * 1000)
    (site.root / "foreign" / "config.json").write_text("{")
    told = {run["name"]: run for run in site.get("/api/runs").json()["runs"]}
    assert {name: run["status"] for name, run in told.items()} == {
        "first": "finished", "second": "damaged", "foreign": "damaged",
    }  # fmt: skip
    assert told["second"]["started"] is None and told["second"]["best"] is None
    for name in ("second", "foreign"):
        for part in ("", "/history", "/snapshots", "/events"):
            answer = site.get(f"/api/runs/{name}{part}")
            assert answer.status_code == 409
            assert "Traceback" not in answer.text


def test_a_step_is_explained_by_whoever_can_replay_it(site):
    assert site.post("/api/runs/first/explain", {"step": 2}).json()["loss"] == "NaN"
    assert site.post("/api/runs/first/explain", {"step": 2, "row": 1}).status_code == 200
    assert site.post("/api/runs/first/explain", {"step": 2, "row": None}).status_code == 200
    assert site.replays.asked == [("first", 2, None), ("first", 2, 1), ("first", 2, None)]
    refused = site.post("/api/runs/foreign/explain", {"step": 2})
    assert refused.status_code == 409
    assert "made from Python" in refused.json()["error"]


@pytest.mark.parametrize(
    "body",
    [{}, {"step": -1}, {"step": 0}, {"step": "1"}, {"step": 1.0}, {"step": True}, {"step": 1, "row": -1},
     {"step": 1, "row": "0"}, {"step": 1, "rows": 1}, {"step": 10**20}, {"step": None}],
)  # fmt: skip
def test_steps_that_make_no_sense_are_refused(site, body):
    assert site.post("/api/runs/first/explain", body).status_code == 400
    assert site.replays.asked == []


def test_two_runs_are_compared(site):
    assert site.get("/api/runs/first/diff?with=second").json() == {"step": 3}
    assert site.replays.asked == [("first", "second")]
    for query, status in (("", 400), ("?with=", 404), ("?with=nowhere", 404), ("?with=../first", 404), ("?a=b", 400),
                          ("?with=first&with=second", 400)):  # fmt: skip
        assert site.get(f"/api/runs/first/diff{query}").status_code == status


def test_a_mistake_of_ours_is_a_500_without_a_traceback(site, monkeypatch, caplog):
    monkeypatch.setattr(site.replays.__class__, "diff", lambda *_: 1 / 0)
    answer = site.get("/api/runs/first/diff?with=second")
    assert answer.status_code == 500
    assert answer.json() == {"error": "This is a mistake of chainrule. The terminal says more."}
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" not in caplog.text


# news


def test_the_events_of_an_ended_run_are_its_history_and_its_end(site):
    answer = site.get("/api/runs/first/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    told = parsed(answer.text)
    assert [event for event, _ in told] == ["history", "status"]
    assert told[0][1] == site.get("/api/runs/first/history").json()
    assert told[1][1] == {"status": "finished", "reason": "all done"}
    assert "\nid: 4\n" in answer.text


def test_events_go_on_from_the_step_that_is_known_which_comes_again(site):
    for more in ({"path": "/api/runs/first/events?after=3"},
                 {"path": "/api/runs/first/events", "headers": {"Last-Event-ID": "3"}}):  # fmt: skip
        told = parsed(site.get(**more).text)
        assert [row["step"] for row in told[0][1]["rows"]] == [3, 4]


def test_long_histories_come_in_pieces(training):
    for step in range(2 * ROWS + 1):
        training.record(step, 1, loss=0.5)
    training.flush()
    sizes = [len(data["rows"]) for event, data in Follower(training, None).news() if event == "history"]
    assert sizes == [ROWS, ROWS, 1]


def test_only_news_are_told_and_steps_that_grew_again(training):
    follower = Follower(Run.open(training.path), None)
    assert follower.news() == [("status", {"status": "running", "reason": ""})]
    assert follower.news() == []
    training.record(1, 1, loss=1.0)
    training.flush()
    assert follower.news() == [("history", {"rows": [{"step": 1, "epoch": 1, "loss": 1.0}]})]
    assert follower.news() == []
    training.record(1, 1, validation=2.0)
    training.record(2, 1, loss=float("nan"))
    training.flush()
    _, told = follower.news()[0]
    assert to_json(told) == (
        '{"rows":[{"step":1,"epoch":1,"loss":1.0,"validation":2.0},{"step":2,"epoch":1,"loss":"NaN"}]}'
    )
    training.record(3, 1, loss=float("nan"))
    training.flush()
    assert [row["step"] for row in follower.news()[0][1]["rows"]] == [3]
    training.flush()
    assert follower.news() == []
    assert not follower.ended


def test_what_was_written_before_the_end_is_told_before_the_end(training):
    follower = Follower(Run.open(training.path), None)
    follower.news()
    training.record(5, 1, loss=1.0)
    training.set_status("stopped", "enough")
    assert [event for event, _ in follower.news()] == ["history", "status"]
    assert follower.ended


def test_snapshots_and_diagnoses_are_told_once(training):
    follower = Follower(Run.open(training.path), None)
    training.record_snapshot(1, 1, SNAPSHOT)
    training.record_diagnosis(1, 1, DIAGNOSIS)
    training.flush()
    assert [event for event, _ in follower.news()] == ["snapshots", "diagnoses", "status"]
    training.record_diagnosis(1, 1, DIAGNOSIS | {"where": "4"})
    training.record_snapshot(2, 1, SNAPSHOT)
    training.flush()
    (_, snapshots), (_, diagnoses) = follower.news()
    assert [snapshot["step"] for snapshot in snapshots["snapshots"]] == [2]
    assert [diagnosis["where"] for diagnosis in diagnoses["diagnoses"]] == ["4"]
    assert follower.news() == []


def test_a_run_that_nobody_touches_is_not_read(training, monkeypatch):
    monkeypatch.setattr(events, "UNSEEN_SECONDS", 1000.0)
    follower = Follower(Run.open(training.path), None)
    follower.news()
    monkeypatch.setattr(Run, "history", lambda *_: pytest.fail("it was read"))
    assert follower.news() == []


def test_a_killed_run_is_told_as_interrupted(training):
    follower = Follower(Run.open(training.path), None)
    follower.news()
    training._lock.release()  # as when its process dies
    assert follower.news() == [("status", {"status": "interrupted", "reason": "its process is gone"})]
    training._lock.acquire()


def test_a_folder_that_vanishes_ends_the_stream(site, training, monkeypatch):
    monkeypatch.setattr(events, "POLL_SECONDS", 0.0)
    news, counted = Follower.news, []

    def vanishing(self):
        counted.append(1)
        if len(counted) == 3:
            (training.path / "metrics.sqlite").rename(training.path / "gone")
        return news(self)

    monkeypatch.setattr(Follower, "news", vanishing)
    monkeypatch.setattr(events, "UNSEEN_SECONDS", 0.0)
    told = parsed(site.get("/api/runs/live/events").text)
    (training.path / "gone").rename(training.path / "metrics.sqlite")
    assert told[-1][0] == "status"
    assert told[-1][1]["status"] == "damaged"
