"""The app in this process, with a few runs, and a browser that knows the token."""

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from chainrule.errors import ConfigError
from chainrule.train.store import Run
from chainrule.ui.server import create_app

PORT = 8123
TOKEN = "the-token-of-the-tests"


@dataclass
class Recorded:
    """Replays that write down what they were asked, instead of training a network again."""

    asked: list[Any] = field(default_factory=list)

    def explain(self, run: Path, step: int, row: int | None) -> dict[str, Any]:
        self.asked.append((run.name, step, row))
        if run.name == "foreign":
            raise ConfigError("foreign was made from Python; replay it there: cr.replay(...).")
        return {"format": "chainrule explanation 1", "step": step, "loss": float("nan")}

    def diff(self, first: Path, second: Path) -> Any:
        self.asked.append((first.name, second.name))
        return {"step": 3}


class Client:
    """A browser without the token, that waits for each answer."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}")
        self.runner = runner

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.runner.run(self.http.request(method, path, **more))


@dataclass
class Site:
    """`get` and the like send the token; `client` does not."""

    root: Path
    client: Client
    replays: Recorded

    def get(self, path: str, **more: Any) -> Any:
        return self.request("GET", path, **more)

    def post(self, path: str, value: Any, **more: Any) -> Any:
        return self.request("POST", path, json=value, **more)

    def request(self, method: str, path: str, headers: Any = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"} | (headers or {})
        return self.client.request(method, path, headers=headers, **more)


@pytest.fixture(scope="session")
def ended_runs(tmp_path_factory):
    """A folder with the runs `first` (finished), `second` (stopped) and `foreign`, for copying."""
    root = tmp_path_factory.mktemp("ended")
    for name, steps in (("first", 4), ("second", 2), ("foreign", 1)):
        with Run.create(root, name, config={"epochs": 2, "rate": float("inf")}, monitor="loss") as run:
            for step in range(1, steps + 1):
                run.record(step, 1 + step // 3, loss=1 / step)
            run.log("a line")
            run.set_status("finished" if name == "first" else "stopped", "all done")
    return root


@pytest.fixture
def site(tmp_path, ended_runs):
    """The app with three runs."""
    root, static = tmp_path / "runs", tmp_path / "static"
    shutil.copytree(ended_runs, root)
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>chainrule</title>")
    (static / "icon.svg").write_text("<svg/>")
    (static / "assets" / "app.js").write_text("export {};")
    replays = Recorded()
    app = create_app(root, TOKEN, PORT, replays, tickets=["a-ticket"], static=static)
    with asyncio.Runner() as runner:
        yield Site(root, Client(app, runner), replays)
