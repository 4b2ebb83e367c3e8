"""Tables as Markdown, which a terminal shows as well; and everything as JSON."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.peers import CHAINRULE, OWN_MODES, PACKAGES, PERCEPTRON_MODES, TITLES, Entry, modes
from benchmarks.runner import Measured, Outcome
from benchmarks.workloads import RANDOM, RANDOM_MEAN

RANDOM_NAMES = {workload.name for workload in RANDOM}
MISSING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def number(value: float) -> str:
    """Three digits; more where they stand before the point."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def microseconds(measured: Measured | None) -> str:
    """The time of a step."""
    return number(measured.seconds * 1e6) if measured else MISSING


def against(ratio: float, reach: float | None) -> str:
    """A ratio, and the one that was to be reached."""
    return number(ratio) + (f" (≥ {reach:g})" if reach else "")


def gigaflops(outcome: Outcome, mode: str = "epoch") -> str:
    """GFLOP/s of chainrule and their share of the peak of the cores used."""
    own = outcome.of(CHAINRULE, mode)
    if own is None:
        return MISSING
    achieved = outcome.workload.flops / own.seconds / 1e9
    share = 100 * achieved / (outcome.peak * own.entry.threads)
    return number(achieved) + (f" ({share:.0f} %)" if math.isfinite(share) else "")


def megabytes(measured: Measured | None) -> str:
    """Peak memory of the process."""
    return number(measured.peak_megabytes) if measured else MISSING


def main_table(outcomes: Sequence[Outcome], peers: Sequence[str]) -> str:
    """A row for each workload: the best of one and several threads for the peers."""
    columns = [(peer, mode) for peer in peers for mode in PERCEPTRON_MODES[peer] if Entry(peer, mode, 1).counted]
    titles = [TITLES[peer] + (f" {mode}" if len(PERCEPTRON_MODES[peer]) > 1 else "") for peer, mode in columns]
    head = [
        "µs per step", "chainrule epoch", "call", *titles, "× best peer: epoch", "call", "GFLOP/s (of peak)",
        "MB: chainrule", "best peer",
    ]  # fmt: skip
    rows = []
    for outcome in outcomes:
        w, own = outcome.workload, outcome.of(CHAINRULE, "epoch")
        rows.append([
            w.name, microseconds(own), microseconds(outcome.of(CHAINRULE, "call")),
            *(microseconds(outcome.of(peer, mode)) for peer, mode in columns),
            against(outcome.ratio("epoch"), w.reach_epoch), against(outcome.ratio("call"), w.reach_call),
            gigaflops(outcome), megabytes(own), megabytes(outcome.best_peer),
        ])  # fmt: skip
    return table(head, rows)


def best_of(outcome: Outcome, peer: str) -> str:
    """The time of a peer in its fastest mode, which is named where there are several."""
    best = outcome.of(peer)
    if best is None:
        return MISSING
    return f"{number(best.seconds * 1e3)} ({best.entry.mode}, {best.entry.threads})"


def networks_table(outcomes: Sequence[Outcome], peers: Sequence[str]) -> str:
    """A row for each of the larger networks; peers in their fastest mode and number of threads."""
    head = [
        "ms per step", "chainrule epoch", "call", *(f"{TITLES[peer]} (mode, threads)" for peer in peers),
        "× best peer: epoch", "call", "GFLOP/s of the call (of peak)",
        "MB: chainrule", *(TITLES[peer] for peer in peers),
    ]  # fmt: skip
    rows = []
    for outcome in outcomes:
        own = {mode: outcome.of(CHAINRULE, mode) for mode in OWN_MODES}
        rows.append([
            outcome.workload.name, *(number(m.seconds * 1e3) if m else MISSING for m in own.values()),
            *(best_of(outcome, peer) for peer in peers),
            against(outcome.ratio("epoch"), outcome.workload.reach_epoch),
            against(outcome.ratio("call"), outcome.workload.reach_call),
            gigaflops(outcome, "call"), megabytes(own["call"]), *(megabytes(outcome.of(peer)) for peer in peers),
        ])  # fmt: skip
    return table(head, rows)


