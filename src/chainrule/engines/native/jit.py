"""From LLVM IR to machine code to functions that Python can call. The place that talks to LLVM (and host.py asks it
about the processor); code that lies on the disk already is loaded without it where that is possible (linking.py).

LLVM is not safe to be used by several threads at once, so one lock stands before it. It is also held while the process
forks: a child never inherits a compilation that is half done.
"""

import ctypes
import itertools
import os
import re
import sys
import threading
import weakref
from functools import cache
from typing import Any

from chainrule.engines.native import linking
from chainrule.engines.native.host import Host, asked, detect
from chainrule.errors import CompileError

YIELD = "chainrule_yield"
ALLOWED = frozenset({"memcpy", "memmove", "memset", YIELD, "_GLOBAL_OFFSET_TABLE_"})
"""What an object may need from outside. There is no compiler's run-time library beneath it, so nothing else."""

_lock = threading.RLock()
_names = itertools.count()
_dead: list[list[Any]] = []  # libraries that nobody has any more, to be unloaded


def _unlock_in_child() -> None:
    """The thread that forked holds the lock, and lives on in the child."""
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_unlock_in_child)


# -- from text to an object


def version() -> str:
    """Which LLVM makes the code; part of the keys under which code is kept.

    >>> from chainrule.engines.native import jit
    >>> jit.version()
    'LLVM ...'
    """
    return f"LLVM {asked().llvm}"


def compile_object(text: str, host: Host) -> bytes:
    """Machine code for a module of IR, as an object file: instructions are selected, nothing is optimised.

    Raises CompileError where LLVM does not take the text, or where the code needs functions that nobody provides.
    """
    with _lock:
        code: bytes = _with_module(text, host, lambda machine, module: machine.emit_object(module))
    missing = undefined_symbols(code) - ALLOWED
    if missing:
        raise CompileError(
            f"The code for {host.cpu} calls {', '.join(sorted(missing))}, which nobody provides: an instruction that "
            "this processor lacks was written. This is a mistake of chainrule; please report it."
        )
    return code


def emit_assembly(text: str, host: Host) -> str:
    """The machine code for a module of IR, to be read."""
    with _lock:
        return str(_with_module(text, host, lambda machine, module: machine.emit_assembly(module)))


def _with_module(text: str, host: Host, emit: Any) -> Any:
    import llvmlite.binding as llvm

    machine = _machine(host)
    if host.tuned_for:
        text = text.replace("nounwind", f'nounwind "tune-cpu"="{host.tuned_for}"')
    try:
        with llvm.create_context() as context, llvm.parse_assembly(text, context) as module:  # freed with all its types
            module.triple = host.triple
            module.data_layout = str(machine.target_data)
            module.verify()
            return emit(machine, module)
    except RuntimeError as error:
        raise CompileError(_explain(str(error), text)) from None


def _explain(message: str, text: str) -> str:
    at = re.search(r"<string>:(\d+):\d+: error: (.*)", message)
    if at:
        lines, number = text.splitlines(), int(at[1])
        quoted = lines[number - 1].strip() if number <= len(lines) else "(the end)"
        found = f"line {number}, {quoted!r}: {at[2]}"
    else:
        found = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    return f"LLVM rejects the code: {found}. This is a mistake of chainrule; please report it."


@cache
def _machine(host: Host) -> Any:
    """LLVM's description of a target. Small code model, position independent: constants are read relative to the code,
    without a register for their address (the default for JITs takes two instructions and a register for each). Of the
    levels of effort 1 is enough for loops that are unrolled already, and takes less time than 2."""
    import llvmlite.binding as llvm

    if host.triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    features = host.features
    if host.vector_bytes == 64:  # LLVM shuns 512 bits on some processors that have them
        features += ",-prefer-256-bit"
    try:
        target = llvm.Target.from_triple(host.triple)
        return target.create_target_machine(
            cpu=host.cpu, features=features, opt=1, reloc="pic", codemodel="small", jit=True
        )
    except RuntimeError as error:
        raise CompileError(f"LLVM has no target for {host.triple} ({host.cpu}): {error}") from None


