"""Networks as descriptions: what a run keeps of its network, what it builds from it, what it says of it.

The weights are in the checkpoints. Networks with convolutions are in chainrule.cli.convolutional, and which one suits
the data is decided in chainrule.cli.networks.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from chainrule import nn
from chainrule.cli.checks import AUGMENTATIONS
from chainrule.cli.options import ACTIVATIONS, NORMS
from chainrule.random import Generator

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU, "silu": nn.SiLU,
    "mish": nn.Mish, "softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "none": nn.Identity,
}  # fmt: skip
"""The activations by the names of options."""

TITLES = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "elu": "ELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU"}

CHANNELS = (1, 3, 4)
"""An axis of so many elements, before or behind height and width, holds the channels of an image."""

AUGMENTED = dict(zip(AUGMENTATIONS, ("shifted", "flipped"), strict=True))
"""What is done to training images at random, in words."""

SHIFTED = 8
"""Images are shifted by up to this part of their shorter side: 4 of 32 pixels, as He et al. (2015) do."""


@dataclass(frozen=True)
class ImageInput:
    """Images (rows, *shape) whose pixels are divided by `scale` and, in training, changed at random by `augment`."""

    shape: tuple[int, ...]
    scale: float
    augment: tuple[str, ...] = ()

    @property
    def channels_last(self) -> bool:
        """Whether the channels stand behind height and width."""
        return len(self.shape) == 3 and self.shape[2] in CHANNELS and self.shape[0] not in CHANNELS

    @property
    def plane(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        if len(self.shape) == 2:
            return (1, *self.shape)
        return (self.shape[2], *self.shape[:2]) if self.channels_last else self.shape  # type: ignore[return-value]

    def parts(self, generator: Generator) -> list[nn.Module]:
        """What stands in front of the network."""
        made: list[nn.Module] = [nn.Pixels(self.scale, channels_last=self.channels_last)]
        if "shift" in self.augment:
            made.append(nn.RandomShift(max(1, min(self.plane[1:]) // SHIFTED), generator.split()))
        if "flip" in self.augment:
            made.append(nn.RandomHorizontalFlip(generator=generator.split()))
        return made

    @property
    def sound(self) -> bool:
        """Whether there can be such images."""
        whole = len(self.shape) in (2, 3) and all(type(n) is int and n > 0 for n in self.shape)
        return whole and self.scale > 0 and set(self.augment) <= AUGMENTED.keys()


@dataclass(frozen=True)
class Network(ABC):
    """What all networks have: one output for an amount or one a class, and what stands between their layers."""

    kind: ClassVar[str]
    convolves: ClassVar[bool] = False

    outputs: int
    activation: str
    dropout: float
    norm: str

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[str, ...]:
        """How large everything is, from the input to the output."""

    @abstractmethod
    def parts(self, generator: Generator) -> list[nn.Module]:
        """The layers with first weights from the generator."""

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """All numbers that have to be whole and positive."""

    @property
    def sound(self) -> bool:
        """Whether such a network can be built: descriptions come from files."""
        known = self.activation in ACTIVATIONS and self.norm in NORMS
        whole = all(type(n) is int and n > 0 for n in (*self.widths, self.outputs))
        return known and whole and isinstance(self.dropout, int | float) and 0 <= self.dropout < 1

    def build(self, seed: int) -> nn.Sequential:
        """The network with first weights that depend on the seed alone."""
        return nn.Sequential(*self.parts(Generator(seed)))

    def extras(self) -> list[str]:
        """What stands between the layers, and what is done to images."""
        found = [] if self.activation == "none" else [TITLES.get(self.activation, self.activation)]
        if self.norm != "none":
            found.append(f"{self.norm} norm")
        if self.dropout:
            found.append(f"dropout {self.dropout:g}")
        return found

    def line(self, parameters: int) -> str:
        """The network in one line: `13 → 64 → 64 → 1, ReLU, 5,121 parameters`."""
        return ", ".join([" → ".join(self.sizes), *self.extras(), f"{parameters:,} parameters"])

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values, which know no tuples."""
        described: dict[str, Any] = json.loads(json.dumps({"kind": self.kind, **asdict(self)}))
        return described

    def activated(self) -> list[nn.Module]:
        """The activation, if there is one."""
        return [LAYERS[self.activation]()] if self.activation != "none" else []

    def dropped(self, generator: Generator) -> list[nn.Module]:
        """Dropout, if there is any."""
        return [nn.Dropout(self.dropout, generator=generator.split())] if self.dropout else []


@dataclass(frozen=True)
class FullyConnected(Network):
    """Fully connected hidden `layers` between `inputs` features, or the pixels of images, and the output."""

    kind = "fully connected"

    inputs: int
    layers: tuple[int, ...]
    image: ImageInput | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return (self.inputs,) if self.image is None else self.image.shape

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs and hidden layers."""
        return (self.inputs, *self.layers)

    @property
    def sound(self) -> bool:
        """Whether such a network can be built."""
        return super().sound and (self.image is None or self.image.sound)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The width of every layer."""
        return tuple(f"{size:,}" for size in (*self.widths, self.outputs))

    def extras(self) -> list[str]:
        """What stands between hidden layers, if there are any."""
        return (super().extras() if self.layers else []) + augmented(self.image)

    def parts(self, generator: Generator) -> list[nn.Module]:
        """Linear, norm, activation and dropout for each hidden layer, and the output."""
        made = [] if self.image is None else [*self.image.parts(generator), nn.Flatten()]
        width = self.inputs
        for units in self.layers:
            made.append(nn.Linear(width, units, generator=generator))
            if self.norm == "batch":
                made.append(nn.BatchNorm1d(units))
            elif self.norm == "layer":
                made.append(nn.LayerNorm(units))
            made += self.activated() + self.dropped(generator)
            width = units
        return [*made, nn.Linear(width, self.outputs, generator=generator)]


def augmented(image: ImageInput | None) -> list[str]:
    """What is done to training images, in words."""
    done = [AUGMENTED[name] for name in (image.augment if image is not None else ())]
    return [f"images {' and '.join(done)} at random"] if done else []
