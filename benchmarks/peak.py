"""What a core can do at most: fused multiplications and additions in registers alone, written for LLVM.

    python -m benchmarks.peak float32

prints GFLOP/s of one thread. Twenty chains of vectors as wide as the processor has them, so that neither latency nor
memory counts. This is the ceiling of the GFLOP/s in the tables.
"""

import ctypes
import sys
import time

import llvmlite.binding as llvm
import numpy as np

CHAINS = 20
ITERATIONS = 200_000
REPEATS = 15
BITS = {"float32": 32, "float64": 64}
TYPES = {"float32": "float", "float64": "double"}


def vector_bits() -> int:
    """The width of the processor's vectors."""
    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx") else 128


def kernel(dtype: str) -> str:
    """A loop of `CHAINS` independent fused multiplications and additions, as IR: void run(ptr memory, i64 n)."""
    vector = f"<{vector_bits() // BITS[dtype]} x {TYPES[dtype]}>"
    width = f"v{vector_bits() // BITS[dtype]}f{BITS[dtype]}"
    lines = [
        f"declare {vector} @llvm.fma.{width}({vector}, {vector}, {vector})",
        "define void @run(ptr %memory, i64 %n) {",
        "entry:",
        f"  %x = load {vector}, ptr %memory, align 64",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
    ]
    chains = range(CHAINS)
    lines += [f"  %c{k} = phi {vector} [ %x, %entry ], [ %d{k}, %loop ]" for k in chains]
    lines += [f"  %d{k} = call {vector} @llvm.fma.{width}({vector} %c{k}, {vector} %x, {vector} %x)" for k in chains]
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %end",
        "end:",
    ]
    for k in chains:  # stored, so that no chain is idle work
        lines += [
            f"  %p{k} = getelementptr {vector}, ptr %memory, i64 {k + 1}",
            f"  store {vector} %d{k}, ptr %p{k}, align 64",
        ]
    return "\n".join([*lines, "  ret void", "}", ""])


def measure(dtype: str = "float32", iterations: int = ITERATIONS, repeats: int = REPEATS) -> float:
    """GFLOP/s of one thread: the fastest of several runs, since this is meant to be a ceiling."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(kernel(dtype))
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    compiled = llvm.create_mcjit_compiler(module, machine)
    compiled.finalize_object()
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(compiled.get_function_address("run"))
    memory = np.zeros((CHAINS + 2) * 64, np.uint8)
    aligned = -(-memory.ctypes.data // 64) * 64
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run(aligned, iterations)
        best = min(best, time.perf_counter() - start)
    return 2 * CHAINS * iterations * (vector_bits() // BITS[dtype]) / best / 1e9


if __name__ == "__main__":
    print(measure(sys.argv[1] if len(sys.argv) > 1 else "float32"))
