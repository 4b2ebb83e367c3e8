"""The routes of runs: the list, one run, its history, what it recorded, its log; steps explained, runs compared."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chainrule.train.checkpoint import list_checkpoints
from chainrule.train.store import Run
from chainrule.ui import folders
from chainrule.ui.answers import Answer, Refused, read_object, single_queries, whole_query
from chainrule.ui.events import stream
from chainrule.ui.fields import Fields
from chainrule.ui.work import Workers

LOG_LINES = 500
MOST_STEPS = 10**12


class Replays(Protocol):
    """What needs the model and the data of a run again. Who knows how runs were made provides it: the command line."""

    def explain(self, run: Path, step: int, row: int | None) -> dict[str, Any]:
        """Replay a step of a run and explain it. Raises ChainruleError when its folder does not tell how."""

    def diff(self, first: Path, second: Path) -> Any:
        """Where two runs part, as JSON values."""


@dataclass(frozen=True)
class RunRoutes:
    """What the routes share. `closing` says that the server ends."""

    root: Path
    workers: Workers
    replays: Replays
    closing: Callable[[], bool]

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/runs", self.every, methods=["GET"]),
            Route("/api/runs/{name}", self.one, methods=["GET"]),
            Route("/api/runs/{name}/history", self.history, methods=["GET"]),
            Route("/api/runs/{name}/snapshots", self.snapshots, methods=["GET"]),
            Route("/api/runs/{name}/diagnoses", self.diagnoses, methods=["GET"]),
            Route("/api/runs/{name}/events", self.events, methods=["GET"]),
            Route("/api/runs/{name}/log", self.log, methods=["GET"]),
            Route("/api/runs/{name}/explain", self.explain, methods=["POST"]),
            Route("/api/runs/{name}/diff", self.diff, methods=["GET"]),
        ]

    async def every(self, request: Request) -> Response:
        """The runs, in the order in which they began."""
        whole_query(request)
        return await to_thread.run_sync(self._list)

    def _list(self) -> Response:
        found = folders.runs_in(self.root)
        return Answer({"root": str(self.root), "runs": [folders.summary(run) for run in found]})

    async def one(self, request: Request) -> Response:
        """A run with its configuration and checkpoints."""
        whole_query(request)
        return Answer(await to_thread.run_sync(details, self.root, request.path_params["name"]))

    async def history(self, request: Request) -> Response:
        """What was measured after a step."""
        return await self._read(request, "rows", Run.history)

    async def snapshots(self, request: Request) -> Response:
        """What was recorded of layers and parameters after a step."""
        return await self._read(request, "snapshots", Run.snapshots)

    async def diagnoses(self, request: Request) -> Response:
        """What was diagnosed after a step."""
        return await self._read(request, "diagnoses", Run.diagnoses)

    async def _read(self, request: Request, name: str, read: Callable[[Run, int | None], Any]) -> Response:
        after = whole_query(request, "after").get("after")
        run_name = request.path_params["name"]
        # The answer is made on the thread too: a long history takes its time to become text.
        return await to_thread.run_sync(lambda: Answer({name: read(folders.opened(self.root, run_name), after)}))

    async def events(self, request: Request) -> Response:
        """News of a run as they come, as server-sent events; see events.py."""
        after = whole_query(request, "after").get("after")
        last = request.headers.get("last-event-id", "")  # a browser that lost the connection says where it was
        if last.isascii() and last.isdecimal() and len(last) <= 15:
            after = int(last)
        run = await to_thread.run_sync(folders.opened, self.root, request.path_params["name"])
        return StreamingResponse(stream(run, after, self.closing), media_type="text/event-stream")

    async def log(self, request: Request) -> Response:
        """The last lines that it wrote for people."""
        whole_query(request)
        path = folders.find(self.root, request.path_params["name"]) / "log.txt"
        return Answer({"lines": await to_thread.run_sync(folders.last_lines, path, LOG_LINES)})

    async def explain(self, request: Request) -> Response:
        """A step replayed and explained."""
        fields = Fields(await read_object(request))
        step = fields.whole("step", 1, MOST_STEPS)
        row = None if fields.values.get("row") is None else fields.whole("row", 0, MOST_STEPS)
        fields.take("row", None)
        fields.end()
        path = folders.find(self.root, request.path_params["name"])
        return await self.workers.run(lambda: Answer(self.replays.explain(path, step, row)))

    async def diff(self, request: Request) -> Response:
        """Where this run and another part."""
        other = single_queries(request, "with").get("with")
        if other is None:
            raise Refused(400, "Say with which run to compare: ?with=NAME.")
        first, second = folders.find(self.root, request.path_params["name"]), folders.find(self.root, other)
        return await self.workers.run(lambda: Answer(self.replays.diff(first, second)))


def details(root: Path, name: str) -> dict[str, Any]:
    """A run as its page shows it."""
    run = folders.opened(root, name)
    return {
        **folders.summary(run.summary()),
        "config": run.config,
        "monitor": run.monitor,
        "mode": run.mode,
        "checkpoints": [{"step": kept.step, "best": kept.best} for kept in list_checkpoints(run.checkpoints)],
    }
