"""Where and with what was measured."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

import chainrule as cr
from benchmarks.peers import PACKAGES
from chainrule.engines import find
from chainrule.errors import ConfigError

BUSY = 0.3  # load average above which other programs are likely to disturb


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        names = [line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith("model n")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def version(package: str) -> str:
    """The version of an installed package, or 'not installed'."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def load() -> float:
    """How many programs wanted a core during the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def describe() -> dict[str, Any]:
    """Everything that the figures depend on, besides the program."""
    packages = ("numpy", "llvmlite", *PACKAGES.values())
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load before": load(),
        "versions": {
            "Python": platform.python_version(),
            "chainrule": cr.__version__,
            **{name: version(name) for name in packages},
        },
    }


def default_engine() -> str:
    """The native engine, where there is one."""
    try:
        return find("native").name
    except ConfigError:
        print("There is no native engine here: the reference engine is measured.", file=sys.stderr)
        return "reference"
