"""The server as a process of its own: live news of a run that trains, clients that misbehave, and its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

import chainrule
from chainrule.cli import main
from chainrule.cli import ui as command
from chainrule.train.store import Run
from chainrule.ui import server as module

from .test_runs import parsed

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(chainrule.__file__).parents[1]), "BROWSER": "false"}
COMMAND = "from chainrule.cli.main import run; run()"
TRAINING = """
import sys, time
import numpy as np
import chainrule as cr
from chainrule import losses, nn, optim

class Slower(cr.train.Callback):
    def on_epoch(self, *_):
        time.sleep(0.05)

x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
cr.fit(nn.Linear(3, 1), (x, x.sum(1, keepdims=True)), loss=losses.mse, optimizer=optim.SGD(lr=0.01), epochs=60,
       batch_size=16, seed=0, run_dir=sys.argv[1] + "/live", progress="silent", callbacks=[Slower()])
"""


class Process:
    """`chainrule ui`, started, with its address at hand."""

    def __init__(self, root, *options, environment=ENVIRONMENT):
        arguments = [sys.executable, "-c", COMMAND, "ui", "--runs", str(root), *options]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.line = self.process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+)/\?token=(\S+)", self.line)
        assert found, self.line + self.process.stderr.read()
        self.host, self.port, self.token = found[1], int(found[2]), found[3]
        self.address = f"http://{self.host}:{self.port}"
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def client(self):
        return httpx.Client(base_url=self.address, headers=self.headers, timeout=30, trust_env=False)

    def raw(self, head, body=b""):
        """The status line that comes back for bytes as they are."""
        with closing(socket.create_connection((self.host, self.port), 10)) as connection:
            connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
            pieces = [connection.recv(65536)]
            while pieces[-1] and "Connection: close\n" in head:
                pieces.append(connection.recv(65536))
            return b"".join(pieces).decode("latin-1")

    def get(self, path, *more):
        """A GET whose path no client has tidied."""
        headers = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Authorization: Bearer {self.token}"]
        return self.raw("\n".join([*headers, *more, "Connection: close", "", ""]))

    def interrupt(self):
        """Ctrl-C; how long it took to end, in seconds."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        return time.monotonic() - begun

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def server(tmp_path):
    with Process(tmp_path, "--no-open") as process:
        yield process


def test_events_arrive_while_another_process_trains(server, tmp_path):
    training = subprocess.Popen([sys.executable, "-c", TRAINING, str(tmp_path)], env=ENVIRONMENT)
    try:
        with server.client() as client:
            deadline = time.monotonic() + 60
            while not client.get("/api/runs").json()["runs"] and time.monotonic() < deadline:
                time.sleep(0.05)
            text, alive = "", []
            with client.stream("GET", "/api/runs/live/events") as answer:
                assert answer.status_code == 200
                for piece in answer.iter_text():
                    text += piece
                    alive.append(("event: history" in piece, training.poll() is None))
        assert training.wait(60) == 0
    finally:
        training.kill()
    told = parsed(text)
    assert sum(history and living for history, living in alive) >= 2  # live, and not all at the end
    assert told[-1] == ("status", {"status": "finished", "reason": "all 60 epochs done"})
    rows = {}
    for event, data in told:
        for row in data["rows"] if event == "history" else ():
            rows[row["step"]] = row
    assert list(rows.values()) == json.loads(json.dumps(Run.open(tmp_path / "live").history()))


def test_ctrl_c_ends_it_at_once_with_clients_connected(server, tmp_path):
    with Run.create(tmp_path, "running") as run, ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(server.client())
            answer = stack.enter_context(client.stream("GET", "/api/runs/running/events"))
            assert next(answer.iter_text()).startswith("event: status")
        client = stack.enter_context(server.client())  # one that stays connected and silent
        name = client.post("/api/playground", json={"layers": [8] * 6, "rows": 2000, "batch": 2000}).json()["id"]
        half = stack.enter_context(closing(socket.create_connection((server.host, server.port))))
        half.sendall(b"POST /api/playground HTTP/1.1\r\nHost: x\r\nContent-")  # and one in the middle of a request

        def long():
            with pytest.raises(httpx.HTTPError):
                client.post(f"/api/playground/{name}/step", json={"steps": 1000}).raise_for_status()

        computing = threading.Thread(target=long)
        computing.start()
        time.sleep(0.5)
        seconds = server.interrupt()
        computing.join()
        assert server.process.returncode == 0
        # Nobody was waited for in vain: after the second that clients have, uvicorn would say whom it cuts off.
        assert server.process.stderr.read() == ""
        assert seconds < 5, "0.7 s on a quiet machine"
        run.set_status("finished")


