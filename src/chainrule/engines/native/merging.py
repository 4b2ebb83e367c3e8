"""Functions that differ only in where their values lie are written once.

Networks repeat themselves: the kernels of one layer are those of the next, at other offsets in the arena. Compiling
takes time with every line, so in a large module each offset becomes a parameter, and of functions that then have the
same text one is kept. Callers pass the offsets, which are parameters of theirs in turn.
"""

import re
from collections.abc import Mapping

MANY = 150
"""Functions in a module from which on this pays; fewer are compiled fast, and run without further parameters."""
_HEAD = re.compile(r"define internal (\S+) @([\w.]+)\((.*)\) (.*) \{")
_CALL = re.compile(r"@([\w.]+)\(")
_PARTS = re.compile(r"(getelementptr i8, ptr %arena, i64 )(\d+)|(call \S+ @)([\w.]+)(\(.*)\)(?=\n)")


def merged(functions: Mapping[str, str]) -> list[str]:
    """The texts of functions by name, as many as there are different ones. Those that are not internal keep theirs.

    >>> from chainrule.engines.native.merging import merged
    >>> one = '''define internal void @{}(ptr %arena) nounwind {{
    ... entry:
    ...   %v1 = getelementptr i8, ptr %arena, i64 {}
    ...   store i8 0, ptr %v1
    ...   ret void
    ... }}
    ... '''
    >>> main = 'define void @main(ptr %arena) {\\n  call void @a(ptr %arena)\\n  call void @b(ptr %arena)\\n}\\n'
    >>> texts = merged({"a": one.format("a", 128), "b": one.format("b", 192), "main": main})
    >>> len(texts), texts[-1].splitlines()[1:3]
    (2, ['  call void @a(ptr %arena, i64 128)', '  call void @a(ptr %arena, i64 192)'])
    """
    return _Merging(functions).run()


class _Merging:
    def __init__(self, functions: Mapping[str, str]) -> None:
        self.functions = functions
        self.stands_for: dict[str, str] = {}  # the function that is called instead
        self.offsets: dict[str, list[str]] = {}  # what a function is to be given beside its parameters
        self.known: dict[str, str] = {}  # name by text
        self.texts: list[str] = []

    def run(self) -> list[str]:
        """What is left, callees first."""
        for name in self._callees_first():
            self._add(name, self.functions[name])
        return self.texts

    def _callees_first(self) -> list[str]:
        below = {name: [c for c in _CALL.findall(text) if c in self.functions and c != name] for name, text in
                 self.functions.items()}  # fmt: skip
        order: dict[str, None] = {}
        for first in self.functions:
            stack = [first]
            while stack:
                name = stack[-1]
                waiting = [c for c in below[name] if c not in order]
                if name in order or not waiting:
                    order[stack.pop()] = None
                else:
                    stack += waiting
        return list(order)

    def _add(self, name: str, text: str) -> None:
        head = _HEAD.match(text)
        lifted: list[str] | None = [] if head else None
        body = _PARTS.sub(lambda match: self._part(match, lifted), text[head.end() if head else 0 :])
        if head is None or lifted is None:
            self.texts.append(body)
            self.stands_for[name], self.offsets[name] = name, []
            return
        returns, _, parameters, attributes = head.groups()
        parameters = ", ".join([parameters, *[f"i64 %o{k}" for k in range(len(lifted))]])
        key = f"{returns}({parameters}) {attributes} {body}"
        if key not in self.known:
            self.known[key] = name
            self.texts.append(f"define internal {returns} @{name}({parameters}) {attributes} {{{body}")
        self.stands_for[name], self.offsets[name] = self.known[key], lifted

    def _part(self, match: re.Match[str], lifted: list[str] | None) -> str:
        """An offset, or a call, with parameters for numbers if they are to be lifted."""

        def number(value: str) -> str:
            if lifted is None:
                return value
            lifted.append(value)
            return f"%o{len(lifted) - 1}"

        if match[1]:
            return match[1] + number(match[2])
        callee = match[4]
        if callee not in self.stands_for:
            return match[0]
        return "".join(
            [match[3], self.stands_for[callee], match[5], *[f", i64 {number(v)}" for v in self.offsets[callee]], ")"]
        )
