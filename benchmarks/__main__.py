"""The command: `python -m benchmarks mlp | networks | startup | compile | recording | kernels`, from the repository's
root."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import kernels, machine, peers, recording, report, runner, startup, workloads

QUICK = {"rounds": 1, "seconds": 0.02, "samples": 1, "settle": 0.0, "quick": True}


def parser() -> argparse.ArgumentParser:
    """The options. Each subcommand has all of them."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--workloads", metavar="A,B", help=f"names, or groups of {', '.join(workloads.GROUPS)} (default: all)"
    )
    options.add_argument(
        "--peers", metavar="A,B", help=f"of {', '.join(peers.PACKAGES)} or 'none' (default: what is installed)"
    )
    options.add_argument("--engine", help="engine of chainrule (default: native, where it exists)")
    options.add_argument("--threads", type=int, default=2, help="for chainrule; peers also with one (default: 2)")
    options.add_argument("--rounds", type=int, default=3, help="turns of everybody (default: 3)")
    options.add_argument("--seconds", type=float, default=1.0, help="that a turn takes (default: 1)")
    options.add_argument("--quick", action="store_true", help="little data, one short round: to see that it works")
    options.add_argument("--details", action="store_true", help="every mode and number of threads, with its spread")
    options.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    main = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure chainrule beside other libraries.")
    commands = main.add_subparsers(dest="command", required=True)
    commands.add_parser("mlp", parents=[options], help="whole training steps of multilayer perceptrons")
    commands.add_parser("networks", parents=[options], help="the same of convolutional, recurrent, attention networks")
    commands.add_parser("startup", parents=[options], help="from python -c to the first step of mlp-tiny")
    commands.add_parser("compile", parents=[options], help="seconds to compile, cold and from the disk cache")
    commands.add_parser("recording", parents=[options], help="what a run costs beside the training itself")
    commands.add_parser("kernels", parents=[options], help="where the time of a step goes, kernel by kernel")
    return main


def choose_peers(names: str | None) -> list[str]:
    """The peers that were asked for and are installed; tells which are not. Raises ValueError for unknown ones."""
    if names == "none":
        return []
    wanted = names.split(",") if names else list(peers.PACKAGES)
    unknown = [name for name in wanted if name not in peers.PACKAGES]
    if unknown:
        raise ValueError(f"There is no peer {unknown[0]!r}. There are: {', '.join(peers.PACKAGES)}.")
    for name in wanted:
        if not peers.installed(name):
            print(f"{peers.PACKAGES[name]} is not installed, so it is left out.", file=sys.stderr)
    return [name for name in wanted if peers.installed(name)]


def run_steps(
    arguments: argparse.Namespace, chosen: list[str], names: list[str], about: dict[str, Any]
) -> tuple[list[dict[str, Any]], bool]:
    """Measure and print; what goes into the file, and whether all entries ran and trained alike."""
    pace = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    plan = runner.Plan(tuple(chosen), arguments.engine, arguments.threads, **(QUICK if arguments.quick else pace))
    outcomes = runner.measure_all(names, plan)
    print(report.text(outcomes, chosen, about, arguments.details))
    for warning in report.warnings(outcomes):
        print(f"warning: {warning}", file=sys.stderr)
    result, sound = report.as_json(outcomes), all(outcome.sound for outcome in outcomes)
    if arguments.command == "networks":
        compiled, failed = compilations(arguments, [outcome.workload.name for outcome in outcomes if outcome.runs])
        print(f"\n{startup.compile_table(list(compiled.values()))}")
        result, sound = [row | {"compilation": compiled.get(row["workload"])} for row in result], sound and not failed
    return result, sound


def compilations(arguments: argparse.Namespace, names: list[str]) -> tuple[dict[str, dict[str, Any]], bool]:
    """What `compilation` gives for each name, and whether one failed, which is said and does not stop the others."""
    found, failed = {}, False
    for name in names:
        try:
            found[name] = compilation(arguments, [name], 1)[0]
        except runner.WorkerFailed as error:
            failed = True
            print(f"warning: compiling failed: {error}", file=sys.stderr)
    return found, failed


def compilation(arguments: argparse.Namespace, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """The seconds that chainrule takes to compile."""
    return startup.measure_compilation(names, arguments.engine, arguments.threads, rounds, arguments.quick)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code. Raises ValueError for options that do not fit."""
    groups = workloads.OF_COMMAND[arguments.command]
    chosen, names = choose_peers(arguments.peers), workloads.choose(arguments.workloads, groups)
    if min(arguments.threads, arguments.rounds) < 1 or not arguments.seconds > 0:
        raise ValueError("--threads, --rounds and --seconds must be positive.")
    arguments.engine = arguments.engine or machine.default_engine()
    about = machine.describe() | {"engine": arguments.engine, "threads": arguments.threads}
    if about["load before"] > machine.BUSY:
        print(f"warning: load average {about['load before']:.2f}: other programs disturb the figures.", file=sys.stderr)
    rounds, sound = 1 if arguments.quick else arguments.rounds, True
    result: Any
    if arguments.command in ("mlp", "networks"):
        result, sound = run_steps(arguments, chosen, names, about)
    elif arguments.command == "startup":
        found = startup.measure_startup(chosen, arguments.engine, arguments.threads, rounds)
        print(f"{report.heading(about)}\n\n{startup.startup_table(found)}")
        result = {title: [timed._asdict() for timed in times] for title, times in found.items()}
    elif arguments.command == "recording":
        listed = names if arguments.workloads else list(recording.USUAL)
        seconds = QUICK["seconds"] if arguments.quick else arguments.seconds
        result = recording.measure_recording(
            listed, arguments.engine, arguments.threads, rounds, seconds, arguments.quick
        )
        print(f"{report.heading(about)}\n\n{recording.recording_table(result)}")
    elif arguments.command == "kernels":
        seconds = QUICK["seconds"] if arguments.quick else arguments.seconds
        result = kernels.measure_kernels(names, arguments.threads, seconds, arguments.quick)
        print("\n\n".join([report.heading(about), *map(kernels.kernel_table, result)]))
    else:
        result = compilation(arguments, names, rounds)
        print(f"{report.heading(about)}\n\n{startup.compile_table(result)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": about, arguments.command: result}, indent=1) + "\n")
    return 0 if sound else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; the exit code."""
    arguments = parser().parse_args(argv)
    try:
        return run(arguments)
    except (ValueError, runner.WorkerFailed) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
