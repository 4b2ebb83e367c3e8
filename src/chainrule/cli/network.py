"""The network for prepared data: what is chosen by itself, how it is built from a description, what it says of itself.

The description is all that a run keeps of its network; the weights are in the checkpoints.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from chainrule import nn
from chainrule.cli.options import ACTIVATIONS, NORMS, NetworkOptions
from chainrule.errors import CheckpointError
from chainrule.random import Generator

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU, "silu": nn.SiLU,
    "mish": nn.Mish, "softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}  # fmt: skip
"""The activations by the names of options; "none" has no layer."""

MANY_ROWS = 10_000
"""With fewer training rows than this, the usual network could learn them by heart: dropout hinders it."""

TITLES = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "elu": "ELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU"}


@dataclass(frozen=True)
class Network:
    """Fully connected layers: `inputs` features, hidden `layers`, then one output for an amount or one a class."""

    inputs: int
    layers: tuple[int, ...]
    outputs: int
    activation: str = "relu"
    dropout: float = 0.0
    norm: str = "none"

    @classmethod
    def choose(cls, inputs: int, outputs: int, rows: int, image: bool, options: NetworkOptions) -> Self:
        """What the options ask for, and for the rest what has done well on data of this size."""
        widths: tuple[int, ...] = ()
        if options.layers == "auto":
            widths = (256, 128) if image else (64, 64)
        elif options.layers != "none":
            widths = tuple(int(width) for width in options.layers.split(","))
        dropout = options.dropout
        if dropout is None:
            dropout = 0.3 if image else 0.2 if rows < MANY_ROWS else 0.0
        activation = options.activation
        if activation == "auto":
            activation = "gelu" if image else "relu"
        return cls(inputs, widths, outputs, activation, dropout, options.norm)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The width of everything, from the input to the output."""
        return (self.inputs, *self.layers, self.outputs)

    def build(self, seed: int) -> nn.Sequential:
        """The network with first weights that depend on the seed alone."""
        generator = Generator(seed)
        parts: list[nn.Module] = []
        width = self.inputs
        for units in self.layers:
            parts.append(nn.Linear(width, units, generator=generator))
            if self.norm == "batch":
                parts.append(nn.BatchNorm1d(units))
            elif self.norm == "layer":
                parts.append(nn.LayerNorm(units))
            if self.activation != "none":
                parts.append(LAYERS[self.activation]())
            if self.dropout:
                parts.append(nn.Dropout(self.dropout, generator=generator.split()))
            width = units
        return nn.Sequential(*parts, nn.Linear(width, self.outputs, generator=generator))

    def line(self, parameters: int) -> str:
        """The network in one line: `13 → 64 → 64 → 1, ReLU, 5,121 parameters`."""
        sizes = " → ".join(f"{size:,}" for size in self.sizes)
        extras = []
        if self.layers and self.activation != "none":
            extras.append(TITLES.get(self.activation, self.activation))
        if self.layers and self.norm != "none":
            extras.append(f"{self.norm} norm")
        if self.layers and self.dropout:
            extras.append(f"dropout {self.dropout:g}")
        return ", ".join([sizes, *extras, f"{parameters:,} parameters"])

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values."""
        return {"kind": "fully connected", **asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The network that `to_json` described. Raises CheckpointError for anything else."""
        try:
            if data["kind"] != "fully connected":
                raise CheckpointError(
                    f"the network of the run is a {data['kind']!r}, which this chainrule cannot build."
                )
            sizes = [data["inputs"], *data["layers"], data["outputs"]]
            network = cls(
                data["inputs"],
                tuple(data["layers"]),
                data["outputs"],
                data["activation"],
                data["dropout"],
                data["norm"],
            )
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the description of the network is damaged: {error!r}.") from error
        sound = all(type(size) is int and size > 0 for size in sizes) and isinstance(network.dropout, int | float)
        if not (sound and network.activation in ACTIVATIONS and network.norm in NORMS):
            raise CheckpointError("the description of the network is damaged: it has values that no network has.")
        return network