def test_many_clients_follow_one_run(server, tmp_path):
    with Run.create(tmp_path, "running") as run, ExitStack() as stack:
        streams = []
        for _ in range(20):
            client = stack.enter_context(server.client())
            streams.append(stack.enter_context(client.stream("GET", "/api/runs/running/events")))
        run.record(1, 1, loss=0.5)
        run.set_status("finished")
        for stream in streams:
            told = parsed("".join(stream.iter_text()))
            assert [row["loss"] for event, data in told if event == "history" for row in data["rows"]] == [0.5]
            assert told[-1][1]["status"] == "finished"


def test_clients_that_go_leave_nothing_behind(server, tmp_path):
    with Run.create(tmp_path, "running") as run:
        for _ in range(200):  # more than may be connected at a time
            with closing(socket.create_connection((server.host, server.port), 10)) as connection:
                connection.sendall(
                    f"GET /api/runs/running/events HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n"
                    f"Authorization: Bearer {server.token}\r\n\r\n".encode()
                )
                assert b"200 OK" in connection.recv(1000)
        with server.client() as client:
            assert client.get("/api/runs").status_code == 200
        run.set_status("finished")


PATHS = [
    "/api/runs/../../etc/passwd", "/api/runs/..", "/api/runs/../runs/first/log", "/api/runs/./first",
    "/../../etc/passwd", "/api/runs/..%2f..%2fetc%2fpasswd/log", "/api/runs/%2e%2e/log", "/api/runs/%252e%252e/log",
    "/assets/../index.html", "/api/runs/first%2flog", "/api/runs/first/../first/log", "/assets/..%2f..%2fserver.py",
    "/api/runs/\\..\\first/log", "/./", "//", "///api/runs", "/api//runs", "/api/runs/first%00/log",
    "/api/runs/first/", "/%61pi/%2e%2e/api/runs/x", "/server.py", "/static/index.html", "/..;/server.py",
    "/assets/%2e%2e/%2e%2e/server.py", "/API/runs",
]  # fmt: skip


def test_paths_as_no_browser_sends_them_lead_nowhere(server, tmp_path):
    with Run.create(tmp_path, "first") as run:
        run.log("secret")
        run.set_status("finished")
    assert " 200 " in server.get("/api/runs/first/log")
    for path in PATHS:
        answer = server.get(path)
        assert answer.startswith(("HTTP/1.1 404 ", "HTTP/1.1 400 ")), (path, answer)
        assert "secret" not in answer and "root:" not in answer


def test_requests_that_break_the_rules_of_http_are_refused(server):
    host = f"Host: 127.0.0.1:{server.port}\n"
    token = f"Authorization: Bearer {server.token}\n"
    post = f"POST /api/playground HTTP/1.1\n{host}{token}Content-Type: application/json\n"
    cases = {
        f"GET /api/runs HTTP/1.1\n{token}\n": "400",  # no host
        f"GET /api/runs HTTP/1.1\n{host}Host: evil.example\n{token}\n": "400",
        f"GET http://evil.example/api/runs HTTP/1.1\nHost: evil.example\n{token}\n": "421",
        f"{post}Content-Length: 10\nContent-Length: 20\n\n": "400",
        f"{post}Content-Length: -1\n\n": "400",
        f"{post}Content-Length: 99999999\n\n": "413",
        f"GET /api/runs HTTP/1.1\n{host}{token}X: {'x' * 40000}\n\n": "4",
        f"GET /{'x' * 40000} HTTP/1.1\n{host}{token}\n": "4",
        "nonsense\n\n": "400",
        "\x16\x03\x01\x02\x00\x01": "",
    }
    for head, status in cases.items():
        if status:
            assert server.raw(head).startswith(f"HTTP/1.1 {status}"), head[:60]
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert server.raw(f"{post}Transfer-Encoding: chunked\n\n", chunk * 20 + b"0\r\n\r\n").startswith("HTTP/1.1 413")
    with server.client() as client:
        assert client.get("/api/runs").status_code == 200


