"""Explanations as text: the layers of a step in a table, and why a gradient is what it is as a tree."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.explanation.words import MINUS, number

if TYPE_CHECKING:
    from chainrule.explanation.explanation import Explanation, Parameter
    from chainrule.explanation.why import Why
    from chainrule.observe import Call

Piece = tuple[str, str]  # text and style
Line = list[Piece]
LARGEST = 3  # elements of a parameter's gradient that are named
CANCELLING = 100  # a contribution of more than this many times the sum: the sum is 0 but for rounding
WHOLE = ("RNN", "LSTM", "GRU", "MultiheadAttention")  # layers that are shown as one, whatever is inside


def show_explanation(explanation: "Explanation", console: Any = None) -> None:
    """Print an explanation, with colours on a terminal."""
    console = _console(console)
    for line in explanation_lines(explanation):
        console.print(_text(line), soft_wrap=True)


def show_why(why: "Why", console: Any = None) -> None:
    """Print why a gradient is what it is, as a tree that is broken between words."""
    from rich.tree import Tree

    console = _console(console)
    if not console.is_terminal:
        console.print(_text([("\n".join(why_lines(why)), "")]), soft_wrap=True)
        return
    tree = Tree(_text(_label(why)), guide_style="dim")
    waiting = [(tree, why)]
    while waiting:
        branch, at = waiting.pop()
        waiting += [(branch.add(_text(_label(child))), child) for child in at.children]
        if at.rest is not None:
            branch.add(_text(_rest(at)))
    console.print(tree, soft_wrap=False)
    for line in _update(why):
        console.print(_text(line), soft_wrap=True)


def why_lines(why: "Why") -> list[str]:
    """The same tree as plain lines."""
    lines = []
    waiting: list[tuple[Any, str, str]] = [(why, "", "")]
    while waiting:
        at, first, later = waiting.pop()
        if isinstance(at, list):
            lines.append(first + _plain(at))
            continue
        lines.append(first + _plain(_label(at)))
        below = [*at.children, *([_rest(at)] if at.rest is not None else [])]
        for i, child in reversed(list(enumerate(below))):
            last = i == len(below) - 1
            waiting.append((child, later + ("└── " if last else "├── "), later + ("    " if last else "│   ")))
    return [*lines, *map(_plain, _update(why))]


def explanation_lines(explanation: "Explanation", command: str = "") -> list[Line]:
    """The layers, the parameters, the update, and what can be asked next: in Python, or by a command of the shell."""
    rows = "" if explanation.rows is None else f", {explanation.rows} row{'s' * (explanation.rows != 1)}"
    step = "a step" if explanation.step is None else f"step {explanation.step}"
    head: Line = [(f"{step} of {explanation.model}{rows}: loss {number(explanation.loss)}", "bold")]
    lines: list[Line] = [[*head, (f"   (engine {explanation.engine})", "dim")], []]
    layers = list(_layers(explanation))
    if layers:
        header = ["layer", "", "output", "mean", "deviation", "‖gradient‖", "passed on"]
        lines += [*_table(header, layers, 3), []]
    parameters = list(_parameters(explanation))
    if parameters:
        header = ["parameter", "shape", "‖value‖", "‖gradient‖", "‖Δw‖", "Δw/w", "largest gradient"]
        lines += [*_table(header, parameters, 2), []]
    if explanation.optimizer is not None:
        change = explanation.loss_change
        lines.append([("update  ", "cyan"), (explanation.optimizer, "")])
        if change is not None:
            lines.append([("Δloss   ", "cyan"), (f"predicted {number(change.predicted)}, ", "")])
            lines[-1].append((f"measured {number(change.actual)} on this batch", ""))
    question = _question(explanation)
    if question:
        ask = f'{command} "{question}"' if command else f'explanation.why("{question}").show()'
        lines.append([("ask     ", "cyan"), (ask, "")])
    return lines


def plain(lines: list[Line]) -> str:
    """Lines without styles."""
    return "\n".join(map(_plain, lines))


def _question(explanation: "Explanation") -> str:
    """The element of a weight with the largest gradient: what one may ask about."""
    found = [(float(np.nanmax(np.abs(p.gradient), initial=0)), p) for p in explanation.parameters.values()]
    found = [pair for pair in found if pair[0] > 0]
    if not found:
        return ""
    largest = max(found, key=lambda pair: pair[0])[1]
    return _elements(largest, 1)[0][0]


# -- the table of layers


def leaves(calls: list["Call"]) -> list["Call"]:
    """Calls of layers: of modules without further ones inside, and of those that are one layer all the same."""
    paths = {call.path for call in calls}
    whole = {call.path for call in calls if call.layer in WHOLE}
    return [
        call
        for call in calls
        if (call.path in whole or not any(_inside(other, call.path) for other in paths))
        and not any(_inside(call.path, other) for other in whole)
    ]


def _inside(path: str, outer: str) -> bool:
    return path.startswith(f"{outer}." if outer else "") and path != outer


def _layers(explanation: "Explanation") -> Iterator[list[str]]:
    for call in leaves(explanation.calls):
        output = next((n for n in map(explanation.graph.of, call.outputs) if n is not None), None)
        if output is None:
            continue
        value = output.value.astype(np.float64)
        gradient = None if output.gradient is None else _norm(output.gradient)
        given = [explanation.graph.of(x) for x in call.inputs]
        back = [_norm(n.gradient) for n in given if n is not None and n.gradient is not None]
        share = "" if gradient is None or not back else _share(max(back) / gradient if gradient else 0.0)
        with np.errstate(all="ignore"):
            mean, deviation = (number(float(f(value))) if value.size else "" for f in (np.mean, np.std))
        shape = f"[{', '.join(map(str, output.shape))}]"
        yield [call.path, call.layer, shape, mean, deviation, "–" if gradient is None else number(gradient), share]


def _norm(array: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(array.astype(np.float64)))


def _share(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


def _parameters(explanation: "Explanation") -> Iterator[list[str]]:
    for name, p in explanation.parameters.items():
        value, gradient = _norm(p.value), _norm(p.gradient)
        change = None if p.update is None else _norm(p.update.change)
        ratio = "" if change is None or not value else number(change / value)
        largest = ", ".join(f"{element.removeprefix(name)} {number(x)}" for element, x in _elements(p, LARGEST))
        yield [
            name, f"[{', '.join(map(str, p.value.shape))}]", number(value), number(gradient),
            "" if change is None else number(change), ratio, largest if gradient else "none",
        ]  # fmt: skip


def _elements(p: "Parameter", count: int) -> list[tuple[str, float]]:
    """The elements of a parameter with the largest gradients, by name."""
    flat = np.abs(np.nan_to_num(p.gradient.astype(np.float64))).reshape(-1)
    order = np.argsort(-flat, kind="stable")[:count]
    places = [tuple(map(int, np.unravel_index(i, p.value.shape))) if p.value.shape else () for i in order]
    return [(f"{p.name}[{', '.join(map(str, at))}]" if at else p.name, float(p.gradient[at])) for at in places]


def _table(header: list[str], rows: list[list[str]], left: int) -> list[Line]:
    """Cells in columns: the first `left` begin at the left, and the last; the others end at the right."""
    last = len(header) - 1
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines: list[Line] = []
    for number_of, row in enumerate([header, *rows]):
        sides = [i < left or (i == last and left == 2) for i in range(len(row))]
        cells = [c.ljust(w) if side else c.rjust(w) for c, w, side in zip(row, widths, sides, strict=True)]
        lines.append([(f" {'  '.join(cells)}".rstrip(), "bold" if number_of == 0 else "")])
    return lines


# -- the tree


def _label(why: "Why") -> Line:
    """The line of one contribution."""
    if why.share is None and why.upstream is None:
        where = _where(why)
        line: Line = [(why.error, "bold"), (f" = {number(why.value)}", _colour(why.value))]
        line += [(f"        ({where})", "dim")] if where else []
    else:
        told = 0.0 if why.share is None or abs(why.share) > CANCELLING else why.share
        share = f"{100 * told:.0f} %".replace("-", MINUS) if told else ""
        line = [(f"{number(why.part):>9}", _colour(why.part)), (f"  {share:>6}", "dim")]
        line += [(f"  {why.error} ", ""), (number(why.value), _colour(why.value))]
        assert why.local is not None
        if why.factor or why.local != 1:
            line += [(f" × {why.factor}".rstrip() + " ", ""), (number(why.local), _colour(why.local))]
    if why.note:
        line.append((f"   {why.note}", "italic"))
    return line


def _rest(why: "Why") -> Line:
    assert why.rest is not None
    return [(f"{number(why.rest.value):>9}", "dim"), (f"          the other {why.rest.count} together", "dim")]


def _colour(value: float) -> str:
    return "bold red" if not np.isfinite(value) else "blue" if value > 0 else "dark_orange" if value < 0 else "dim"


def _where(why: "Why") -> str:
    """'0 Linear, unit 3, input 41, train.py:14': the layer that it is in, what it stands for there, and the line."""
    if why.source is None:
        return ""
    graph = why.source.graph
    node = graph.nodes[why.node]
    edges = graph.consumers.get(node.id, [])
    used = graph.nodes[edges[0].node] if node.role and edges else node
    at = used.location
    layer = f"{at.module} {at.layer}".strip() if at.module else ""
    line = f"{Path(at.file).name}:{at.line}" if at.line else ""
    return ", ".join(part for part in (layer, why.source.words.part(node, why.index), line) if part)


def _update(why: "Why") -> list[Line]:
    """What the optimiser makes of the gradient of an element of a parameter, and what that does to the loss."""
    p = why.parameter
    if p is None or p.update is None:
        return []
    lines: list[Line] = []
    for term in p.update.terms[1:]:
        value = np.broadcast_to(term.value, p.value.shape)[why.index] if term.value.ndim else term.value
        label = "update" if not lines else ""
        lines.append([(f"{label:<8}", "cyan"), (f"{term.formula} = ", ""), (number(float(value)), "bold")])
    change = p.loss_change(why.index)
    if change is not None:
        text = f"predicted {number(change.predicted)}, measured {number(change.actual)} by this change alone"
        lines.append([(f"{'Δloss':<8}", "cyan"), (text, "")])
    return lines


# -- pieces


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def _text(line: Line) -> Any:
    from rich.text import Text

    return Text.assemble(*line)


def _console(console: Any) -> Any:
    from rich.console import Console

    return console or Console(highlight=False)
