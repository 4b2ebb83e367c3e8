"""From IR to functions: errors of ours are told, code is freed, and several threads may compile."""

import ctypes
import gc
import os
import sys
import threading
import time

import pytest

from chainrule.engines.native import barrier, host, jit
from chainrule.engines.native.ir import Module
from chainrule.errors import ChainruleError, CompileError

HERE = host.detect()
ARM = host.of("aarch64-unknown-linux-gnu", "generic", "+neon")
WIDE = host.of("x86_64-unknown-linux-gnu", "sapphirerapids", "+avx512f,+avx512vl,+avx512bw,+avx512dq")
ADD = "define i64 @sum(i64 %a, i64 %b) {\n  %c = add i64 %a, %b\n  ret i64 %c\n}\n"


def load(text):
    return jit.Library(jit.compile_object(text, HERE))


def test_a_function_runs():
    assert load(ADD).function("sum", 2, ctypes.c_int64)(40, 2) == 42


def test_a_function_keeps_its_code():
    f = load(ADD).function("sum", 2, ctypes.c_int64)
    gc.collect()
    others = [load(f"define i64 @f{k}() {{ ret i64 {k} }}") for k in range(20)]
    assert f(2, 3) == 5 and len(others) == 20


def test_two_libraries_may_use_the_same_names():
    libraries = [load(f"define i64 @same() {{ ret i64 {k} }}") for k in range(3)]
    assert [library.function("same", 0, ctypes.c_int64)() for library in libraries] == [0, 1, 2]


def test_a_mistake_in_the_text_names_its_line():
    with pytest.raises(CompileError, match=r"line 2, '%a = add i64 %b, 1': use of undefined value '%b'") as caught:
        jit.compile_object("define void @f() {\n  %a = add i64 %b, 1\n  ret void\n}", HERE)
    assert isinstance(caught.value, ChainruleError) and "mistake of chainrule" in str(caught.value)


def test_text_that_ends_too_soon_is_a_mistake():
    with pytest.raises(CompileError, match="LLVM rejects"):
        jit.compile_object("define void @f() {\n", HERE)


def test_code_that_breaks_the_rules_is_found():
    text = """define i64 @f(i64 %x) {
entry:
  br i1 true, label %a, label %b
a:
  %y = add i64 %x, 1
  br label %b
b:
  %z = add i64 %y, 1
  ret i64 %z
}"""
    with pytest.raises(CompileError, match="does not dominate"):
        jit.compile_object(text, HERE)


@pytest.mark.parametrize("machine", [HERE, ARM, WIDE], ids=["here", "arm", "wide"])
def test_code_may_not_need_a_library(machine):
    with pytest.raises(CompileError, match="fmodf"):
        jit.compile_object("define float @f(float %x) {\n  %y = frem float %x, 3.0\n  ret float %y\n}", machine)


def test_copies_of_memory_are_resolved():
    text = """declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define void @copy(ptr %to, ptr %from, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %to, i8 7, i64 %n, i1 false)
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %n, i1 false)
  ret void
}"""
    if sys.platform == "linux":
        assert jit.undefined_symbols(jit.compile_object(text, HERE)) >= {"memcpy", "memset"}
    source, target = ctypes.create_string_buffer(b"x" * 999), ctypes.create_string_buffer(1000)
    load(text).function("copy", 3)(ctypes.addressof(target), ctypes.addressof(source), 998)
    assert target.raw == b"x" * 998 + b"\0\0"


def test_objects_that_are_none_and_names_that_are_missing():
    code = jit.compile_object(ADD, HERE)
    for broken in (b"", b"nonsense", code[: len(code) // 2]):
        with pytest.raises(CompileError):
            jit.Library(broken).address("sum")
    with pytest.raises(CompileError, match="nothing"):
        jit.Library(code).address("nothing")


def test_an_unknown_target_is_told():
    with pytest.raises(CompileError, match="no target"):
        jit.compile_object(ADD, host.of("abacus-none-none", "", ""))


def test_wide_vectors_stay_whole_and_constants_need_no_address():
    text = """define void @f(ptr %p) {
  %a = load <16 x float>, ptr %p, align 4
  %b = fmul <16 x float> %a, splat (float 0x3FF3AE1480000000)
  store <16 x float> %b, ptr %p, align 4
  ret void
}"""
    assembly = jit.emit_assembly(text, WIDE)
    assert "zmm" in assembly and "ymm" not in assembly
    assert "movabs" not in assembly and "(%rip)" in assembly


def test_nothing_is_contracted():
    text = """define double @f(double %a, double %b, double %c) {
  %d = fmul double %a, %b
  %e = fadd double %d, %c
  ret double %e
}"""
    assert "fmadd" not in jit.emit_assembly(text, WIDE) and "fmadd" not in jit.emit_assembly(text, ARM)


@pytest.mark.parametrize("machine", [HERE, ARM, WIDE, host.of("riscv64-unknown-linux-gnu", "generic-rv64", "+d,+a")])
def test_the_runtime_compiles_for_other_processors(machine):
    module = Module()
    barrier.emit(module, machine)
    text = module.text() + "define void @f(ptr %s, i64 %n) {\n  call void @barrier(ptr %s, i64 %n)\n  ret void\n}"
    for source in (text, barrier.runtime(machine)):
        assert jit.undefined_symbols(jit.compile_object(source, machine)) <= {"chainrule_yield"}
        pause = {"x86_64": "pause", "aarch64": "yield"}.get(machine.triple.split("-")[0], "")
        assert pause in jit.emit_assembly(source, machine)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_code_is_freed():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    code = jit.compile_object(ADD + "@big = constant [40000 x i64] zeroinitializer\n", HERE)

    def rounds(n):
        for _ in range(n):
            library = jit.Library(code)
            assert library.function("sum", 2, ctypes.c_int64)(1, 2) == 3
        del library
        gc.collect()

    rounds(20)
    before = resident()
    rounds(100)
    assert resident() - before < 100 * 320_000 / 10


def test_several_threads_compile_at_once():
    results = []

    def work(k):
        for i in range(5):
            f = load(f"define i64 @f() {{ ret i64 {10 * k + i} }}").function("f", 0, ctypes.c_int64)
            results.append(f() == 10 * k + i)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


def test_other_threads_run_meanwhile():
    text = """define void @wait(ptr %flag) {
entry:
  br label %spin
spin:
  %x = load atomic i64, ptr %flag acquire, align 8
  %set = icmp ne i64 %x, 0
  br i1 %set, label %out, label %spin
out:
  ret void
}"""
    flag = ctypes.c_int64(0)
    setter = threading.Timer(0.02, lambda: setattr(flag, "value", 1))
    setter.start()
    load(text).function("wait", 1)(ctypes.addressof(flag))  # would never return if it kept the others from running
    setter.join()
    assert flag.value == 1


@pytest.mark.skipif(not hasattr(os, "fork") or sys.version_info >= (3, 12), reason="forks a process with threads")
def test_a_fork_in_the_middle_of_a_compilation():
    stop = threading.Event()
    text = "\n".join(f"define i64 @f{k}(i64 %a) {{ %b = mul i64 %a, {k}\n ret i64 %b }}" for k in range(300))

    def compile_on():
        while not stop.is_set():
            jit.compile_object(text, HERE)

    thread = threading.Thread(target=compile_on)
    thread.start()
    try:
        for _ in range(3):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                os._exit(0 if load(ADD).function("sum", 2, ctypes.c_int64)(1, 1) == 2 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
