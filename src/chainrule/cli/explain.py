"""`explain`: where the numbers of a trained network's gradients come from, on rows of its data or at a step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from chainrule import optim
from chainrule.cli import display
from chainrule.cli.checks import whole, words
from chainrule.cli.options import of_run
from chainrule.cli.replay import parts_of
from chainrule.cli.results import probabilities
from chainrule.cli.resume import MovedTo, RunPath
from chainrule.cli.session import Session
from chainrule.engines import DEFAULT_ENGINE, ENGINES
from chainrule.errors import ConfigError
from chainrule.explanation import Explanation
from chainrule.explanation import explain as take_apart
from chainrule.explanation.page import write_page
from chainrule.explanation.terminal import explanation_lines
from chainrule.replaying import replay
from chainrule.train.checkpoint import list_checkpoints
from chainrule.train.files import atomic_write

PARTS = ("test", "validation", "train")
SHOWN = 8  # rows of which truth and answer are told

Row = Annotated[
    int | None,
    typer.Option("--row", metavar="NUMBER", parser=whole(0), help="A row of the part, or of the --step, from 0."),
]
Rows = Annotated[str | None, typer.Option("--rows", metavar="NUMBERS", help="Several rows as one batch: 0,5,17.")]
Part = Annotated[str, typer.Option("--part", metavar="PART", **words("part", PARTS), help="test, validation or train.")]
Question = Annotated[
    str | None,
    typer.Option("--why", metavar="NAME", help='A weight "0.weight[3, 41]", a unit "2[0, 5]", a node "%12[0]".'),
]
Step = Annotated[
    int | None, typer.Option("--step", metavar="NUMBER", parser=whole(1), help="A step of the training, made again.")
]
Depth = Annotated[int, typer.Option("--depth", metavar="LEVELS", parser=whole(1), help="Levels of --why.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write all of it as one HTML page.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON; - prints it and nothing else.")
]
Engine = Annotated[
    str | None,
    of_run("--engine", metavar="ENGINE", **words("engine", tuple(ENGINES)), help="What computes."),
]


@dataclass(frozen=True)
class Subject:
    """What is explained: the explanation, a line that says of what, and how to ask for it again."""

    explanation: Explanation
    told: list[tuple[str, str]]
    again: str


def explain(
    run: RunPath,
    row: Row = None,
    rows: Rows = None,
    part: Part = "test",
    why: Question = None,
    step: Step = None,
    depth: Depth = 2,
    html: Html = None,
    json: JsonFile = None,
    engine: Engine = None,
    source: MovedTo = None,
) -> None:
    """Explain the gradients of a trained network: layer by layer, or why one of them is what it is.

    Of a row of the run's data: the network as it predicts, and what a step of its optimiser on this row alone would do.
    Of a --step: that step of the training, made again to the bit.
    """
    for path, option in ((html, "--html"), (json, "--json")):
        check_file(path, option)
    if rows is not None and (row is not None or step is not None):
        raise ConfigError("--rows does not go with --row or --step: give one of them.")
    session = Session.open(run)
    if step is not None:
        if engine is not None:
            raise ConfigError("--engine does not go with --step: a step is made again on the engine of its run.")
        subject = of_step(session, run, step, row, source)
    else:
        subject = of_rows(session, run, part, numbers(rows) if rows is not None else [row or 0], engine, source)
    explanation = subject.explanation
    found = None if why is None else explanation.why(why, depth)
    if json is not None and str(json) == "-":
        print(explanation.to_json())
    else:
        for label, text in subject.told:
            display.field(label, text)
        display.say()
        if found is not None:
            found.show(display.out)
        else:
            for line in explanation_lines(explanation, subject.again):
                display.out.print(Text.assemble(*line))
    write(explanation, html, json)


def check_file(path: Path | None, option: str) -> None:
    """Raise ConfigError for a file that cannot be written, before anything is computed."""
    if path is None or str(path) == "-":
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise ConfigError(f"{option} {path} {what}. Give the path of a file in a folder that exists.")


def numbers(text: str) -> list[int]:
    """Numbers of rows from text `0,5,17`."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f'--rows "{text}" is no list of row numbers: write 0,5,17.') from None
    return found


