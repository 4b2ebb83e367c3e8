"""The server: routes behind the Guard, on a socket that this machine alone can reach."""

import contextlib
import ipaddress
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from chainrule.errors import ChainruleError, ConfigError
from chainrule.ui.answers import Answer, Refused, whole_query
from chainrule.ui.playground_api import PlaygroundRoutes, Sessions
from chainrule.ui.runs_api import Replays, RunRoutes
from chainrule.ui.security import LARGEST_ADDRESS, LARGEST_HEADERS, Guard
from chainrule.ui.work import Workers

STATIC = Path(__file__).parent / "static"
REPLAYS = 1  # at a time; each may take all cores
PLAYS = 2
MOST_CONNECTIONS = 128
GRACE_SECONDS = 1  # for answers under way when the server ends


def create_app(
    root: Path,
    token: str,
    port: int,
    replays: Replays,
    *,
    tickets: Iterable[str] = (),
    closing: Callable[[], bool] = lambda: False,
    static: Path = STATIC,
) -> ASGIApp:
    """The application for the runs in `root`, to those who know the token, at a port of this machine.

    `replays` is what needs models and data of runs again; `closing` says that the server ends, which streams look at.
    """

    async def index(request: Request) -> Response:
        whole_query(request)
        if not (static / "index.html").is_file():
            raise Refused(503, f"The files of the app are missing from {static}. Install chainrule anew.")
        return FileResponse(static / "index.html")

    app = Starlette(
        routes=[
            Route("/", index, methods=["GET"]),
            *RunRoutes(root, Workers(REPLAYS, closing), replays, closing).routes(),
            *PlaygroundRoutes(Sessions(), Workers(PLAYS, closing)).routes(),
            Mount("/", StaticFiles(directory=static, check_dir=False)),
        ],
        exception_handlers={
            Refused: _refused,
            ChainruleError: _failed,
            HTTPException: _not_found,
            Exception: _mistaken,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, token, port, tickets)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return Answer({"error": str(error)}, error.status)


async def _failed(request: Request, error: Exception) -> Response:
    """What was asked for is right, but the run does not allow it: it is damaged, or its data were moved."""
    return Answer({"error": str(error)}, 409)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "There is nothing at this address.", 405: f"{request.method} is not answered at this address."}
    return Answer({"error": messages.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _mistaken(request: Request, error: Exception) -> Response:
    return Answer({"error": "This is a mistake of chainrule. The terminal says more."}, 500)


class _Server(uvicorn.Server):
    """Tells the streams at once when Ctrl-C is pressed: uvicorn alone would wait for them to end."""

    def __init__(self, config: uvicorn.Config, closing: threading.Event) -> None:
        super().__init__(config)
        self.closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.closing.set()
        super().handle_exit(sig, frame)


def serve(
    root: Path, host: str, port: int, replays: Replays, *, tell: Callable[[str], None], open_browser: bool
) -> None:
    """Serve until Ctrl-C. `tell` gets the address with the token in it, once the server can be reached.

    Raises ConfigError for a host that others can reach, and for a port that cannot be had.
    """
    closing = threading.Event()
    with listening(host, port) as listener:
        shown, port = listener.getsockname()[:2]
        home = f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
        token, ticket = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        tickets = [ticket] if open_browser else []
        app = create_app(root, token, port, replays, tickets=tickets, closing=closing.is_set)
        tell(f"{home}?token={token}")
        if open_browser:
            # Some browsers run in the terminal, and this call then lasts as long as they do.
            threading.Thread(target=webbrowser.open, args=(f"{home}?token={ticket}",), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has ended
            _Server(_config(app), closing).run([listener])


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # the one that limits what comes before the body
        h11_max_incomplete_event_size=LARGEST_HEADERS + LARGEST_ADDRESS,
        ws="none",
        lifespan="off",
        loop="asyncio",
        access_log=False,  # addresses hold the token
        log_level="error",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine that only this machine reaches."""
    address = "127.0.0.1" if host.lower() == "localhost" else host.strip("[]")
    if address not in ("127.0.0.1", "::1"):
        try:
            loopback = ipaddress.ip_address(address).is_loopback
        except ValueError:
            loopback = False
        more = "" if loopback else " Others could reach it there. From another machine use a tunnel: ssh -L."
        raise ConfigError(f"--host {host}: the server listens on 127.0.0.1, ::1 or localhost only.{more}")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # where it would let others listen at the same port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(MOST_CONNECTIONS)
    except OSError as error:
        made.close()
        raise ConfigError(
            f"Port {port} of {address} cannot be had: {error.strerror or error}. Try --port 0, which takes a free one."
        ) from error
    return made