def test_the_token_and_its_cookie_open_the_app_and_stand_in_no_log(server):
    with httpx.Client(base_url=server.address, trust_env=False) as client:
        assert client.get("/api/runs").status_code == 401
        assert client.get(f"/?token={server.token}").status_code == 303
        assert client.get("/api/runs").json()["runs"] == []
    assert len(server.token) >= 43  # 32 random bytes
    server.interrupt()
    assert server.token not in server.process.stdout.read() + server.process.stderr.read()


def test_the_browser_is_opened_with_a_ticket_that_counts_once(tmp_path):
    note = tmp_path / "opened"
    script = tmp_path / "browser.py"
    script.write_text(f"import sys; open({str(note)!r}, 'w').write(sys.argv[1])")
    environment = ENVIRONMENT | {"BROWSER": f"{sys.executable} {script} %s"}
    with Process(tmp_path / "runs", environment=environment) as process:
        deadline = time.monotonic() + 20
        while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        opened = note.read_text()
        assert opened.startswith(f"{process.address}/?token=")
        assert process.token not in opened
        assert [httpx.get(opened, trust_env=False).status_code for _ in range(2)] == [303, 401]


def test_two_servers_tell_their_cookies_apart(server, tmp_path):
    with Process(tmp_path, "--no-open") as other, httpx.Client(trust_env=False) as browser:
        for process in (server, other):
            browser.get(f"{process.address}/?token={process.token}")
        for process in (server, other):
            assert browser.get(f"{process.address}/api/runs").status_code == 200


def test_steps_of_runs_are_replayed_and_explained_and_runs_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rate in (("one", "0.01"), ("two", "0.02")):
        assert main.execute(["train", "iris", "--epochs", "2", "--lr", rate, "--name", name, "-q"]) == 0
    with Run.create(tmp_path / "runs", "python", config={}) as run:
        run.record(1, 1, loss=0.5)
        run.set_status("finished")
    capsys.readouterr()
    with Process("runs", "--no-open") as server, server.client() as client:
        history = client.get("/api/runs/one/history").json()["rows"]
        for body in ({"step": 5}, {"step": 5, "row": 2}):
            told = client.post("/api/runs/one/explain", json=body)
            assert told.status_code == 200, told.text
            assert told.json()["format"] == "chainrule explanation 1"
            assert told.json()["step"] == 5
            assert (told.json()["loss"] == history[4]["batch_loss"]) == ("row" not in body)
        apart = client.get("/api/runs/one/diff?with=two").json()
        assert (apart["run"], apart["other"], apart["losses"][0]) == ("one", "two", 2)
        for answer in (client.post("/api/runs/one/explain", json={"step": 10**9}),
                       client.post("/api/runs/one/explain", json={"step": 5, "row": 10**9}),
                       client.post("/api/runs/python/explain", json={"step": 1})):  # fmt: skip
            assert answer.status_code == 409
            assert len(answer.json()["error"]) > 20


# the command


def shown(capsys, *arguments):
    code = main.execute(["ui", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and "mistake of chainrule" not in err
    return code, err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "127.0.0.2", "10.0.0.1"])
def test_addresses_that_others_reach_are_refused(capsys, host):
    code, err = shown(capsys, "--no-open", "--host", host)
    assert code == 2
    assert "127.0.0.1" in err


def test_a_port_that_is_taken_or_makes_no_sense_is_refused(capsys):
    with module.listening("127.0.0.1", 0) as listener:
        code, err = shown(capsys, "--no-open", "--port", str(listener.getsockname()[1]))
    assert (code, "--port 0" in err) == (2, True)
    for port in ("65536", "-1", "x"):
        assert shown(capsys, "--no-open", "--port", port)[0] == 2


def test_a_file_is_no_folder_of_runs(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert shown(capsys, "--no-open", "--runs", str(tmp_path / "file"))[0] == 2


def test_without_the_extra_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    code, err = shown(capsys, "--no-open")
    assert code == 1
    assert "pip install 'chainrule[ui]'" in err


def test_the_command_line_loads_no_server_before_it_is_asked_for():
    code = "import chainrule.cli.main, sys; print([m for m in ('starlette', 'uvicorn', 'anyio') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert found.stdout.strip() == "[]"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_is_served_too(tmp_path):
    try:
        module.listening("::1", 0).close()
    except chainrule.errors.ConfigError:
        pytest.skip("this machine has no address ::1")
    with Process(tmp_path, "--no-open", "--host", "::1") as process:
        assert process.address.startswith("http://[::1]:")
        with process.client() as client:
            assert client.get("/api/runs").status_code == 200
