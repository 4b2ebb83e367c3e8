"""Who does not know the token, comes from elsewhere or sends nonsense is refused, with a status and no traceback."""

import json
import os

import pytest

from chainrule.train.store import Run
from chainrule.ui.security import LARGEST_BODY

from .conftest import PORT, TOKEN

API = "/api/runs"


def refused(response, status):
    """Refused with this status, one clear message, and the headers that every answer has."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert response.json()["error"]
    assert "Traceback" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    return response.json()["error"]


# the token


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/assets/app.js", "/icon.svg", API, "/api/runs/first", "/nowhere"]
)
def test_nothing_is_answered_without_the_token(site, path):
    refused(site.client.get(path), 401)


@pytest.mark.parametrize(
    "given",
    ["Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", TOKEN, f"Basic {TOKEN}", "Bearer \xff\xfe"],
)
def test_a_wrong_token_is_refused(site, given):
    refused(site.client.get(API, headers={"Authorization": given.encode("latin-1")}), 401)


def test_a_wrong_cookie_is_refused(site):
    for cookie in (f"chainrule_token_{PORT}=wrong", f"chainrule_token={TOKEN}", f"other={TOKEN}", "=", "\xff"):
        refused(site.client.get(API, headers={"Cookie": cookie.encode("latin-1")}), 401)


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(site):
    answer = site.client.get(f"/?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert answer.content == b""
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "domain" not in cookie
    assert site.client.get("/").text.startswith("<!doctype html>")  # the client keeps cookies
    assert site.client.get(API).status_code == 200


@pytest.mark.parametrize("query", ["token=wrong", "token=", "token", f"token={TOKEN}&token={TOKEN}", f"Token={TOKEN}"])
def test_a_wrong_token_in_the_address_is_refused(site, query):
    answer = site.client.get(f"/?{query}")
    refused(answer, 401)
    assert "set-cookie" not in answer.headers


def test_the_token_among_much_else_in_the_address_counts_and_only_for_a_get(site):
    many = "&".join(f"a{k}=1" for k in range(200))
    assert site.client.get(f"/?{many}&token={TOKEN}").status_code == 303
    refused(site.client.get(f"/?{many}"), 400)  # known by the cookie now
    other = site.client.request("POST", f"/?token={TOKEN}", headers={"Cookie": ""})
    refused(other, 401)
    assert "set-cookie" not in other.headers


def test_the_token_counts_in_the_address_of_the_first_page_only(site):
    for path in (API, "/index.html", "/assets/app.js"):
        answer = site.client.get(f"{path}?token={TOKEN}")
        refused(answer, 401)
        assert "set-cookie" not in answer.headers


def test_the_ticket_of_the_browser_that_we_open_counts_once(site):
    assert site.client.get("/?token=a-ticket").status_code == 303
    refused(site.client.get("/?token=a-ticket"), 401)
    refused(site.client.get(API, headers={"Authorization": "Bearer a-ticket", "Cookie": ""}), 401)


# where a request comes from


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}.evil.example", "0.0.0.0",
     f"0.0.0.0:{PORT}", f"localhost.evil.example:{PORT}", f"user@127.0.0.1:{PORT}", "", f"2130706433:{PORT}"],
)  # fmt: skip
def test_a_foreign_host_is_refused_even_with_the_token(site, host):
    refused(site.get(API, headers={"Host": host}), 421)
    refused(site.client.get(f"/?token={TOKEN}", headers={"Host": host}), 421)


@pytest.mark.parametrize("host", [f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"127.0.0.1:{PORT}", f"[::1]:{PORT}"])
def test_the_names_of_this_machine_are_its_own(site, host):
    assert site.get(API, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1", f"https://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT + 1}",
     f"http://127.0.0.1:{PORT}.evil.example", f"http://127.0.0.1:{PORT}/", "file://"],
)  # fmt: skip
def test_a_foreign_origin_is_refused(site, origin):
    refused(site.get(API, headers={"Origin": origin}), 403)
    refused(site.post("/api/playground", {}, headers={"Origin": origin}), 403)
    refused(site.client.get(f"/?token={TOKEN}", headers={"Origin": origin}), 403)


def test_the_own_origin_is_welcome(site):
    assert site.get(API, headers={"Origin": f"http://127.0.0.1:{PORT}"}).status_code == 200


@pytest.mark.parametrize("place", ["cross-site", "same-site", "Cross-Site", "something new"])
def test_requests_that_other_pages_cause_are_refused(site, place):
    refused(site.get(API, headers={"Sec-Fetch-Site": place}), 403)
    refused(site.client.get(f"/?token={TOKEN}", headers={"Sec-Fetch-Site": place, "Sec-Fetch-Mode": "navigate"}), 403)


@pytest.mark.parametrize("place", ["same-origin", "none"])
def test_requests_of_the_own_page_and_the_address_bar_are_answered(site, place):
    assert site.get(API, headers={"Sec-Fetch-Site": place}).status_code == 200


def test_no_answer_allows_other_origins_to_read_or_frame_it(site):
    for answer in (site.get("/"), site.get(API), site.get("/assets/app.js"), site.client.get(API)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers


# what is asked for


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(site, method):
    answer = site.request(method, API)
    assert answer.status_code == 405
    assert method == "HEAD" or "error" in answer.json()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", API), ("DELETE", "/api/runs/first"), ("POST", "/api/runs/first"), ("GET", "/api/runs/first/explain"),
     ("DELETE", "/"), ("POST", "/"), ("POST", "/assets/app.js"), ("GET", "/api/playground"),
     ("GET", "/api/playground/x"), ("DELETE", "/api/playground/datasets/"), ("DELETE", "/assets/app.js")],
)  # fmt: skip
def test_methods_that_an_address_does_not_take_are_refused(site, method, path):
    answer = site.request(method, path, **({"json": {}} if method == "POST" else {}))
    assert answer.status_code in (404, 405)
    assert "error" in answer.json()


TRAVERSALS = [
    "..", ".", "../first", "..%2ffirst", "%2e%2e", "%2e%2e%2f%2e%2e", "..%5c..", "%252e%252e%252f",
    "first%2f..%2fsecond", "first%2f", "%2ffirst", "first%00", "%00", "first%0a", "//first", "..;/first",
    "%c0%ae%c0%ae", "~", "%2f%2fetc%2fpasswd", "....//", "\\..\\", "C:", "first%20", "FIRST", "%ff",
    "first%2fconfig.json", "*", "first?x", "",
]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
@pytest.mark.parametrize("part", ["", "/history", "/log", "/events"])
def test_names_that_lead_elsewhere_are_refused(site, name, part):
    (site.root.parent / "log.txt").write_text("secret")
    (site.root.parent / "config.json").write_text((site.root / "first" / "config.json").read_text())
    answer = site.get(f"/api/runs/{name}{part}" if name != "first?x" else "/api/runs/first?x")
    # Clients take "." and ".." out of addresses by themselves; what then is asked for may be the list.
    assert answer.status_code in (400, 404) or "runs" in answer.json()
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/assets/..%2f..%2fruns/first/log.txt", "/..%2fruns%2ffirst%2flog.txt", "/assets/", "/%2e%2e/runs/first/log.txt",
     "/assets", "//etc/passwd", "/%2fetc%2fpasswd", "/a%00b"],
)  # fmt: skip
def test_files_beside_the_app_are_not_served(site, path):
    answer = site.get(path)
    refused(answer, 400 if "%" in path else 404)


def test_files_that_links_lead_to_are_not_served(site):
    static = site.root.parent / "static"
    (static / "assets" / "secret.js").symlink_to(site.root / "first" / "log.txt")
    refused(site.get("/assets/secret.js"), 404)


def test_runs_that_links_lead_to_are_not_listed(site):
    elsewhere = site.root.parent / "elsewhere"
    with Run.create(elsewhere, "other") as run:
        run.set_status("finished")
    os.symlink(elsewhere / "other", site.root / "linked")
    os.symlink(site.root / "first", site.root / "twice")
    assert {run["name"] for run in site.get(API).json()["runs"]} == {"first", "second", "foreign"}
    for name in ("linked", "twice"):
        for part in ("", "/history", "/log", "/events"):
            refused(site.get(f"/api/runs/{name}{part}"), 404)
        refused(site.get(f"/api/runs/first/diff?with={name}"), 404)


@pytest.mark.parametrize("part", ["log.txt", "metrics.sqlite", "config.json", "checkpoints"])
def test_parts_of_runs_that_links_lead_to_are_not_read(site, part):
    elsewhere = site.root.parent / "elsewhere"
    (site.root / "first" / part).rename(elsewhere)
    (site.root / "first" / part).symlink_to(elsewhere)
    assert "first" not in {run["name"] for run in site.get(API).json()["runs"]}
    refused(site.get("/api/runs/first/log"), 404)


# how much and what is sent


def test_an_announced_body_that_is_too_large_is_refused(site):
    refused(site.request("POST", "/api/playground", content=b" " * (LARGEST_BODY + 1)), 413)
    for length in ("99999999999", "9" * 30, "-1", "1e3", "0x10"):
        refused(site.request("POST", "/api/playground", content=b"", headers={"Content-Length": length}), 413)


def test_a_body_in_chunks_that_is_too_large_is_refused(site):
    async def chunks():
        for _ in range(LARGEST_BODY // 65536 + 2):
            yield b" " * 65536

    refused(site.request("POST", "/api/playground", content=chunks()), 413)


def test_a_body_of_the_largest_size_is_read(site):
    body = json.dumps({"seed": 1}).encode()
    body += b" " * (LARGEST_BODY - len(body))
    answer = site.request("POST", "/api/playground", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def test_addresses_and_headers_that_are_too_long_are_refused(site):
    refused(site.get(f"/api/runs/{'x' * 3000}"), 414)
    refused(site.get(f"{API}?{'x' * 3000}"), 414)
    refused(site.get(API, headers={"X-Long": "x" * 20000}), 431)
    refused(site.get(API, headers={f"X-{i}": "x" * 100 for i in range(200)}), 431)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_bodies_that_any_page_can_send_are_refused(site, kind):
    refused(site.request("POST", "/api/playground", content=b"{}", headers={"Content-Type": kind}), 415)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b"null", b'"x"', b"{'a': 1}", b'{"seed": NaN}', b'{"seed": Infinity}',
     b'{"seed": -Infinity}', b"\xff\xfe", b'{"seed": 1, "seed": 2}', b"[" * 100000, b'{"a":' * 100000,
     b'{"layers": ' + b"[" * 60 + b"]" * 60 + b"}", b'{"seed": ' + b"9" * 10000 + b"}", b'{"noise": 1e999}',
     b'{"seed": 1} x', b"\x00", "{}".encode("utf-16")[:3]],
)  # fmt: skip
def test_bodies_that_are_no_plain_json_objects_are_refused(site, body):
    headers = {"Content-Type": "application/json"}
    refused(site.request("POST", "/api/playground", content=body, headers=headers), 400)
    refused(site.request("POST", "/api/runs/first/explain", content=body, headers=headers), 400)


@pytest.mark.parametrize(
    "query",
    ["after=-1", "after=x", "after=", "after=1&after=2", "before=1", "after=1e3", "after=٣", f"after={'9' * 16}",
     "after=1.5", "after=nan"],
)  # fmt: skip
def test_queries_that_make_no_sense_are_refused(site, query):
    for part in ("history", "snapshots", "events"):
        refused(site.get(f"/api/runs/first/{part}?{query}"), 400)
