"""From options to a run, and from the folder of a run back to everything that made it: data, network, recipe, weights.

What config.json of a run holds, all of it plain JSON:

    source        the name or the absolute path of the data, and a digest of what was made of them
    options       those of train: reading, data, network, training
    preparation   how rows become numbers (chainrule.data.Preparation)
    network       what the network looks like (chainrule.cli.networks)
    fit           the plain settings of fit (chainrule.train.settings)
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from chainrule import data, nn
from chainrule.cli.checks import image_size, unknown
from chainrule.cli.network import ImageInput, Network
from chainrule.cli.networks import choose, from_json
from chainrule.cli.options import DataOptions, NetworkOptions, ReadOptions, TrainingOptions
from chainrule.cli.recipe import Recipe
from chainrule.errors import ChainruleError, CheckpointError, ConfigError
from chainrule.train.resume import load_weights
from chainrule.train.settings import Settings
from chainrule.train.store import Run
from chainrule.version import __version__

if TYPE_CHECKING:
    from chainrule.data import Images, Preparation, Prepared, Table

Options = TypeVar("Options", ReadOptions, DataOptions, TrainingOptions)

RUNS = Path("runs")


def read(source: str, options: ReadOptions) -> "Table | Images":
    """The table or images that the user names."""
    size = None if options.image_size is None else image_size(options.image_size)
    return data.read(source, **{**asdict(options), "image_size": size})


def run_path(path: Path) -> Path:
    """The folder of a run; the name alone will do for one in the usual folder."""
    named = RUNS / path
    return named if len(path.parts) == 1 and not path.exists() and named.exists() else path


def prepare(source: "Table | Images", options: DataOptions) -> "Prepared":
    """The arrays to train on, as the options ask for."""
    columns = getattr(source, "columns", ())
    for column in options.ignore:
        if column not in columns:
            raise ConfigError(f"--ignore: {unknown(f'column of {source.name}', column, columns)}")
    kinds: dict[str, Any] = dict.fromkeys(options.ignore, "ignore")
    for pair in options.kind:
        column, _, kind = pair.rpartition("=")
        kinds[column] = kind
    return data.prepare(
        source,
        options.target,
        task=options.task,
        kinds=kinds,
        validation=options.validation,
        test=options.test,
        seed=options.seed,
        flag_missing=options.flag_missing,
        most_levels=options.most_levels,
        drop_rare_classes=options.drop_rare_classes,
    )


def digest(prepared: "Prepared") -> str:
    """What the arrays hold, to the bit: other data, or another way to prepare them, give another digest."""
    result = hashlib.sha256()
    p = prepared
    for array in (p.x_train, p.y_train, p.x_validation, p.y_validation, p.x_test, p.y_test):
        result.update(f"{array.dtype.str}{array.shape}".encode())
        result.update(np.ascontiguousarray(array).data)
    return result.hexdigest()


def choose_network(prepared: "Prepared", options: NetworkOptions) -> Network:
    """The network for these data. Raises ConfigError for options that do not go together."""
    return choose(prepared, options)


def choose_recipe(prepared: "Prepared", network: Network, options: TrainingOptions) -> Recipe:
    """How to train on these data. Raises ConfigError for options that do not go together."""
    rows, validated = len(prepared.x_train), len(prepared.x_validation) > 0
    recipe = Recipe(options, prepared.task, rows, validated, network.norm == "batch", network.convolves)
    recipe.check()
    return recipe


def configuration(
    source: str,
    prepared: "Prepared",
    network: Network,
    recipe: Recipe,
    reading: ReadOptions,
    options: DataOptions,
    shape: NetworkOptions,
) -> dict[str, Any]:
    """What config.json of a run holds."""
    given = {"read": reading, "data": options, "network": shape, "training": recipe.options}
    return {
        "chainrule": __version__,
        "source": {
            "path": source if source in data.names() else str(Path(source).expanduser().absolute()),
            "digest": digest(prepared),
        },
        "options": {name: plain(group) for name, group in given.items()},
        "task": prepared.task,
        "preparation": json.loads(prepared.preparation.to_json()),
        "network": network.to_json(),
        "fit": settings(recipe, options.seed).to_json(),
    }


def settings(recipe: Recipe, seed: int) -> Settings:
    """The plain settings of fit."""
    o = recipe.options
    return Settings(
        epochs=o.epochs,
        batch_size=recipe.batch_size,
        seed=seed,
        engine=o.engine,
        clip_norm=o.clip_norm,
        class_weight="balanced" if o.class_weight == "balanced" else None,
        checkpoint_every=o.checkpoint_every,
        threads=o.threads,
        precision=o.precision,
        milestones=o.milestones,
        record=int(o.record) if o.record.isdigit() else "auto" if o.record == "auto" else None,
    )


def plain(options: Any) -> dict[str, Any]:
    """Options as JSON values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


