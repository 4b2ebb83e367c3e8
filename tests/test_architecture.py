"""The house rules that a machine can check: arrows, cycles, sizes, import time, the public surface."""

import ast
import doctest
import importlib
import inspect
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import chainrule

SOURCE = Path(chainrule.__file__).parent
FLOORS = [
    {"errors", "version"},
    {"dtypes", "tree", "blas"},
    {"meaning"},
    {"core"},
    {"primitives"},
    {"functions", "random"},
    {"program"},
    {"control"},
    {"detection"},
    {"losses"},
    {"passes"},
    {"engines"},
    {"compile", "calling", "lending", "resident", "resident_session"},
    {"observe"},
    {"nn", "optim", "data"},
    {"generation"},
    {"diagnosis", "interop"},
    {"train"},
    {"explanation"},
    {"replaying"},
    {"ui"},
    {"cli"},
]
FLOOR = {name: i for i, floor in enumerate(FLOORS) for name in floor}
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
# fmt: off
LAZY = (
    "polars", "rich", "PIL", "llvmlite", "typer", "safetensors", "matplotlib", "torch", "sqlite3", "starlette",
    "uvicorn",
)
# fmt: on


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(node, inside_function=False):
    """(module, statement, inside a function) for every import, except those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        inside = inside_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, child, inside
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield (whole if whole in MODULES else child.module), child, inside
        else:
            yield from imports(child, inside)


PARSED = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
GRAPH = {name: {m for m, _, _ in imports(tree) if m in MODULES} - {name} for name, tree in PARSED.items()}


def test_every_module_has_a_floor():
    unknown = {name.split(".")[1] for name in MODULES if "." in name} - set(FLOOR)
    assert not unknown


def test_imports_point_one_way():
    wrong = [
        f"{name} imports {target}"
        for name, targets in GRAPH.items()
        for target in targets
        if "." in name and (target == "chainrule" or FLOOR[target.split(".")[1]] > FLOOR[name.split(".")[1]])
    ]
    assert wrong == []


def test_there_are_no_import_cycles():
    done, path = set(), []

    def visit(name):
        if name in path:
            raise AssertionError(" → ".join([*path[path.index(name) :], name]))
        if name not in done:
            path.append(name)
            for target in sorted(GRAPH[name]):
                if not name.startswith(target + "."):  # a package's __init__ collects its parts
                    visit(target)
            path.pop()
            done.add(name)

    for name in GRAPH:
        visit(name)


def test_no_imports_inside_functions_save_optional_dependencies():
    wrong = [
        f"{name}:{statement.lineno} {target}"
        for name, tree in PARSED.items()
        for target, statement, inside in imports(tree)
        if inside and target.split(".")[0] not in LAZY
    ]
    assert wrong == []


def test_files_and_functions_stay_short():
    long_files = {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 450}
    assert long_files == {}
    long_functions = {
        f"{name}.{node.name}": node.end_lineno - node.lineno
        for name, tree in PARSED.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 75
    }
    assert long_functions == {}


def code_lines(path):
    """Lines with code on them: not blank, not comments, not docstrings."""
    source = path.read_text()
    documented = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def test_the_core_can_be_read_in_half_an_hour():
    """attached.py is a list of names for type checkers, nobody reads it."""
    assert sum(code_lines(path) for path in (SOURCE / "core").glob("*.py") if path.stem != "attached") <= 600


def test_import_loads_nothing_heavy():
    code = f"import chainrule, sys; print([m for m in {LAZY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE.parent)
    assert result.stdout.strip() == "[]"


def public_modules():
    return [m for m in (chainrule, *(getattr(chainrule, n) for n in chainrule.__all__)) if inspect.ismodule(m)]


@pytest.mark.parametrize("module", public_modules(), ids=lambda m: m.__name__)
def test_the_public_surface_is_exact(module):
    """`__all__` names what is there, all of it, once. (ruff keeps it sorted.)"""
    names = list(getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]))
    assert [n for n in names if not hasattr(module, n)] == []
    assert len(names) == len(set(names))
    things = {n for n, v in vars(module).items() if not n.startswith("_") and not inspect.ismodule(v)}
    if hasattr(module, "__all__"):
        own = {n for n in things if getattr(getattr(module, n), "__module__", "").startswith("chainrule")}
        assert own - set(names) == set()


def public_functions():
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__.startswith("chainrule"):
                yield pytest.param(thing, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("thing", list(public_functions()))
def test_every_public_name_is_documented_with_an_example(thing):
    text = inspect.getdoc(thing) or ""
    assert text
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        assert doctest.DocTestParser().get_examples(text), f"{thing.__qualname__} has no runnable example"


def test_lazy_modules_import():
    for name in MODULES:
        if not name.endswith("__main__"):
            importlib.import_module(name)
