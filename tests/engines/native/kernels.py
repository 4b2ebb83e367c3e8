"""Vector code run on arrays: a loop that loads, applies an expression and stores, compiled for a given processor."""

import ctypes
import itertools

import llvmlite.binding as llvm
import numpy as np

from chainrule import dtypes
from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Function, Module
from chainrule.engines.native.values import Vectors

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

AVX2 = "+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+f16c"


def host(triple, features="", cpu="", width=16):
    return Host(triple, cpu, features, width, 16, 32 << 10, 1 << 20, 8 << 20, 1)


HERE = host(llvm.get_process_triple(), llvm.get_host_cpu_features().flatten(), llvm.get_host_cpu_name(), 64)
WITHOUT_AVX512 = host("x86_64-unknown-linux-gnu", AVX2, "haswell", 32)
PLAIN = host("x86_64-unknown-linux-gnu", "", "x86-64", 16)
ARM = host("aarch64-unknown-linux-gnu", "+neon", "generic", 16)
_linker = None
_numbers = itertools.count()


def runnable():
    """The processors, among those of the tests, whose code this one runs."""
    found = [HERE]
    if HERE.x86:
        found.append(PLAIN)
        if HERE.has("avx2") and HERE.has("fma") and HERE.has("f16c"):
            found.append(WITHOUT_AVX512)
    return found


def machine(target):
    of_triple = llvm.Target.from_triple(target.triple)
    return of_triple.create_target_machine(cpu=target.cpu, features=target.features, opt=2, jit=True)


def module_of(expression, inputs, lanes, target, fail=None, name="kernel", **options):
    """IR of name(ptr inputs…, ptr output, i64 blocks): expression(m, *values) on blocks of `lanes` elements."""
    module = Module()
    parameters = [f"ptr p{i}" for i in range(len(inputs) + 1)]
    f = Function(module, name, [*parameters, "i64 blocks"], internal=False)
    m = Vectors(f, lanes, target, fail, **options)
    with f.loop(0, "%blocks") as loop:
        position = f.mul(loop.counter, lanes)
        values = [m.load(f"%p{i}", position, dtype) for i, dtype in enumerate(inputs)]
        result = expression(m, *values)
        m.store(result, f"%p{len(inputs)}", position)
    f.ret()
    return module, result.dtype


def parsed(module, target):
    text = f'target triple = "{target.triple}"\n' + module.text()
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    return parsed


def load(code, target, name="kernel"):
    """The address of a function of a compiled module, and what must stay alive for it."""
    global _linker
    if _linker is None:
        _linker = llvm.create_lljit_compiler(machine(HERE), use_jit_link=False, suppress_errors=False)
    library = f"library{next(_numbers)}"
    image = machine(target).emit_object(code)
    tracker = llvm.JITLibraryBuilder().add_object_img(image).export_symbol(name).link(_linker, library)
    return tracker[name], tracker


class Kernel:
    """An expression on arrays of the given dtypes: kernel(*arrays) is an array."""

    def __init__(self, expression, inputs, lanes=16, target=HERE, **options):
        self.inputs, self.lanes = [dtypes.as_dtype(d) for d in inputs], lanes
        module, self.output = module_of(expression, self.inputs, lanes, target, **options)
        self.address, self.keep = load(parsed(module, target), target)
        types = [ctypes.c_void_p] * (len(inputs) + 1) + [ctypes.c_int64]
        self.function = ctypes.CFUNCTYPE(None, *types)(self.address)

    def __call__(self, *arrays):
        size = arrays[0].size
        padded = -(-size // self.lanes) * self.lanes
        held = [np.resize(a.astype(d, copy=False).ravel(), padded) for a, d in zip(arrays, self.inputs, strict=True)]
        result = np.empty(padded, self.output)
        self.function(*[a.ctypes.data for a in held], result.ctypes.data, padded // self.lanes)
        return result[:size].reshape(arrays[0].shape)


def undefined_symbols(code):
    """What an object file calls but does not contain (of the ELF symbol table)."""
    image = llvm.ObjectFileRef.from_data(code)
    sections = {s.name(): s.data() for s in image.sections() if s.name()}
    table, names = sections[b".symtab"], sections[b".strtab"]
    found = []
    for at in range(24, len(table), 24):
        entry = table[at : at + 24]
        name, section = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[6:8], "little")
        if section == 0:
            found.append(names[name : names.index(b"\0", name)].decode())
    return found
