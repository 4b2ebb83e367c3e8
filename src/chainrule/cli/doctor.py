"""`version` and `doctor`: what is installed, what the machine offers, and whether training works on it."""

import os
import platform
import shutil
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
import typer

from chainrule import nn
from chainrule.blas import single_threaded
from chainrule.cli import display
from chainrule.cli.options import Json
from chainrule.compile import compile
from chainrule.core.autodiff import value_and_grad
from chainrule.core.check import check_gradients
from chainrule.core.tensor import Tensor, tensor
from chainrule.engines import ENGINES
from chainrule.errors import GradientError, MissingDependency, ProgramError
from chainrule.losses import mse
from chainrule.optim import Adam, Optimizer
from chainrule.random import Generator
from chainrule.version import __version__

NEEDED = ("numpy", "ml_dtypes", "llvmlite", "polars", "pillow", "safetensors", "rich", "typer")
OPTIONAL = {"matplotlib": "plots in the examples", "torch": "the tests that compare with PyTorch"}


def version() -> None:
    """Print the version."""
    display.say(__version__)


def print_version(wanted: bool) -> None:
    """The same, asked for by --version; nothing more is done then."""
    if wanted:
        version()
        raise typer.Exit


def doctor(json: Json = False) -> None:
    """Show what is installed and what the machine offers, and check that training works."""
    facts = {"chainrule": __version__, **system(), "packages": packages(), "checks": checks()}
    missing = [name for name in NEEDED if not facts["packages"][name]]
    failed = [check["name"] for check in facts["checks"] if not check["passed"]]
    if json:
        display.print_json({**facts, "healthy": not missing and not failed})
    else:
        show(facts)
    if missing:
        raise MissingDependency(f"Not installed: {', '.join(missing)}. Try: pip install {' '.join(missing)}")
    if failed:
        raise ProgramError(
            f"Checks that failed: {', '.join(failed)}. Please report this with the output of doctor --json."
        )


def system() -> dict[str, Any]:
    """Python, the operating system, the processor and the room on the disk."""
    memory = memory_bytes()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "system": platform.platform(terse=True),
        "processor": processor(),
        "vectors": vector_extensions(),
        "cores": os.cpu_count() or 1,
        "cores_allowed": allowed_cores(),
        "blas_threads_settable": single_threaded.controlled,
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "temporary_folder": tempfile.gettempdir(),
        "here": str(Path.cwd()),
        "here_writable": os.access(Path.cwd(), os.W_OK),
        "free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }


def processor() -> str:
    """The name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # another system than Linux
    return platform.processor() or platform.machine()


def vector_extensions() -> list[str]:
    """The vector extensions of this processor, by NumPy's names for them."""
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return sorted({*simd.get("baseline", ()), *simd.get("found", ())})


def allowed_cores() -> int:
    """On how many cores this process may run: containers and batch systems allow fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """How much memory the machine has, where the system says so."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def packages() -> dict[str, str | None]:
    """The versions of the packages that chainrule uses; None for those that are not installed."""
    found: dict[str, str | None] = {}
    for name in (*NEEDED, *OPTIONAL):
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def network() -> nn.Sequential:
    """A tiny network, always the same."""
    generator = Generator(0)
    return nn.Sequential(nn.Linear(2, 8, generator=generator), nn.Tanh(), nn.Linear(8, 1, generator=generator))


X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)  # exclusive or


def step(model: nn.Sequential, optimizer: Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """One step of training."""
    loss, grads = value_and_grad(lambda m: mse(m(x), y))(model)
    optimizer.update(model, grads)
    return loss


def checks() -> list[dict[str, Any]]:
    """The derivatives of a tiny network against numerical ones, and its training on every engine."""
    return [check_derivatives(), *(check_training(engine) for engine in ENGINES)]


def check_derivatives() -> dict[str, Any]:
    """Backpropagation through the tiny network against finite differences, first and second order."""
    model = network().to("float64")
    begin = time.perf_counter()
    try:
        check_gradients(lambda m: mse(m(tensor(X.astype("float64"))), tensor(Y.astype("float64"))), model, order=2)
        passed, detail = True, "equal to finite differences, first and second order"
    except GradientError as error:
        passed, detail = False, str(error)
    return {"name": "derivatives", "passed": passed, "detail": detail, "seconds": time.perf_counter() - begin}


def check_training(engine: str) -> dict[str, Any]:
    """The tiny network learns the exclusive or, on one engine."""
    model, optimizer, fast = network(), Adam(lr=0.05), compile(step, engine=engine)
    begin = time.perf_counter()
    x, y = tensor(X), tensor(Y)
    loss = first = float(fast(model, optimizer, x, y))
    steps = 1
    while loss > 1e-3 and steps < 1000:
        loss = float(fast(model, optimizer, x, y))
        steps += 1
    detail = f"exclusive or: loss {display.number(first)} → {display.number(loss)} in {steps} steps"
    return {
        "name": f"engine {engine}",
        "passed": loss <= 1e-3,
        "detail": detail,
        "seconds": time.perf_counter() - begin,
    }


def show(facts: dict[str, Any]) -> None:
    """The facts as lines for a person."""
    display.field("chainrule", facts["chainrule"])
    display.field("python", f"{facts['python']}   {facts['executable']}")
    display.field("system", facts["system"])
    cores = f"{facts['cores_allowed']} of {facts['cores']} cores"
    memory = f", {facts['memory_gb']} GB of memory" if facts["memory_gb"] else ""
    display.field("processor", f"{facts['processor']}: {cores}{memory}")
    display.field("vectors", ", ".join(facts["vectors"]) or "none that NumPy knows")
    same = "the same on any number of threads" if facts["blas_threads_settable"] else "may depend on BLAS's threads"
    display.field("bits", f"of matrix products: {same}")
    writable = "" if facts["here_writable"] else ", not writable: use --runs-dir"
    display.field("folder", f"{facts['here']}: {facts['free_gb']:,} GB free{writable}")
    for name in NEEDED:
        found = facts["packages"][name]
        display.field("" if name != NEEDED[0] else "packages", mark(bool(found), f"{name} {found or 'is missing'}"))
    for name, purpose in OPTIONAL.items():
        found = facts["packages"][name]
        display.field("", f"{'✓' if found else '·'} {name} {found or 'not installed'} (optional: {purpose})")
    for number, check in enumerate(facts["checks"]):
        seconds = display.duration(check["seconds"])
        display.field(
            "" if number else "checks", mark(check["passed"], f"{check['name']}: {check['detail']}, {seconds}")
        )


def mark(good: bool, text: str) -> str:
    """The text behind a tick or a cross."""
    return f"{'✓' if good else '✗'} {text}"
