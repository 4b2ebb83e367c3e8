"""Memory for compiled code, its guards, and the mode that flushes denormal numbers."""

import ctypes
import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule
from chainrule.engines.native import host, jit, memory
from chainrule.engines.native.ir import Function, Module
from chainrule.engines.native.memory import Arena

HERE = host.detect()
SOURCE = Path(chainrule.__file__).parent.parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="mprotect")


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 4096, 100_003, (2 << 20) - 1, 2 << 20, (5 << 20) + 7])
@pytest.mark.parametrize("guard", [False, pytest.param(True, marks=POSIX)])
def test_memory_is_zeroed_aligned_and_writable(nbytes, guard):
    arena = Arena(nbytes, guard)
    assert arena.array.shape == (nbytes,) and arena.array.dtype == np.uint8
    assert arena.address % 64 == 0 and (nbytes == 0 or arena.address == arena.array.ctypes.data)
    assert not arena.array.any()
    arena.array[:] = 255
    assert (arena.array == 255).all() and arena.intact


def test_large_memory_begins_on_a_large_page():
    arena = Arena(3 << 20)
    assert sys.platform != "linux" or arena.address % memory.HUGE == 0


def test_a_view_keeps_the_memory():
    view = Arena(4 << 20).array[100:200]
    gc.collect()
    others = [Arena(4 << 20).array.fill(9) for _ in range(4)]
    assert not view.any() and len(others) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("guard", [False, True])
def test_memory_is_freed(guard):
    def mapped():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * mmap.PAGESIZE

    Arena(8 << 20, guard)
    gc.collect()
    before = mapped()
    for _ in range(50):
        Arena(8 << 20, guard)
    gc.collect()
    assert mapped() - before < 24 << 20


@POSIX
@pytest.mark.parametrize("alignment", [1, 4, 64])
def test_a_guarded_arena_ends_where_its_alignment_lets_it(alignment):
    arena = Arena(1001, guard=True, alignment=alignment)
    end = arena.address + 1001
    assert arena.address % alignment == 0 and -end % mmap.PAGESIZE < alignment


@POSIX
@pytest.mark.parametrize("offset", [-1, 1000])
def test_writing_beside_a_guarded_arena_is_noticed(offset):
    arena = Arena(1000, guard=True)
    assert arena.intact
    ctypes.c_uint8.from_address(arena.address + offset).value = 1
    assert not arena.intact


@POSIX
@pytest.mark.parametrize(
    ("offset", "caught"), [("0", False), ("1023", False), ("1024", True), (f"-{mmap.PAGESIZE}", True)]
)
def test_stepping_over_the_edge_stops_the_process(offset, caught):
    code = (
        "import ctypes; from chainrule.engines.native.memory import Arena; arena = Arena(1024, guard=True); "
        f"ctypes.c_uint8.from_address(arena.address + {offset}).value"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=SOURCE)
    assert (result.returncode < 0) == caught and (caught or result.returncode == 0)


# -- denormal numbers


def flushing(machine):
    """product(p): p[2] = p[0] * p[1] while denormal numbers are flushed, p[5] = p[3] * p[4] after that."""
    module = Module()
    product = Function(module, "multiply", ["ptr p"])
    a, b = product.load("double", "%p", 8), product.load("double", product.address("%p", 1, "double"), 8)
    product.store("double", product.op(f"fmul double {a}, {b}"), product.address("%p", 2, "double"), 8)
    product.ret()
    f = Function(module, "product", ["ptr p"], internal=False)
    saved = memory.enter(f, machine)
    f.call("multiply", ("ptr", "%p"))
    memory.leave(f, machine, saved)
    f.call("multiply", ("ptr", f.address("%p", 3, "double")))
    f.ret()
    return module.text()


@pytest.mark.skipif(not (HERE.x86 or HERE.arm), reason="no mode to set")
@pytest.mark.parametrize(("a", "b", "flushed"), [(1e-200, 1e-120, 0.0), (5e-324, 1e300, 0.0), (3.0, 0.1, 3.0 * 0.1)])
def test_denormal_numbers_are_flushed_until_the_mode_is_left(a, b, flushed):
    values = np.array([a, b, -1, a, b, -1])
    library = jit.Library(jit.compile_object(flushing(HERE), HERE))
    library.function("product", 1)(values.ctypes.data)
    assert values[2] == flushed and values[5] == np.float64(a) * np.float64(b)
    assert np.float64(1e-200) * np.float64(1e-120) == 1e-320  # the mode of Python is what it was


@pytest.mark.parametrize(
    ("triple", "instruction"),
    [("x86_64-unknown-linux-gnu", "ldmxcsr"), ("aarch64-unknown-linux-gnu", "fpcr"), ("riscv64-unknown-linux-gnu", "")],
)
def test_the_mode_is_set_and_restored_on_each_target(triple, instruction):
    machine = host.of(triple, "generic" if "arch" in triple else "", "+d" if "riscv" in triple else "")
    assembly = jit.emit_assembly(flushing(machine), machine).lower()
    writes = [line for line in assembly.splitlines() if ("msr" if "arch" in triple else "ldmxcsr") in line]
    assert instruction in assembly and len(writes) == (2 if instruction else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_has_memory_of_its_own():
    code = """
import os
from chainrule.engines.native.memory import HUGE, Arena
for size in (1000, 2 * HUGE):
    arena = Arena(size)
    if os.fork() == 0:
        arena.array[:] = 7
        os._exit(0)
    os.wait()
    assert not arena.array.any(), size
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
