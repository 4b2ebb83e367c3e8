"""Which network suits the data, where the options leave it open, and networks from their descriptions."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from chainrule.cli.convolutional import Convolutional, ResidualNetwork
from chainrule.cli.network import FullyConnected, ImageInput, Network
from chainrule.cli.options import NetworkOptions
from chainrule.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from chainrule.data import Prepared

MANY_ROWS = 10_000
"""With fewer training rows than this, the usual network could learn them by heart: dropout hinders it."""

SMALL = 8
"""Stages halve an image until no side has more pixels than this."""

KINDS: dict[str, type[Network]] = {cls.kind: cls for cls in (FullyConnected, Convolutional, ResidualNetwork)}


def choose(prepared: "Prepared", options: NetworkOptions) -> Network:
    """What the options ask for, and for the rest what has done well on data of this kind and size.

    Raises ConfigError for options that do not go together.
    """
    outputs = 1 if prepared.task == "regression" else len(prepared.class_names)
    kind = "mlp" if options.network == "auto" else options.network
    check(options, kind, prepared.image_shape is not None)
    image = None
    if prepared.image_shape is not None:
        augment: tuple[str, ...] = () if kind == "mlp" else ("shift",)
        if options.augment != "auto":
            augment = () if options.augment == "none" else tuple(options.augment.split(","))
        image = ImageInput(prepared.image_shape, prepared.preparation.pixel_scale, augment)
    if kind == "mlp" or image is None:
        return fully_connected(prepared, outputs, image, options)
    activation = "relu" if options.activation == "auto" else options.activation
    norm = "batch" if options.norm == "auto" else options.norm
    dropout = options.dropout
    if kind == "resnet":
        channels = numbers(options.channels, stages(image, (16, 32, 64)))
        return ResidualNetwork(outputs, activation, dropout or 0.0, norm, image, channels, options.blocks or 3)
    channels = numbers(options.channels, stages(image, (32, 64)))
    layers = numbers(options.layers, (128,))
    return Convolutional(outputs, activation, 0.3 if dropout is None else dropout, norm, image, channels, layers)


def check(options: NetworkOptions, kind: str, image: bool) -> None:
    """Raise ConfigError for options that do not go with this network, or with these data."""
    if not image:
        for name, given in (("--network", kind != "mlp"), ("--augment", options.augment not in ("auto", "none"))):
            if given:
                raise ConfigError(f"{name} {getattr(options, name[2:])} is for images, but the data are a table.")
    if options.channels != "auto" and kind == "mlp":
        raise ConfigError("--channels goes with --network cnn or resnet; the widths of an mlp are its --layers.")
    if options.blocks is not None and kind != "resnet":
        raise ConfigError("--blocks goes with --network resnet only.")
    if options.layers not in ("auto", "none") and kind == "resnet":
        raise ConfigError("--network resnet has no hidden layers behind its blocks: give --channels and --blocks.")


def fully_connected(
    prepared: "Prepared", outputs: int, image: ImageInput | None, options: NetworkOptions
) -> FullyConnected:
    """A multilayer perceptron, for tables and for images."""
    dropout, activation = options.dropout, options.activation
    if dropout is None:
        dropout = 0.3 if image else 0.2 if len(prepared.x_train) < MANY_ROWS else 0.0
    if activation == "auto":
        activation = "gelu" if image else "relu"
    layers = numbers(options.layers, (256, 128) if image else (64, 64))
    norm = "none" if options.norm == "auto" else options.norm
    return FullyConnected(outputs, activation, dropout, norm, len(prepared.feature_names), layers, image)


def numbers(text: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    """The widths in an option."""
    if text in ("auto", "none"):
        return usual if text == "auto" else ()
    return tuple(int(width) for width in text.split(","))


def stages(image: ImageInput, usual: tuple[int, ...]) -> tuple[int, ...]:
    """The usual channels; for large images more stages, each with twice the channels of the one before."""
    result, side = usual, max(image.plane[1:]) // 4  # the usual stages halve twice
    while side > SMALL:
        result, side = (*result, 2 * result[-1]), side // 2
    return result


def from_json(data: Mapping[str, Any]) -> Network:
    """The network that `to_json` described. Raises CheckpointError for anything else."""
    try:
        kind = KINDS.get(data["kind"])
        if kind is None:
            raise CheckpointError(f"the network of the run is a {data['kind']!r}, which this chainrule cannot build.")
        given = {field.name: frozen(data[field.name]) for field in fields(kind) if field.name in data}
        if given.get("image") is not None:
            given["image"] = ImageInput(**{name: frozen(value) for name, value in data["image"].items()})
        network = kind(**given)
        sound = network.sound
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the description of the network is damaged: {error!r}.") from error
    if not sound:
        raise CheckpointError("the description of the network is damaged: it has values that no network has.")
    return network


def frozen(value: Any) -> Any:
    """A list of JSON as the tuple that it was."""
    return tuple(value) if isinstance(value, list) else value