def random_summary(outcomes: Sequence[Outcome]) -> str:
    """The geometric mean over the random networks, and the worst; '' without any."""
    lines = []
    found = [outcome for outcome in outcomes if outcome.workload.name in RANDOM_NAMES]
    for mode in OWN_MODES:
        ratios = {o.workload.name: o.ratio(mode) for o in found if math.isfinite(o.ratio(mode))}
        if not ratios:
            continue
        mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
        worst = min(ratios, key=lambda name: ratios[name])
        reach = f" (≥ {RANDOM_MEAN:g})" if mode == "epoch" else ""
        lines.append(
            f"{len(ratios)} random networks, {mode}: geometric mean {number(mean)}{reach} times the best peer, least "
            f"{number(ratios[worst])} ({worst})"
        )
    return "\n".join(lines)


def details(outcome: Outcome) -> str:
    """All entries of a workload, fastest first."""
    w = outcome.workload
    rows = [
        [
            m.entry.title, microseconds(m), number(min(m.rounds) * 1e6), number(max(m.rounds) * 1e6),
            number(w.flops / m.seconds / 1e9), megabytes(m),
        ]
        for m in sorted(outcome.measured, key=lambda m: m.seconds)
        if m.rounds
    ]  # fmt: skip
    text = (
        f"\n{w.name}: {w.describe()}; {w.parameters:,} parameters, {w.flops / 1e6:,.3g} Mflop a step, {w.rows:,} rows "
        f"({number(w.megabytes)} MB), {w.batches:,} batches; FMA peak of a core {number(outcome.peak)} GFLOP/s"
    )
    head = ["entry", "µs per step", "fastest round", "slowest round", "GFLOP/s", "peak MB"]
    return f"{text}\n\n{table(head, rows)}" if rows else text


def warnings(outcomes: Sequence[Outcome]) -> list[str]:
    """What makes figures doubtful: errors, losses that differ, processes that did not rest while they waited."""
    found = []
    for outcome in outcomes:
        name = outcome.workload.name
        found += [f"{name}: {m.entry.title} failed: {m.error}" for m in outcome.measured if m.error]
        found += [f"{name}: not the same training. {text}" for text in outcome.disagreements]
        found += [
            f"{name}: {m.entry.title} used the processor for {m.busy:.2f} s of the {m.waited:.1f} s that it waited"
            for m in outcome.measured
            if m.restless
        ]
    return found


def heading(machine: dict[str, Any]) -> str:
    """The machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores, {machine['system']}\n{versions}"


def text(outcomes: Sequence[Outcome], peers: Sequence[str], machine: dict[str, Any], full: bool) -> str:
    """The whole report of `mlp` or `networks`."""
    perceptrons = all(outcome.workload.perceptron for outcome in outcomes)
    fitting = [peer for peer in peers if any(modes(outcome.workload, peer) for outcome in outcomes)]
    parts = [heading(machine), main_table(outcomes, fitting) if perceptrons else networks_table(outcomes, fitting)]
    parts += filter(None, [random_summary(outcomes)])
    missing = [TITLES[peer] for peer in PACKAGES if machine["versions"][PACKAGES[peer]] == "not installed"]
    parts += [f"Not installed, so left out: {', '.join(missing)}."] if missing else []
    parts += map(details, outcomes) if full else []
    return "\n\n".join(parts)


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Everything that was measured. Times are in seconds; what is unknown is null."""
    return [
        {
            "workload": o.workload.name,
            "description": o.workload.describe(),
            "flops": o.workload.flops,
            "peak_gigaflops_of_a_thread": _known(o.peak),
            "ratio": {mode: _known(o.ratio(mode)) for mode in OWN_MODES},
            "disagreements": o.disagreements,
            "entries": [
                {
                    "peer": m.entry.peer,
                    "mode": m.entry.mode,
                    "threads": m.entry.threads,
                    "counted": m.entry.counted,
                    "seconds_per_step": _known(m.seconds),
                    "rounds": m.rounds,
                    "peak_megabytes": _known(m.peak_megabytes),
                    "losses": m.losses,
                    "busy_while_waiting": m.busy,
                    "error": m.error,
                }
                for m in o.measured
            ],
        }
        for o in outcomes
    ]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
