"""Every Python block of the README and of docs/ runs and prints what the text says that it prints.

The blocks of a document run one after the other, as in one fresh session: in a process of their own, in an empty
folder, with warnings as errors. A block with `>>>` is a doctest. A `text` block that follows a Python block directly
must be what it prints. A `console` block holds shell commands behind `$ `, each followed by what it prints on either
stream; `chainrule` is the command of this tree. Other blocks are prose. In expected output `...` stands for anything.
"""

import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
FENCE = re.compile(r"^```([\w+-]*)[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@dataclass
class Block:
    """A block that runs, the number of its first line, and what it is said to print."""

    language: str
    code: str
    line: int
    output: str | None = None


def blocks(text):
    found = list(FENCE.finditer(text))
    result = []
    for i, fence in enumerate(found):
        if fence[1] not in ("python", "console"):
            continue
        block = Block(fence[1], fence[2], text.count("\n", 0, fence.start()) + 2)
        following = found[i + 1] if i + 1 < len(found) else None
        if following is not None and following[1] == "text" and not text[fence.end() : following.start()].strip():
            block.output = following[2]
        result.append(block)
    return result


def run(path):
    """Run the blocks of a document; the first that fails raises AssertionError or its own exception."""
    # The blocks must live in a real module: dataclasses and pickling look it up.
    namespace = vars(sys.modules["__main__"])
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "console":
            run_console(block, path)
            continue
        if ">>> " in block.code:
            test = doctest.DocTestParser().get_doctest(block.code, namespace, path.name, str(path), block.line - 1)
            report = io.StringIO()
            result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.write, clear_globs=False)
            assert result.failed == 0, report.getvalue()
            namespace.update(test.globs)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), namespace)
        right = block.output is None or doctest.OutputChecker().check_output(block.output, printed.getvalue(), OPTIONS)
        assert right, f"{path.name}:{block.line} printed\n{printed.getvalue()}\ninstead of\n{block.output}"


END = "\x1e"  # printed after each command of a console block


def run_console(block, path):
    """Run the commands of a block in one shell, and compare what each prints."""
    commands = [part.partition("\n") for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]]
    python = f"'{sys.executable}' -W error -X utf8 -c 'from chainrule.cli.main import run; run()'"
    script = [f'chainrule() {{ {python} "$@"; }}', "exec 2>&1"]
    for command, _, _ in commands:
        script += [command, f"code=$?; printf '{END}'; (exit $code)"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", "NO_COLOR": "1"}
    shell = shutil.which("bash")
    if shell is None:  # the sessions are written for it
        return
    done = subprocess.run([shell, "-c", "\n".join(script)], env=environment, capture_output=True, encoding="utf-8")
    printed = done.stdout.split(END)
    assert len(printed) == len(commands) + 1, f"{path.name}:{block.line} the shell ended early\n{done.stdout}"
    for (command, _, expected), found in zip(commands, printed, strict=False):
        right = doctest.OutputChecker().check_output(expected, found, OPTIONS)
        assert right, f"{path.name}:{block.line} $ {command} printed\n{found}\ninstead of\n{expected}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_does_what_it_says(path, tmp_path):
    if not blocks(path.read_text(encoding="utf-8")):
        return
    command = [sys.executable, "-W", "error", "-X", "utf8", "-c", STARTER, str(ROOT / "src"), __file__, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


STARTER = """
import importlib.util, pathlib, sys
source, tests, document = sys.argv[1:]
sys.path.insert(0, source)
specification = importlib.util.spec_from_file_location("docs_runner", tests)
runner = importlib.util.module_from_spec(specification)
sys.modules["docs_runner"] = runner
specification.loader.exec_module(runner)
runner.run(pathlib.Path(document))
"""


def test_a_wrong_document_is_noticed(tmp_path):
    """The test itself: code that raises, wrong output, and wrong doctests do not pass."""
    fence = "```"
    for i, body in enumerate(
        [
            f"{fence}python\nassert 1 == 2\n{fence}\n",
            f"{fence}python\nprint(1)\n{fence}\n\n{fence}text\n2\n{fence}\n",
            f"{fence}python\n>>> 1 + 1\n3\n{fence}\n",
            f"{fence}console\n$ echo one\none\n$ echo two\nthree\n{fence}\n",
        ]
    ):
        path = tmp_path / f"{i}.md"
        path.write_text(body, encoding="utf-8")
        with pytest.raises(AssertionError):
            run(path)


LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(path):
    targets = [m[1] for m in LINK.finditer(FENCE.sub("", path.read_text(encoding="utf-8")))]
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (path.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "images").glob("*")), ids=lambda path: path.name)
def test_pictures_are_small_and_used(path):
    assert path.stat().st_size < 150_000
    assert any(path.name in document.read_text(encoding="utf-8") for document in DOCUMENTS)


PATH = re.compile(r"`((?:src|tests|examples|docs|core|primitives|functions|program|control|passes|engines|nn|optim|"
                  r"data|generation|detection|train|cli|losses|random|observe|diagnosis|interop|explanation|"
                  r"replaying|ui)/[\w./-]*\w\.(?:py|md|png|svg))`")  # fmt: skip


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path):
    named = PATH.findall(path.read_text(encoding="utf-8"))
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "src/chainrule" / name).exists()]
    assert missing == []


def test_the_layout_has_every_package_and_every_file_of_passes_and_the_native_engine():
    layout = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "chainrule"
    files = [path for folder in ("", "passes", "engines/native") for path in (source / folder).glob("*.py")]
    names = [path.name for path in files if path.name != "__init__.py"]
    names += [f"{path.parent.name}/" for path in source.glob("*/__init__.py")]
    assert [name for name in names if f"`{name}`" not in layout] == []


def test_every_design_note_is_listed():
    listed = (ROOT / "docs" / "design" / "README.md").read_text(encoding="utf-8")
    notes = [path.name for path in (ROOT / "docs" / "design").glob("*.md") if path.name != "README.md"]
    assert [name for name in notes if f"({name})" not in listed] == []


def test_the_exception_tree_in_the_docs_is_that_of_the_module():
    module = (ROOT / "src" / "chainrule" / "errors.py").read_text(encoding="utf-8")
    tree = module[module.index("\nChainruleError\n") : module.index('"""', 3)].strip()
    assert tree in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
