"""The options that commands share, declared once: a dataclass a subject, a field an option.

What a run was asked for is kept in its folder as the JSON of these, so that it can be rebuilt.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.checks import (
    absolute,
    check_augment,
    check_channels,
    check_every,
    check_kinds,
    check_layers,
    check_record,
    check_size,
    check_time,
    choices,
    completion,
    real,
    whole,
    words,
)
from chainrule.cli.config import take_file
from chainrule.engines import DEFAULT_ENGINE, ENGINES, PRECISIONS, STANDARD

ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "tanh", "sigmoid", "none")
NORMS = ("none", "batch", "layer")
NETWORKS = ("mlp", "cnn", "resnet")
# fmt: off
OPTIMIZERS = (
    "adam", "adamw", "nadam", "radam", "adamax", "sgd", "rmsprop", "adagrad", "adadelta", "lion", "lbfgs",
)
SCHEDULES = (
    "constant", "plateau", "cosine", "linear", "exponential", "step", "one_cycle", "polynomial", "cosine_restarts",
)
# fmt: on
CLASS_LOSSES = ("cross_entropy", "multi_margin")
VALUE_LOSSES = ("mse", "l1", "huber", "smooth_l1")
LOSSES = CLASS_LOSSES + VALUE_LOSSES
CLASS_METRICS = ("accuracy", "f1", "precision", "recall", "auc", "top5", "perplexity")
VALUE_METRICS = ("r2", "rmse", "mae", "mse")
METRICS = CLASS_METRICS + VALUE_METRICS
TASKS = ("binary", "multiclass", "regression")
BAD_ROWS = ("error", "skip")
CLASS_WEIGHTS = ("none", "balanced")

of_data = partial(typer.Option, rich_help_panel="Data")
of_tables = partial(typer.Option, rich_help_panel="Tables")
of_images = partial(typer.Option, rich_help_panel="Images")
of_network = partial(typer.Option, rich_help_panel="Network")
of_training = partial(typer.Option, rich_help_panel="Training")
of_stopping = partial(typer.Option, rich_help_panel="Stopping")
of_run = partial(typer.Option, rich_help_panel="Run")

above_0, from_0 = real(0, above=True), real(0)

Config = Annotated[
    Path | None,
    of_run(
        "--config", metavar="FILE.toml", is_eager=True, callback=take_file, help="Options from a file; typed ones win."
    ),
]
Quiet = Annotated[bool, of_run("--quiet", "-q", help="Show results only, no progress.")]
Json = Annotated[bool, of_run("--json", help="Print one JSON value and nothing else.")]
RunsDir = Annotated[Path, of_run("--runs-dir", metavar="FOLDER", help="Where runs are kept.")]


# fmt: off
@dataclass(frozen=True)
class ReadOptions:
    """How files are read, where finding it out goes wrong."""

    separator: Annotated[str | None, of_tables(
        "--separator", metavar="CHARACTER", help="Between cells; else it is found out.")] = None
    decimal: Annotated[str | None, of_tables("--decimal", metavar="MARK", help="The decimal mark: . or ,")] = None
    encoding: Annotated[str | None, of_tables(
        "--encoding", metavar="NAME", help="Such as utf-8, latin-1, cp1252.")] = None
    header: Annotated[bool | None, of_tables(
        "--header/--no-header", help="Whether the first line holds the names of the columns.")] = None
    missing: Annotated[tuple[str, ...], of_tables(
        "--missing", metavar="WORD", help="A word that stands for an empty cell. May be repeated.")] = ()
    bad_rows: Annotated[str, of_tables(
        "--bad-rows", metavar="WAY", **words("way with bad rows", BAD_ROWS),
        help="Rows with too many cells, and damaged images: error or skip.")] = "error"
    image_size: Annotated[str | None, of_images(
        "--image-size", metavar="SIZE", callback=check_size, show_default="by the images",
        help="What images of a folder are brought to: 64, or 64x48 for width and height.")] = None
    colour: Annotated[bool | None, of_images(
        "--colour/--grey", show_default="by the images", help="Take images of a folder in colour, or in grey.")] = None


@dataclass(frozen=True)
class DataOptions:
    """What to learn, and from which rows and columns."""

    target: Annotated[str | None, of_data("--target", "-t", metavar="COLUMN", help="The column to learn.")] = None
    task: Annotated[str | None, of_data(
        "--task", metavar="TASK", **words("task", TASKS),
        help="binary, multiclass or regression; else the target decides.")] = None
    validation: Annotated[float, of_data(
        "--validation", metavar="SHARE", parser=real(0, 0.99), help="Share of the rows that tells when to stop.")] = 0.1
    test: Annotated[float, of_data(
        "--test", metavar="SHARE", parser=real(0, 0.99), help="Share of the rows kept for the final test.")] = 0.1
    seed: Annotated[int, of_data(
        "--seed", metavar="NUMBER", parser=whole(0),
        help="Of split, first weights, order, dropout: same seed, same bits.")] = 0
    kind: Annotated[tuple[str, ...], of_tables(
        "--kind", metavar="COLUMN=KIND", callback=check_kinds,
        help="Take a column as number, category, boolean, date or ignore. May be repeated.")] = ()
    ignore: Annotated[tuple[str, ...], of_tables(
        "--ignore", metavar="COLUMN", help="Leave a column out. May be repeated.")] = ()
    most_levels: Annotated[int, of_tables(
        "--most-levels", metavar="NUMBER", parser=whole(2),
        help="Categories of a column that get a feature each.")] = 64
    flag_missing: Annotated[bool, of_tables(
        "--flag-missing/--no-flag-missing", help="A feature that says where a cell was empty.")] = True
    drop_rare_classes: Annotated[bool, of_tables(
        "--drop-rare-classes", help="Leave out classes with a single example.")] = False


@dataclass(frozen=True)
class NetworkOptions:
    """The shape of the network."""

    network: Annotated[str, of_network(
        "--network", metavar="NAME", **words("network", ("auto", *NETWORKS)),
        help="mlp: fully connected. For images also cnn: convolutions with pooling; resnet: residual blocks. "
        "auto takes mlp.")] = "auto"
    layers: Annotated[str, of_network(
        "--layers", metavar="WIDTHS", callback=check_layers,
        help="Units of the hidden layers, such as 64,64; none; auto chooses by the data.")] = "auto"
    channels: Annotated[str, of_network(
        "--channels", metavar="NUMBERS", callback=check_channels,
        help="Of cnn and resnet, stage by stage; auto takes 32,64 and 16,32,64, and more for large images.")] = "auto"
    blocks: Annotated[int | None, of_network(
        "--blocks", metavar="NUMBER", parser=whole(1), show_default="3",
        help="Residual blocks a stage, of resnet.")] = None
    activation: Annotated[str, of_network(
        "--activation", metavar="NAME", **words("activation", ("auto", *ACTIVATIONS)),
        help=f"{', '.join(ACTIVATIONS)}; auto takes gelu for an mlp on images, else relu.")] = "auto"
    dropout: Annotated[float | None, of_network(
        "--dropout", metavar="SHARE", parser=real(0, 0.99), show_default="by the data",
        help="Share of the units that each step leaves out.")] = None
    norm: Annotated[str, of_network(
        "--norm", metavar="NAME", **words("normalisation", ("auto", *NORMS)),
        help="Normalisation after each hidden layer or convolution: none, batch or layer; "
        "auto takes none for mlp, else batch.")] = "auto"
    augment: Annotated[str, of_network(
        "--augment", metavar="NAMES", callback=check_augment,
        help="What is done to training images at random: shift (by up to an eighth), flip (left to right), or both: "
        "shift,flip; none. auto takes none for mlp, else shift.")] = "auto"


@dataclass(frozen=True)
class TrainingOptions:
    """How the weights are found, and when that ends."""

    loss: Annotated[str | None, of_training(
        "--loss", metavar="NAME", **words("loss", LOSSES), show_default="by the task",
        help=f"Classes: {', '.join(CLASS_LOSSES)}. Amounts: {', '.join(VALUE_LOSSES)}.")] = None
    optimizer: Annotated[str, of_training(
        "--optimizer", metavar="NAME", **words("optimizer", OPTIMIZERS), help=f"{', '.join(OPTIMIZERS)}.")] = "adamw"
    lr: Annotated[float | None, of_training(
        "--lr", metavar="RATE", parser=above_0, show_default="the optimizer's own; 0.003 for adamw",
        help="The learning rate. See find-lr.")] = None
    momentum: Annotated[float, of_training(
        "--momentum", metavar="SHARE", parser=real(0, 0.9999), help="Of sgd and rmsprop.")] = 0.9
    weight_decay: Annotated[float | None, of_training(
        "--weight-decay", metavar="RATE", parser=from_0, show_default="by the data for adamw, else 0",
        help="How strongly weights are pulled to 0.")] = None
    label_smoothing: Annotated[float | None, of_training(
        "--label-smoothing", metavar="SHARE", parser=real(0, 0.99), show_default="0.05 for cross_entropy",
        help="Share of the truth that is spread over all classes: answers grow less certain, and better.")] = None
    schedule: Annotated[str, of_training(
        "--schedule", metavar="NAME", **words("schedule", SCHEDULES),
        help=f"How the learning rate goes on: {', '.join(SCHEDULES)}.")] = "constant"
    warmup: Annotated[float, of_training(
        "--warmup", metavar="EPOCHS", parser=from_0, help="Epochs in which the learning rate rises from 0.")] = 0.0
    batch_size: Annotated[int | None, of_training(
        "--batch-size", "-b", metavar="ROWS", parser=whole(1), show_default="32 or 64, by the data",
        help="Rows a step.")] = None
    clip_norm: Annotated[float | None, of_training(
        "--clip-norm", metavar="LENGTH", parser=above_0, help="The greatest length the gradient may have.")] = None
    ema: Annotated[float | None, of_training(
        "--ema", metavar="DECAY", parser=real(0, 0.999999),
        help="Average the weights over the steps, such as 0.99.")] = None
    class_weight: Annotated[str, of_training(
        "--class-weight", metavar="NAME", **words("class weight", CLASS_WEIGHTS),
        help="none; balanced: rare classes count as much as frequent ones.")] = "none"
    metric: Annotated[tuple[str, ...], of_training(
        "--metric", metavar="NAME", callback=choices("metric", METRICS), autocompletion=completion(METRICS),
        help=f"What else to measure each epoch: {', '.join(METRICS)}. May be repeated.")] = ()
    epochs: Annotated[int, of_stopping(
        "--epochs", "-e", metavar="NUMBER", parser=whole(1), help="At most so many rounds over the data.")] = 200
    patience: Annotated[int, of_stopping(
        "--patience", metavar="EPOCHS", parser=whole(0),
        help="Stop after so many epochs without improvement; 0 never.")] = 10
    min_delta: Annotated[float, of_stopping(
        "--min-delta", metavar="AMOUNT", parser=from_0, help="What counts as an improvement.")] = 0.0
    stop_loss: Annotated[float | None, of_stopping(
        "--stop-loss", metavar="LOSS", parser=real(), help="Stop when the validation loss is as low as this.")] = None
    time_limit: Annotated[str | None, of_stopping(
        "--time-limit", metavar="TIME", callback=check_time,
        help="Stop after a time, such as 90 (seconds), 10m, 1.5h.")] = None
    checkpoint_every: Annotated[str, of_run(
        "--checkpoint-every", metavar="TIME", callback=check_every,
        help="How often a checkpoint is written: 30 s, 5 min, or 500 steps.")] = "30 s"
    milestones: Annotated[int, of_run(
        "--milestones", metavar="MEGABYTES", parser=whole(0),
        help="For states along the way, which replay and diff go back to; 0 keeps none.")] = 256
    record: Annotated[str, of_run(
        "--record", metavar="STEPS", callback=check_record,
        help="How often layers and parameters are looked at, for ui and for diagnoses: every so many steps; auto, "
        "which takes at most 3 % of the time; off.")] = "auto"
    tensorboard: Annotated[str | None, of_run(
        "--tensorboard", metavar="FOLDER", parser=absolute, help="Write event files for TensorBoard, too.")] = None
    engine: Annotated[str, of_run(
        "--engine", metavar="NAME", **words("engine", tuple(ENGINES)), help=f"What computes: {', '.join(ENGINES)}.",
    )] = DEFAULT_ENGINE
    threads: Annotated[int | None, of_run(
        "--threads", metavar="NUMBER", parser=whole(1), show_default="by the network and the cores",
        help="Threads of the native engine; results do not depend on them.")] = None
    precision: Annotated[str, of_run(
        "--precision", metavar="NAME", **words("precision", PRECISIONS),
        help="standard, or fast: convolutions may be less exact.")] = STANDARD
# fmt: on
