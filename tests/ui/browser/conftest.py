"""The app as people meet it: `chainrule ui` as a process, real runs, and Chromium without a window.

    pytest tests/ui/browser                     needs playwright, chromium, and `npm ci` in web/ (for axe-core)
    pytest tests/ui/browser --refresh-images    also writes the pictures in docs/images

Every test leaves a picture in .pytest_cache/d/screenshots.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
COMMAND = [sys.executable, "-c", "from chainrule.cli.main import run; run()"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}

DESKTOP, PROJECTOR, PHONE = (1440, 900), (1920, 1080), (360, 740)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refresh-images", action="store_true", help="write the pictures in docs/images")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chainrule(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Carry out a command to its end; its failure fails the test."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=where, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"chainrule {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    from playwright import sync_api  # only these tests need it

    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is not installed: these tests are run by name only, and then they need it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs: a healthy one, and one from Python whose sigmoids stop the gradient."""
    folder = tmp_path_factory.mktemp("work")
    chainrule("train", "digits", "--epochs", "30", "--patience", "30", "--name", "digits-healthy", where=folder)
    sick = [sys.executable, str(Path(__file__).parent / "sick.py"), "runs/digits-sigmoids"]
    subprocess.run(sick, cwd=folder, env=ENVIRONMENT, check=True, timeout=300)
    return folder


@dataclass
class Server:
    """`chainrule ui`, and the address that it printed."""

    origin: str
    token: str


@pytest.fixture(scope="session")
def server(workplace: Path) -> Iterator[Server]:
    """`chainrule ui` on a free port."""
    process = subprocess.Popen(
        [*COMMAND, "ui", "--runs", "runs", "--port", "0", "--no-open"],
        cwd=workplace,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Server(*_address(process))
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", line)
        if found:
            return found[1], found[2]
    raise AssertionError(f"chainrule ui did not begin: {''.join(said)}")


def save_for_documents(picture: Path, name: str) -> None:
    """Put a picture among those of the documents, in 256 colours, which are enough and a third of the size."""
    few_colours = Image.open(picture).convert("RGB").quantize(dither=Image.Dither.NONE)
    few_colours.save(ROOT / "docs" / "images" / name, optimize=True)


@dataclass
class Site:
    """Opens views of the app, and collects what the browser complains of."""

    browser: Any
    server: Server
    pictures: Path
    refresh: bool
    contexts: list[Any] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, view: str, size: tuple[int, int] = DESKTOP, **options: Any) -> Any:
        """A new window at this view (what stands behind #), with the token."""
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.complaints.append(f"{view}: {error}"))
        page.on("console", lambda said: said.type == "error" and self.complaints.append(f"{view}: {said.text}"))
        page.goto(f"{self.server.origin}/?token={self.server.token}")
        page.evaluate("view => { location.hash = view }", view)
        page.wait_for_selector("main h1", state="attached")
        return page

    def picture(self, page: Any, name: str, docs: bool = False, whole: bool = False) -> None:
        """Keep a picture; with `docs` it is one of the documents' when these are to be refreshed."""
        page.wait_for_timeout(200)
        page.screenshot(path=self.pictures / f"{name}.png", full_page=whole)
        if docs and self.refresh:
            save_for_documents(self.pictures / f"{name}.png", f"ui-{name}.png")


@pytest.fixture
def site(chromium: Any, server: Server, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The app, for one test. Errors in the browser's console fail the test."""
    pictures = request.config.cache.mkdir("screenshots")  # type: ignore[union-attr]
    site = Site(chromium, server, pictures, request.config.getoption("--refresh-images", default=False))
    yield site
    for context in site.contexts:
        context.close()
    assert site.complaints == []


@pytest.fixture(scope="session")
def accessible() -> Callable[[Any], None]:
    """Checks a page with axe-core: a list of violations, which must be empty."""
    if not AXE.is_file():
        pytest.fail("axe-core is missing. Run `npm ci` in web/.")
    source = AXE.read_text(encoding="utf-8")

    def check(page: Any) -> None:
        page.evaluate(source)
        violations = page.evaluate("async () => (await axe.run()).violations")
        assert [
            (violation["id"], [(node["target"], node["failureSummary"]) for node in violation["nodes"][:5]])
            for violation in violations
        ] == []

    return check


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that happens outside the browser."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
