"""The routes of the playground, and its sessions: a bounded number of networks, the least recently used dropped."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chainrule.explanation.explaining import explain
from chainrule.ui import playground_data as data
from chainrule.ui.answers import Answer, Refused, read_object, whole_query
from chainrule.ui.fields import Fields
from chainrule.ui.playground import ACTIVATIONS, ENGINE, OPTIMIZERS, Playground, Settings
from chainrule.ui.playground_view import view
from chainrule.ui.work import Workers

MOST_SESSIONS = 16
IDLE_SECONDS = 1800.0
MOST_STEPS = 1000  # in a request
LAST_STEP = 100_000  # of a network: going back from there takes up to some 1,600 steps, see playground.Kept
MOST_LAYERS, MOST_UNITS = 6, 8
LEAST_ROWS, MOST_ROWS = 10, 2000


class Sessions:
    """Playgrounds by name.

    >>> from chainrule.ui.playground_api import Sessions
    >>> sessions = Sessions()
    >>> names = [sessions.add(f"network {i}") for i in range(17)]
    >>> sessions.get(names[1]), len(sessions.kept)
    ('network 1', 16)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.guard = clock, threading.Lock()
        self.kept: OrderedDict[str, tuple[float, Any]] = OrderedDict()  # the one used last stands last

    def add(self, playground: Any) -> str:
        """Keep one, for which another may have to go; returns its name."""
        name = secrets.token_urlsafe(12)
        with self.guard:
            self.kept[name] = self.clock(), playground
            self._sweep()
            while len(self.kept) > MOST_SESSIONS:
                self.kept.popitem(last=False)
        return name

    def get(self, name: str) -> Any:
        """The one of this name; 404 if there is none (any more)."""
        with self.guard:
            self._sweep()
            _, playground = self._pop(name)
            self.kept[name] = self.clock(), playground
            return playground

    def drop(self, name: str) -> None:
        """Forget the one of this name; 404 if there is none."""
        with self.guard:
            self._sweep()
            self._pop(name)

    def _pop(self, name: str) -> tuple[float, Any]:
        if name not in self.kept:
            raise Refused(
                404,
                f"There is no playground {name[:40]!r} (any more): {MOST_SESSIONS} are kept, each until "
                f"{IDLE_SECONDS / 60:.0f} minutes after its last use. Make it anew.",
            )
        return self.kept.pop(name)

    def _sweep(self) -> None:
        while self.kept and self.clock() - next(iter(self.kept.values()))[0] > IDLE_SECONDS:
            self.kept.popitem(last=False)


@dataclass(frozen=True)
class PlaygroundRoutes:
    """What the routes share."""

    sessions: Sessions
    workers: Workers

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/playground/datasets", self.datasets, methods=["GET"]),
            Route("/api/playground", self.make, methods=["POST"]),
            Route("/api/playground/{id}/step", self.step, methods=["POST"]),
            Route("/api/playground/{id}/to", self.to, methods=["POST"]),
            Route("/api/playground/{id}", self.drop, methods=["DELETE"]),
        ]

    async def datasets(self, request: Request) -> Response:
        """What there is to choose from."""
        whole_query(request)
        return Answer(
            {
                "datasets": data.titles(),
                "features": list(data.FEATURES),
                "activations": list(ACTIVATIONS),
                "optimizers": list(OPTIMIZERS),
                "limits": {"layers": MOST_LAYERS, "units": MOST_UNITS, "rows": MOST_ROWS, "steps": MOST_STEPS},
            }
        )

    async def make(self, request: Request) -> Response:
        """A new network and its data."""
        whole_query(request)
        return await self.workers.run(self._made, await read_object(request))

    def _made(self, body: dict[str, Any]) -> Response:
        points, settings = read_settings(body)
        playground = Playground(points, settings)
        state = seen(playground, explained=False)
        return Answer({"id": self.sessions.add(playground), "data": points.to_dict(), "state": state})

    async def step(self, request: Request) -> Response:
        """Some steps on, or, where the number is negative, back; never back beyond the beginning."""
        fields = Fields(await read_object(request))
        steps = fields.whole("steps", -MOST_STEPS, MOST_STEPS)
        return await self._go(request, fields, lambda playground: max(0, playground.step + steps))

    async def to(self, request: Request) -> Response:
        """To the state after so many steps."""
        fields = Fields(await read_object(request))
        step = fields.whole("step", 0, LAST_STEP)
        return await self._go(request, fields, lambda _: step)

    async def _go(self, request: Request, fields: Fields, where: Callable[[Playground], int]) -> Response:
        whole_query(request)
        explained = fields.flag("explain")
        fields.end()
        playground = self.sessions.get(request.path_params["id"])
        return await self.workers.run(lambda: Answer(go(playground, where, explained)))

    async def drop(self, request: Request) -> Response:
        """Forget a network."""
        whole_query(request)
        self.sessions.drop(request.path_params["id"])
        return Answer({})


