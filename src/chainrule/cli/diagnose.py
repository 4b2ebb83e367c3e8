"""`diagnose`: why a network learns badly, for a run that was made, or for data before any training."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from chainrule.cli import display, report, session
from chainrule.cli.checks import whole
from chainrule.cli.config import with_options
from chainrule.cli.network import Network
from chainrule.cli.options import Config, DataOptions, Json, NetworkOptions, ReadOptions, TrainingOptions
from chainrule.cli.recipe import Recipe
from chainrule.cli.resume import MovedTo
from chainrule.diagnosis.diagnosis import Diagnosis, Report
from chainrule.errors import ConfigError
from chainrule.nn import Module
from chainrule.train.diagnosing import STEPS
from chainrule.train.diagnosing import diagnose as find_out
from chainrule.train.store import Run

RunOrSource = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_SOURCE", help="The folder of a run, such as runs/digits-1; or data, as for train, before any."
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", metavar="NUMBER", parser=whole(10), help="Steps of a trial. The run stays as it is.")
]

AS_OPTIONS = {
    "cr.find_lr": "chainrule find-lr", "clip_norm=1.0": "--clip-norm 1", "lr=": "--lr ",
    "class_weight='balanced'": "--class-weight balanced", "label_smoothing=0.1": "--label-smoothing 0.1",
    "metrics=['f1', 'auc']": "--metric f1", "stop=cr.stop.plateau(patience=10)": "--patience 10",
}  # fmt: skip
"""What remedies call things in Python, and what the options of `train` are called."""

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@with_options
def diagnose(
    run: RunOrSource,
    options: DataOptions,
    reading: ReadOptions,
    shape: NetworkOptions,
    training: TrainingOptions,
    source: MovedTo = None,
    steps: Steps = STEPS,
    config: Config = None,
    json: Json = False,
) -> None:
    """Say why a network learns badly: causes, with evidence and a remedy.

    For a run: its data, its network with the best weights, its history. For data: as `train` would begin; the options
    of `train` hold here too. Nothing is changed, and nothing is kept.
    """
    path = session.run_path(Path(run))
    if (path / "config.json").exists():
        given = (options, reading, shape, training)
        if given != (DataOptions(), ReadOptions(), NetworkOptions(), TrainingOptions()):
            raise ConfigError(f"{run} is a run, which has its options already: leave those of training out.")
        found = of_run(path, source, steps)
    else:
        if source is not None:
            raise ConfigError(f"--source says where the data of a run are, but {run} is none.")
        prepared = session.prepare(session.read(run, reading), options)
        network = session.choose_network(prepared, shape)
        recipe = session.choose_recipe(prepared, network, training)
        model = network.build(options.seed)
        if not json:
            report.plan(prepared, network, recipe, model.parameter_count())
        found = examined(model, prepared, network, recipe, options.seed, steps)
    if json:
        display.print_json(found.to_dict())
        return
    tell(found)
    if not (path / "config.json").exists():
        display.say()
        display.say(f"next: chainrule train {shlex.quote(run)}", "dim")


def of_run(path: Path, moved_to: str | None, steps: int) -> Report:
    """The diagnosis of a run, on its own data."""
    opened = session.Session.open(path)
    prepared = opened.prepared(moved_to)
    recipe = opened.recipe(prepared)
    return examined(
        opened.model(), prepared, opened.network, recipe, opened.data_options.seed, steps, opened.run
    )  # fmt: skip


def examined(
    model: Module, prepared: Any, network: Network, recipe: Recipe, seed: int, steps: int, history: Run | None = None
) -> Report:
    """What is found for a model and the data that it is to learn."""
    data, validation = report.fit_data(prepared)
    training = recipe.options
    return find_out(
        model,
        data,
        loss=recipe.loss_function(),
        optimizer=recipe.optimizer(),
        validation=validation,
        batch_size=recipe.batch_size,
        steps=steps,
        history=history,
        class_weight="balanced" if training.class_weight == "balanced" else None,
        clip_norm=training.clip_norm,
        seed=seed,
        engine=training.engine if network.convolves else "reference",
        threads=training.threads if network.convolves else None,
        precision=training.precision if network.convolves else "standard",
        feature_names=prepared.feature_names if prepared.image_shape is None else (),
    )


def tell(found: Report) -> None:
    """Show a report."""
    for i, d in enumerate(found):
        display.say() if i else None
        show(d)
    if not len(found):
        display.out.print(Text("nothing wrong was found", "green"))
    told = facts(found)
    if told:
        display.say()
        display.field("measured", told)


def show(d: Diagnosis) -> None:
    """One diagnosis: its severity, what it is, the evidence, the remedy."""
    label = f"{d.severity:<{display.LABEL}}"
    line = display.fitted(label + d.message, display.out, display.LABEL)
    display.out.print(Text.assemble((line[: display.LABEL], COLOURS[d.severity]), (line[display.LABEL :], "bold")))
    for evidence in d.evidence:
        display.field("", evidence)
    remedy = d.remedy
    for python, option in AS_OPTIONS.items():
        remedy = remedy.replace(python, option)
    if remedy:
        display.field("  remedy", remedy)


def facts(found: Report) -> str:
    """The numbers that were measured, in one line."""
    names = {
        "loss": "loss", "constant_loss": "of the best constant answer", "gradient_norm": "length of the gradient",
        "sharpness": "sharpness", "noise_scale": "gradient noise scale in rows",
    }  # fmt: skip
    parts = [
        f"{title} {display.number(float(found.facts[name]))}"
        for name, title in names.items()
        if found.facts.get(name) is not None
    ]
    return ", ".join(parts)
