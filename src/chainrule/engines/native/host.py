"""The processor that code is made for: vectors, registers, caches, cores."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from chainrule.engines.native import cache as disk

IMPLIED = {  # x86: whoever has the first has the others
    "avx512vl": ("avx512f",),
    "avx512bw": ("avx512f",),
    "avx512dq": ("avx512f",),
    "avx512f": ("avx2", "fma", "f16c"),
    "avx2": ("avx",),
    "fma": ("avx",),
    "f16c": ("avx",),
    "avx": ("sse4.2",),
    "sse4.2": ("sse4.1", "popcnt"),
    "sse4.1": ("ssse3",),
    "ssse3": ("sse3",),
}
CACHES = {1: 32 << 10, 2: 1 << 20, 3: 8 << 20}
"""Bytes of the caches by level, where the system does not tell."""


@dataclass(frozen=True)
class Host:
    """A processor. `vector_bytes` is the width to use; `registers` how many vectors the processor holds."""

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    cores: int

    def lanes(self, itemsize: int) -> int:
        """How many elements of so many bytes a vector holds."""
        return self.vector_bytes // itemsize

    @property
    def x86(self) -> bool:
        """Whether it is of the x86-64 family."""
        return self.triple.startswith(("x86_64", "amd64"))

    @property
    def arm(self) -> bool:
        """Whether it is a 64-bit ARM."""
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def tuned_for(self) -> str:
        """The processor whose order of instructions is asked of LLVM; empty for that of `cpu`.

        For most processors with AVX-512, and for virtual ones with unlikely numbers, LLVM loads so much ahead that
        tiles which fill the registers spill to memory. Here it does not.
        """
        return "sapphirerapids" if self.x86 and self.vector_bytes == 64 and not self.cpu.startswith("znver") else ""

    def has(self, feature: str) -> bool:
        """Whether a feature such as 'avx512f' is there."""
        return f"+{feature}" in _split(self.features)


@cache
def _split(features: str) -> frozenset[str]:
    """They are asked for with every instruction that is written."""
    return frozenset(features.split(","))


class Asked(NamedTuple):
    """What LLVM says about this process, and its own version."""

    triple: str
    cpu: str
    features: str
    llvm: str


@cache
def asked() -> Asked:
    """What LLVM says. It is remembered on the disk, for the same processor and the same LLVM: to load it takes longer
    than all that follows when the code itself is remembered, too."""
    key = _processor_and_llvm()
    entry = disk.get(key) if key is not None else None
    if entry is not None and entry.manifest.keys() == set(Asked._fields):
        return Asked(**entry.manifest)
    found = _ask()
    if key is not None:
        disk.put(key, disk.Entry(b"", found._asdict()))
    return found


def _ask() -> Asked:
    import llvmlite.binding as llvm

    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot ask this kind of processor: the name of the CPU stands for them
        features = ""
    version = ".".join(str(part) for part in llvm.llvm_version_info)
    return Asked(llvm.get_process_triple(), llvm.get_host_cpu_name(), features, version)


def _processor_and_llvm(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """A key for both; None where the system does not describe the processor."""
    import llvmlite

    block, _, _ = _read(cpuinfo).partition("\n\n")
    kinds = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
    known = [line for line in block.splitlines() if line.partition(":")[0].strip() in kinds]
    if not any(line.startswith(("flags", "Features")) for line in known):
        return None
    status = Path(llvmlite.__file__).with_name("_version.py").stat()
    made = f"{llvmlite.__file__} {llvmlite.__version__} {status.st_mtime_ns}"
    return disk.digest("host", *known, made, platform.machine())


@cache
def detect() -> Host:
    """The processor that this process runs on, with the cores that this process may use."""
    sizes = {level: _cache_bytes(level) for level in CACHES}
    return of(asked().triple, asked().cpu, asked().features, _cores(), sizes)


def of(triple: str, cpu: str, features: str, cores: int = 1, caches: Mapping[int, int] = CACHES) -> Host:
    """Any processor; features as LLVM writes them, '+avx2,+fma'. Those that they imply are added.

    >>> from chainrule.engines.native import host
    >>> host.of("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma").lanes(4)
    8
    >>> host.of("aarch64-unknown-linux-gnu", "generic", "+neon").registers
    32
    """
    x86 = triple.startswith(("x86_64", "amd64"))
    signs = {item[1:]: item[0] for item in features.split(",") if item}
    waiting = [name for name in signs if signs[name] == "+"] if x86 else []
    while waiting:
        for name in IMPLIED.get(waiting.pop(), ()):
            if name not in signs:
                signs[name] = "+"
                waiting.append(name)
    there = {name for name, sign in signs.items() if sign == "+"}
    wide = x86 and there >= {"avx512f", "avx512vl", "avx512bw", "avx512dq"}
    vector = 64 if wide else 32 if x86 and there >= {"avx2", "fma"} else 16
    return Host(
        triple,
        cpu,
        ",".join(f"{sign}{name}" for name, sign in sorted(signs.items())),
        vector_bytes=vector,
        registers=16 if x86 and not wide else 32,
        l1_bytes=caches[1],
        l2_bytes=caches[2],
        l3_bytes=caches[3],
        cores=cores,
    )


@cache
def processor() -> str:
    """The name under which the processor is sold, or what LLVM calls it."""
    names = re.findall(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return (names[0] if names else platform.processor() or detect().cpu).strip()


# -- caches


def _cache_bytes(level: int) -> int:
    return _cache_from_sys(level) or _cache_from_sysconf(level) or CACHES[level]


def _cache_from_sys(level: int, folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Linux: one folder for each cache of a core, with text files in it; 0 where they are missing."""
    for index in sorted(folder.glob("index*")):
        kind, its_level, size = (_read(index / name) for name in ("type", "level", "size"))
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind in ("Data", "Unified") and its_level == str(level) and match:
            return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
    return 0


def _cache_from_sysconf(level: int) -> int:
    name = f"SC_LEVEL{level}_{'DCACHE' if level == 1 else 'CACHE'}_SIZE"
    try:
        return max(0, os.sysconf(name))
    except (AttributeError, ValueError, OSError):  # no sysconf at all, no such name, no answer
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


# -- cores


def _cores() -> int:
    """Cores that this process may use: its affinity, less where a container has a smaller share of time."""
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = _physical(allowed)
    else:
        cores = os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def _physical(allowed: set[int], folder: Path = Path("/sys/devices/system/cpu")) -> int:
    """How many cores the processors are: two that share one (hyper-threads) cannot both multiply at full speed."""
    siblings = {_read(folder / f"cpu{k}" / "topology" / "thread_siblings_list") or str(k) for k in allowed}
    return len(siblings)


def _quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float | None:
    """How many cores' worth of time Linux control groups grant, None where they set no limit."""
    found = []
    for line in _read(groups).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":  # version 2: the group and all above it
            base = root
        elif "cpu" in controllers.split(","):
            base = root / "cpu"
        else:
            continue
        group = base / name.lstrip("/")
        for folder in (group, *group.parents):
            found.append(_quota_of(folder))
            if folder == base:
                break
    limits = [limit for limit in found if limit is not None]
    return min(limits, default=None)


def _quota_of(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    if not fields:
        fields = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    try:
        quota, period = (float(field) for field in fields)
    except ValueError:  # 'max', or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None