def of_rows(
    session: Session, run: Path, part: str, chosen: list[int], engine: str | None, source: str | None
) -> Subject:
    """Rows of a part of the data: the network with its best weights, in evaluation mode."""
    prepared = session.prepared(source)
    x, y = getattr(prepared, f"x_{part}"), getattr(prepared, f"y_{part}")
    if not len(x):
        raise ConfigError(f"The {part} part of {session.run.name} has no rows. Try --part train.")
    wrong = [i for i in chosen if not 0 <= i < len(x)]
    if wrong:
        last = len(x) - 1
        raise ConfigError(f"There is no row {wrong[0]}: the {part} part of {session.run.name} has rows 0 to {last}.")
    model = session.model()
    explanation = take_apart(
        model, x[chosen], y[chosen], loss=session.loss_function(), optimizer=kept_optimizer(session, prepared, model),
        engine=engine or session.training_options.engine or DEFAULT_ENGINE,
    )  # fmt: skip
    speak(explanation, session)
    explanation.words.places.rows = chosen
    lines = [row_line(session, explanation, i, n, part, y) for i, n in enumerate(chosen[:SHOWN])]
    told = [("" if i else "row", line) for i, line in enumerate(lines)]
    which = f"--row {chosen[0]}" if len(chosen) == 1 else f"--rows {','.join(map(str, chosen))}"
    where = "" if part == "test" else f" --part {part}"
    return Subject(explanation, told, f"chainrule explain {run} {which}{where} --why")


def of_step(session: Session, run: Path, step: int, row: int | None, source: str | None) -> Subject:
    """A step of the training: the batch that it saw, or one row of it, and the update that it made."""
    made = replay(session.run, **parts_of(session, source)(), step=step)
    explanation = made.explain(row)
    speak(explanation, session)
    told = [("step", f"{made.step:,} in epoch {made.epoch:,}, {len(made.batch.rows)} rows of the training data")]
    which = "" if row is None else f" --row {row}"
    if row is not None:
        told.append(("row", f"{row} of the batch, row {made.batch.rows[row]} of the training data"))
    return Subject(explanation, told, f"chainrule explain {run} --step {step}{which} --why")


def kept_optimizer(session: Session, prepared: Any, model: Any) -> optim.Optimizer | None:
    """The optimiser as it was when the weights were kept; None for one that takes many evaluations a step."""
    optimizer = session.recipe(prepared).optimizer()
    if isinstance(optimizer, optim.LBFGS):
        return None
    best = any(info.best for info in list_checkpoints(session.run.checkpoints))
    tensors = session.run.load("best" if best else "last").tensors
    optimizer.prepare([model])
    prefix = "optimizer."
    optimizer.load_state_dict({name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)})
    return optimizer


def speak(explanation: Explanation, session: Session) -> None:
    """Call inputs and outputs by the names of columns and classes. No source lines: there is no program of the user."""
    preparation = session.preparation
    explanation.words.places.name("x", getattr(preparation, "feature_names", ()))
    explanation.words.name_outputs(preparation.class_names)
    for node in explanation.nodes:
        if node.tensor.location is not None:
            node.tensor.location = node.tensor.location._replace(file="", line=0)


def row_line(session: Session, explanation: Explanation, place: int, number: int, part: str, y: Any) -> str:
    """'17 of the test part: truth setosa, answer setosa (p = 0.98)'."""
    preparation, prediction = session.preparation, explanation.words.prediction
    text = f"{number} of the {part} part"
    if prediction is None:
        return text
    answer = np.asarray(prediction.value)[place : place + 1]
    if preparation.task == "regression":
        truth = np.asarray(y)[number : number + 1].astype(np.float32)
        given, true = (float(preparation.decode_prediction(a)[0]) for a in (answer, truth))
        return f"{text}: truth {display.number(true)}, answer {display.number(given)}"
    shares = probabilities(answer)[0]
    best = int(shares.argmax())
    names = preparation.class_names
    return f"{text}: truth {names[int(y[number])]}, answer {names[best]} (p = {display.number(float(shares[best]))})"


def write(explanation: Explanation, html: Path | None, json: Path | None) -> None:
    """The files that were asked for."""
    if json is not None and str(json) != "-":
        atomic_write(json, explanation.to_json().encode("utf-8", errors="replace"))
        display.notice(f"The explanation is in {json}")
    if html is not None:
        write_page(explanation.to_dict(), html)
        display.notice(f"The explanation is in {html}")