@dataclass(frozen=True)
class Session:
    """A run that was made by `chainrule train`, open for reading (or for training, as the run is)."""

    run: Run
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, *, train: bool = False) -> Self:
        """Open the folder of a run. Raises CheckpointError when it is none, damaged, or was made in another way."""
        path = run_path(path)
        run = Run.open(path, train=train)
        missing = {"source", "options", "preparation", "network", "fit", "task"} - run.config.keys()
        if missing:
            run.close()
            raise CheckpointError(
                f"{path} was not made by `chainrule train`: it does not say how rows become numbers. "
                "Work with it in Python: cr.train.load_weights(model, run), cr.replay(run, model, data, ...)."
            )
        return cls(run, run.config)

    @cached_property
    def preparation(self) -> "Preparation":
        """How rows become numbers."""
        return data.Preparation.from_json(json.dumps(self.config["preparation"]))

    @cached_property
    def network(self) -> Network:
        """What the network looks like."""
        return from_json(self.config["network"])

    def model(self) -> nn.Sequential:
        """The network with the best weights of the run."""
        model = self.network.build(self.data_options.seed)
        load_weights(model, self.run)
        return model

    @cached_property
    def read_options(self) -> ReadOptions:
        """How the data were read."""
        return self._options("read", ReadOptions)

    @cached_property
    def data_options(self) -> DataOptions:
        """What the data were prepared with."""
        return self._options("data", DataOptions)

    @cached_property
    def training_options(self) -> TrainingOptions:
        """What was asked of the training."""
        return self._options("training", TrainingOptions)

    def _options(self, name: str, kind: type[Options]) -> Options:
        try:
            given: Any = {
                key: tuple(x) if isinstance(x, list) else x for key, x in self.config["options"][name].items()
            }
        except (KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{self.run.path / 'config.json'} is damaged: its options cannot be read.") from error
        unknown = given.keys() - {field.name for field in fields(kind)}
        if unknown:
            raise CheckpointError(f"{self.run.path} has options unknown to this version: {', '.join(sorted(unknown))}.")
        return kind(**given)

    @property
    def source_path(self) -> str:
        """Where the data are."""
        return str(self.config["source"]["path"])

    def read_more(self, file: str, options: ReadOptions) -> "Table | Images":
        """Other rows, read by the options given now; without any, as the data of the run if of their kind.

        Image files are brought to the shape that the network takes.
        """
        shape = self.preparation.image_shape
        if options != ReadOptions():
            return read(file, options)
        if shape is not None and data.holds_pictures(file):
            depth, height, width = ImageInput(shape, 1.0).plane
            return read(file, replace(options, image_size=f"{width}x{height}", colour=depth > 1))
        alike = Path(file).suffix == Path(self.source_path).suffix
        return read(file, self.read_options if alike else options)

    def prepared(self, moved_to: str | None = None) -> "Prepared":
        """The data that the run was made with. CheckpointError when they have changed, or are gone."""
        given = moved_to or self.source_path
        if given not in data.names() and not Path(given).exists():
            raise CheckpointError(
                f"The data of {self.run.name} are gone: there is no {given}.\n"
                f"Put them back, or say where they are now: --source FILE"
            )
        try:
            prepared = self.preparation.apply(read(given, self.read_options))
        except ConfigError:
            raise
        except ChainruleError as error:
            raise CheckpointError(f"{given} is not what {self.run.name} was trained on: {error}") from error
        if digest(prepared) != self.config["source"]["digest"]:
            raise CheckpointError(
                f"{given} has changed since {self.run.name} was made: its rows or values are others.\n"
                f"Restore the file, or train anew: chainrule train {given}. "
                f"To score the network on other data: chainrule evaluate {self.run.path} FILE"
            )
        return prepared

    def loss_function(self) -> Callable[..., Any]:
        """The loss that the run was trained on."""
        return Recipe(self.training_options, self.config["task"], 1, True, False).loss_function()

    def recipe(self, prepared: "Prepared") -> Recipe:
        """How the run was trained."""
        return choose_recipe(prepared, self.network, self.training_options)
