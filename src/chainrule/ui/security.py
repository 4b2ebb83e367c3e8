"""Who may ask: everything passes the Guard first.

The server listens on this machine only, but every page that the browser shows can send requests to it, and every user
and program of this machine can connect. So a request needs the token, a Host that is ours (a foreign name that its
owner points to 127.0.0.1 has another: DNS rebinding), and, where the browser says where it comes from, our own origin.

Source: OWASP, "Cross-Site Request Forgery Prevention"; W3C, "Fetch Metadata Request Headers".
"""

import asyncio
import hmac
import logging
import re
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainrule.ui.answers import Answer, Refused

METHODS = ("GET", "POST", "DELETE")
LARGEST_BODY = 1 << 20
LARGEST_ADDRESS = 2048
LARGEST_HEADERS = 16384
BODY_SECONDS = 30.0

ENCODED = re.compile(rb"%(2f|5c|[01][0-9a-f]|7f)|\\\\", re.IGNORECASE)  # what has no business in a name

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = logging.getLogger("chainrule.ui")


class Guard:
    """Passes on to `app` what is allowed, refuses the rest, and puts headers on every answer.

    `tickets` are tokens that count once. The browser that we open gets one, since its command line, which the other
    users of this machine can read, has the address.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, tickets: Iterable[str] = ()) -> None:
        self.app, self.token, self.tickets = app, token.encode(), {ticket.encode() for ticket in tickets}
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if port == 80:  # which browsers leave out
            self.hosts |= {"127.0.0.1", "localhost", "[::1]"}
        # Browsers keep the cookies of all ports of a host together: two servers need two names.
        self.cookie = f"chainrule_token_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_security_headers(scope["path"], message["status"])]
            await send(message)

        try:
            entry = self._check(scope)
            if entry is not None:
                await entry(scope, receive, send_with_headers)
                return
            if scope["method"] == "POST":
                receive = _with_body(await _read_body(receive), receive)
            await self.app(scope, receive, send_with_headers)
        except Refused as refusal:
            answer = Answer({"error": str(refusal)}, refusal.status, {"Connection": "close"})
            await answer(scope, receive, send_with_headers)
        except Exception as error:
            log.error("This is a mistake of chainrule: %s: %s", type(error).__name__, error)
            log.debug("where it happened", exc_info=error)

    def _check(self, scope: Scope) -> Response | None:
        """Raise Refused unless the request is allowed. A response is that to the address with the token in it."""
        headers = _Headers(scope)
        if headers.size > LARGEST_HEADERS:
            raise Refused(431, f"The headers are larger than {LARGEST_HEADERS:,} bytes.")
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > LARGEST_ADDRESS:
            raise Refused(414, f"The address is longer than {LARGEST_ADDRESS:,} bytes.")
        if not {".", ".."}.isdisjoint(scope["path"].split("/")) or ENCODED.search(scope.get("raw_path") or b""):
            raise Refused(400, "The address has . or .. as a part, or a slash or control character in disguise.")
        if scope["method"] not in METHODS:
            raise Refused(405, f"{scope['method']} is not answered here; {', '.join(METHODS)} are.")
        host = headers.only("host")
        if host is None or host.lower() not in self.hosts:
            raise Refused(421, f"This server is {' or '.join(sorted(self.hosts))}, not {(host or '')[:80]!r}.")
        self._check_origin(headers)
        length = headers.only("content-length")
        if length is not None and (not length.isdecimal() or len(length) > 15 or int(length) > LARGEST_BODY):
            raise Refused(413, f"The body is larger than {LARGEST_BODY:,} bytes.")
        if scope["path"] == "/" and scope["method"] == "GET" and (given := _token_in(scope)) is not None:
            return self._entry(given)
        if not self._knows_token(headers):
            raise Refused(401, "The token is missing or wrong. Open the address that `chainrule ui` printed.")
        return None

    def _check_origin(self, headers: "_Headers") -> None:
        origins = headers.all("origin")
        if any(not origin.startswith("http://") or origin[7:].lower() not in self.hosts for origin in origins):
            raise Refused(403, f"A page of {origins[0][:80]!r} may not use this server.")
        # "same-site" are the servers on other ports of this machine.
        if any(site.lower() not in ("same-origin", "none") for site in headers.all("sec-fetch-site")):
            raise Refused(403, "Another page sent you here. Copy the address into the address bar instead.")

    def _entry(self, given: bytes) -> Response:
        """The cookie, and on to the address without the token, which then stands in no history and no bookmark."""
        ticket = next((t for t in self.tickets if hmac.compare_digest(t, given)), None)
        if ticket is not None:
            self.tickets.discard(ticket)
        elif not hmac.compare_digest(self.token, given):
            raise Refused(401, "The token is wrong. Open the address that `chainrule ui` printed.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self.token.decode(), httponly=True, samesite="strict")
        return answer

    def _knows_token(self, headers: "_Headers") -> bool:
        given = [value[7:] for value in headers.all("authorization") if value[:7].lower() == "bearer "]
        for line in headers.all("cookie"):
            pairs = (pair.strip().partition("=") for pair in line.split(";"))
            given += [value for name, _, value in pairs if name == self.cookie]
        return any([hmac.compare_digest(self.token, value.encode("latin-1")) for value in given])


def _token_in(scope: Scope) -> bytes | None:
    """The token in the address; None where there is none, and no token at all where there are several."""
    values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("token")
    return None if values is None else values[0].encode() if len(values) == 1 else b""


class _Headers:
    """The headers of a request as text."""

    def __init__(self, scope: Scope) -> None:
        self.pairs = [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        self.size = sum(len(name) + len(value) + 4 for name, value in self.pairs)

    def all(self, name: str) -> list[str]:
        return [value.strip() for other, value in self.pairs if other == name]

    def only(self, name: str) -> str | None:
        """The value of a header that is there once; 400 when it is there twice."""
        values = self.all(name)
        if len(values) > 1:
            raise Refused(400, f"The header {name} is there {len(values)} times.")
        return values[0] if values else None


def _security_headers(path: str, status: int) -> list[tuple[bytes, bytes]]:
    # The names of the app's files tell no version, so browsers ask each time whether theirs is the latest.
    headers = HEADERS | {"Cache-Control": "no-cache" if path.startswith("/assets/") and status < 400 else "no-store"}
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _read_body(receive: Receive) -> bytes:
    """The whole body. What was announced may be a lie, and a body in chunks announces nothing: so it is counted."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The request ended before its body did.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > LARGEST_BODY:
                    raise Refused(413, f"The body is larger than {LARGEST_BODY:,} bytes.")
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.") from None


def _with_body(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