def go(playground: Playground, where: Callable[[Playground], int], explained: bool) -> dict[str, Any]:
    """Bring a playground to a step; what is seen of it there."""
    with playground.lock:
        step = where(playground)
        if step > min(playground.step + MOST_STEPS, LAST_STEP):
            raise Refused(
                400,
                f"Step {step:,} is too far ahead of {playground.step:,}: a request makes up to {MOST_STEPS:,} steps, "
                f"and a network up to {LAST_STEP:,}.",
            )
        playground.go(step)
        return seen(playground, explained)


def seen(playground: Playground, explained: bool) -> dict[str, Any]:
    """The state as JSON values, on demand with the explanation of the step just made."""
    with np.errstate(all="ignore"):  # a learning rate that is too high is worth to be seen
        state = view(playground)
        return state | {"explanation": explanation(playground)} if explained else state


def explanation(playground: Playground) -> dict[str, Any]:
    """The explanation of the step just made, of its rows; at step 0 that of the first step."""
    model, optimizer = playground.before()
    number = max(playground.step, 1)
    x, y = playground.rows_of(number)
    found = explain(model, x, y, loss=playground.compare, optimizer=optimizer, step=number, engine=ENGINE)
    return found.to_dict()


def read_settings(body: dict[str, Any]) -> tuple[data.Points, Settings]:
    """The data and the network that a request asks for; 400 for what makes no sense."""
    fields = Fields(body)
    names = [title["id"] for title in data.titles()]
    name = fields.choice("dataset", [*names, "own"], "circle")
    seed = fields.whole("seed", 0, 2**31 - 1, 0)
    noise, rows = fields.number("noise", 0, 1, 0.1), fields.whole("rows", LEAST_ROWS, MOST_ROWS, 200)
    if name == "own":
        own = fields.inner("own")
        x, y, target = (own.numbers(column, LEAST_ROWS, MOST_ROWS) for column in ("x", "y", "target"))
        own.end()
    elif fields.take("own", None) is not None:
        raise Refused(400, f'own holds one\'s own columns, but the dataset is {name!r}; say "dataset": "own".')
    settings = Settings(
        features=fields.choices("features", list(data.FEATURES), ["x", "y"]),
        layers=fields.wholes("layers", 1, MOST_UNITS, MOST_LAYERS, [4, 3]),
        activation=fields.choice("activation", list(ACTIVATIONS), "tanh"),
        optimizer=fields.choice("optimizer", OPTIMIZERS, "sgd"),
        learning_rate=fields.number("learning_rate", 0, 1000, 0.03, above=True),
        regularisation=fields.number("regularisation", 0, 1000, 0),
        batch=fields.whole("batch", 1, MOST_ROWS, 10),
        seed=seed,
    )
    fields.end()
    points = data.own(x, y, target, seed) if name == "own" else data.drawn(name, rows, noise, seed)
    return points, settings