def undefined_symbols(code: bytes) -> set[str]:
    """Names that an ELF object (Linux, most others) needs from outside; none for other formats.

    The layout of ELF: see linking.py.
    """
    if code[:6] != b"\x7fELF\x02\x01":  # 64 bits, little end first
        return set()
    sections = linking.sections_of(code)
    return {
        symbol.name
        for table in sections
        if table.kind == linking.SYMBOLS
        for symbol in linking.symbols_of(code, sections, table)
        if symbol.section == linking.UNDEFINED and symbol.name
    }


# -- from an object to functions


class Library:
    """An object loaded into this process. The code is freed when neither it nor one of its functions is left.

    Whoever keeps an `address` must keep the library as well. Raises CompileError where the object is not one, or needs
    symbols that the process does not have.
    """

    def __init__(self, code: bytes) -> None:
        image = linking.link(code) if linking.supported() else None
        self._loaded = None if image is None else _loaded(image)
        self._linked = _Linked(code) if self._loaded is None else None

    def address(self, name: str) -> int:
        """Where a function begins."""
        if self._loaded is None:
            assert self._linked is not None
            return self._linked.address(name)
        if name not in self._loaded.functions:
            raise CompileError(f"The object gives no function {name!r}: it has {', '.join(self._loaded.functions)}")
        return self._loaded.address + self._loaded.functions[name]

    def function(self, name: str, n_arguments: int, returns: Any = None) -> Any:
        """A function of integers (i64 or addresses) that Python can call, and that lets other threads run meanwhile."""
        f = ctypes.CFUNCTYPE(returns, *[ctypes.c_int64] * n_arguments)(self.address(name))
        f.library = self  # type: ignore[attr-defined]
        return f


def _loaded(image: linking.Image) -> linking.Loaded | None:
    """An image in memory; None where that fails: then LLVM may try, and says what is wrong if it fails as well."""
    try:
        outside = {name: _yield_address() if name == YIELD else linking.address_of(name) for name in image.outside}
        return linking.Loaded(image, outside)
    except (AttributeError, OSError):
        return None


class _Linked:
    """An object loaded by LLVM's linker."""

    def __init__(self, code: bytes) -> None:
        import llvmlite.binding as llvm

        builder = llvm.JITLibraryBuilder().add_object_img(code).import_symbol(YIELD, _yield_address())
        self._name = f"chainrule{next(_names)}"
        self._trackers: list[Any] = []
        self._addresses: dict[str, int] = {}
        with _lock:
            try:
                self._trackers.append(builder.link(_linker(), self._name))
            except RuntimeError as error:
                raise CompileError(f"An object cannot be loaded: {error}") from None
        weakref.finalize(self, _unload, self._trackers).atexit = False  # see `_linker`

    def address(self, name: str) -> int:
        """Where a function begins."""
        with _lock:
            if name not in self._addresses:
                try:
                    tracker = _linker().lookup(self._name, name)
                except RuntimeError as error:
                    raise CompileError(f"The object gives no function {name!r}: {error}") from None
                self._trackers.append(tracker)
                self._addresses[name] = tracker[name]
        return self._addresses[name]


def _unload(trackers: list[Any]) -> None:
    """Garbage is collected at any time, in any thread, so this must not wait: what cannot be freed now is next time."""
    _dead.append(trackers)
    if _lock.acquire(blocking=False):
        try:
            while _dead:
                _dead.pop().clear()
        finally:
            _lock.release()


@cache
def _linker() -> Any:
    """One LLJIT for the process. JITLink lays an object out in one piece, as the small code model requires, and gives
    all memory back. Neither it nor a library is freed when the interpreter shuts down (llvmlite sees to that), since
    threads may be inside the code until the process is gone."""
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(_machine(detect()), use_jit_link=True)


def _yield_address() -> int:
    """The system's way to let another thread have the core."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        return linking.address_of("sched_yield")
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
