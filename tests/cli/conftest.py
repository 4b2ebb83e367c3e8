"""A command line in this process: fast, with its output and exit code at hand."""

import contextlib
import io
import random
import shutil
from dataclasses import dataclass

import pytest

from chainrule.cli import main


@dataclass(frozen=True)
class Shown:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """`cli("train", "iris")` in an empty folder; nothing that a user does may show a traceback."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        code = main.execute([str(argument) for argument in arguments])
        shown = Shown(code, *capsys.readouterr())
        assert "Traceback" not in shown.out + shown.err
        assert "mistake of chainrule" not in shown.err
        return shown

    return run


def houses(rows=120, seed=0):
    """A table with numbers, a category and a price that follows from them."""
    draw = random.Random(seed)
    lines = ["size,age,city,price"]
    for _ in range(rows):
        size, age, city = round(draw.gauss(0, 1), 3), round(draw.uniform(1, 9), 2), draw.choice(["Bonn", "Köln", "Ulm"])
        lines.append(f"{size},{age},{city},{3 * size + age + 2 * (city == 'Ulm'):.3f}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def table(tmp_path):
    """`table("houses.csv")` writes a table of houses, or the text or bytes that are given."""

    def write(name, content=None):
        content = houses() if content is None else content
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with two short runs, for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "houses.csv").write_text(houses())
    houses_options = ["-t", "price", "--epochs", "15", "--name", "houses"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main.execute(["train", "houses.csv", *houses_options, "-q"]) == 0
        assert main.execute(["train", "iris", "--epochs", "10", "--name", "iris", "-q"]) == 0
    return folder


@pytest.fixture
def houses_run(cli, trained, tmp_path):
    """A copy of a run on houses.csv, which is there too."""
    shutil.copytree(trained / "runs/houses", tmp_path / "runs/houses")
    shutil.copy(trained / "houses.csv", tmp_path)
    config = tmp_path / "runs/houses/config.json"
    config.write_text(config.read_text().replace(str(trained), str(tmp_path)))
    return "runs/houses"


@pytest.fixture
def iris_run(cli, trained, tmp_path):
    """A copy of a run on the shipped iris."""
    shutil.copytree(trained / "runs/iris", tmp_path / "runs/iris")
    return "runs/iris"
