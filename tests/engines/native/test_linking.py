"""Objects laid out without LLVM: the same functions as by LLVM's linker, and nothing else is taken for one of ours."""

import ctypes
import gc
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.engines.native import cache, host, jit, linking

pytestmark = pytest.mark.skipif(not linking.supported(), reason="another kind of system")

HERE = host.detect()
TEXT = """
declare void @chainrule_yield()
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define double @scaled(ptr %p, i64 %n) {
  %x = load <8 x double>, ptr %p, align 8
  %y = fmul <8 x double> %x, <double 1.5, double 2.5, double 3.5, double 4.5,
                              double 5.5, double 6.5, double 7.5, double 8.5>
  store <8 x double> %y, ptr %p, align 8
  call void @chainrule_yield()
  ret double 0x400921FB54442D18
}
define void @cleared(ptr %p, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %p, i8 0, i64 %n, i1 false)
  ret void
}
define i64 @chosen(i64 %k) {
entry:
  switch i64 %k, label %other [ i64 0, label %a  i64 1, label %b  i64 2, label %c  i64 3, label %d  i64 4, label %e ]
a:
  ret i64 11
b:
  ret i64 -7
c:
  ret i64 29
d:
  ret i64 5
e:
  ret i64 -1000000
other:
  ret i64 0
}
"""
CODE = jit.compile_object(TEXT, HERE)


def library(own):
    """The object, by our loader or by LLVM's."""
    made = jit.Library(CODE)
    assert made._loaded is not None and made._linked is None
    if not own:
        made._loaded, made._linked = None, jit._Linked(CODE)
    return made


@pytest.mark.parametrize("own", [True, False])
def test_functions_constants_calls_and_tables_of_jumps(own):
    code = library(own)
    numbers = np.arange(1.0, 9.0)
    assert code.function("scaled", 2, ctypes.c_double)(numbers.ctypes.data, 8) == np.pi
    np.testing.assert_array_equal(numbers, np.arange(1.0, 9.0) * np.arange(1.5, 9.5))
    code.function("cleared", 2)(numbers.ctypes.data, 40)
    np.testing.assert_array_equal(numbers[:5], 0)
    assert numbers[5] == 6 * 6.5
    chosen = code.function("chosen", 1, ctypes.c_int64)
    assert [chosen(k) for k in range(-1, 6)] == [0, 11, -7, 29, 5, -1000000, 0]


def test_code_cannot_be_written_to_and_goes_with_the_last_who_has_it():
    code = library(own=True)
    address, f = code.address("chosen"), code.function("chosen", 1, ctypes.c_int64)

    def rights():
        with open("/proc/self/maps") as maps:
            spans = [line.split()[:2] for line in maps]
        for span, mode in spans:
            first, last = (int(part, 16) for part in span.split("-"))
            if first <= address < last:
                return mode
        return None

    assert rights() == "r-xp"
    del code
    gc.collect()
    assert rights() == "r-xp" and f(2) == 29
    del f
    gc.collect()
    assert rights() != "r-xp"


def test_what_is_of_another_kind_is_left_to_llvm():
    assert linking.link(CODE) is not None
    arm = host.of("aarch64-unknown-linux-gnu", "generic", "+neon")
    assert linking.link(jit.compile_object("define i64 @f() { ret i64 1 }", arm)) is None
    assert linking.link(jit.compile_object("@g = global i64 3\ndefine ptr @f() { ret ptr @g }", HERE)) is None  # data
    for code in (b"", b"\x7fELF\x02\x01", b"MZ" * 99, CODE[: len(CODE) // 2]):
        assert linking.link(code) is None


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CODE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_never_makes_it_write_outside_or_fail_otherwise(changes):
    broken = bytearray(CODE)
    for at, value in changes:
        broken[at] = value
    image = linking.link(bytes(broken))
    assert image is None or all(0 <= at <= len(image.content) - 8 for at in image.outside.values())


def test_a_relocation_of_another_sort_is_left_to_llvm():
    (table,) = struct.unpack_from("<Q", CODE, 0x28)
    size, count = struct.unpack_from("<HH", CODE, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", CODE, table + k * size) for k in range(count)]
    (at,) = [s[4] for s in sections if s[1] == 4][:1]
    broken = bytearray(CODE)
    struct.pack_into("<I", broken, at + 8, 9)  # R_X86_64_GOTPCREL
    assert linking.link(bytes(broken)) is None


def test_a_warm_start_does_not_load_llvm(tmp_path):
    program = (
        "import sys, numpy as np, chainrule as cr\n"
        "print(float(cr.compile(lambda x: cr.sum(x * x))(np.arange(3.0))), 'llvmlite.binding' in sys.modules)"
    )
    here = {"CHAINRULE_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    found = [
        subprocess.run([sys.executable, "-c", program], env=here, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert found == ["5.0 True\n", "5.0 False\n"]


def test_what_llvm_says_is_remembered_for_one_processor_and_one_llvm(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path / "code"))
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor : 0\nmodel name : A\nflags : avx2 fma\n\nprocessor : 1\nmodel name : A\nflags : avx2\n")
    key = host._processor_and_llvm(cpu)
    cpu.write_text("processor : 7\nmodel name : A\nflags : avx2 fma\n\nprocessor : 1\nmodel name : B\nflags : sse\n")
    assert host._processor_and_llvm(cpu) == key
    cpu.write_text("processor : 0\nmodel name : A\nflags : avx2\n")
    assert host._processor_and_llvm(cpu) not in (key, None)
    cpu.write_text("processor : 0\n")
    assert host._processor_and_llvm(cpu) is None
    assert host._processor_and_llvm(tmp_path / "missing") is None
    host.asked.cache_clear()
    first = host.asked()
    monkeypatch.setattr(host, "_ask", lambda: pytest.fail("asked again"))
    host.asked.cache_clear()
    assert host.asked() == first
    kept = host._processor_and_llvm()
    cache.put(kept, cache.Entry(b"", {"triple": "x"}))  # by another version, say
    monkeypatch.setattr(host, "_ask", lambda: first)
    host.asked.cache_clear()
    assert host.asked() == first
