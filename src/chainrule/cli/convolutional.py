"""Networks with convolutions, for images: a plain one as LeNet, and a residual one."""

from dataclasses import dataclass

from chainrule import nn
from chainrule.cli.network import ImageInput, Network, augmented
from chainrule.random import Generator


@dataclass(frozen=True)
class Images(Network):
    """What networks for images have: the images, and the `channels` of one stage after the other."""

    convolves = True

    image: ImageInput
    channels: tuple[int, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self.image.shape

    @property
    def sound(self) -> bool:
        """Whether such a network can be built."""
        return super().sound and self.image.sound and bool(self.channels)

    def extras(self) -> list[str]:
        """What stands between the layers, and what is done to images."""
        return super().extras() + augmented(self.image)

    def conv(self, inputs: int, outputs: int, generator: Generator, kernel: int = 3, stride: int = 1) -> nn.Sequential:
        """A convolution that keeps height and width, save for its stride, and the norm behind it."""
        bias = self.norm == "none"  # a norm subtracts it again
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias, generator=generator)
        if self.norm == "batch":
            return nn.Sequential(conv, nn.BatchNorm2d(outputs))
        if self.norm == "layer":  # over channels and places together: a group norm with one group
            return nn.Sequential(conv, nn.GroupNorm(1, outputs))
        return nn.Sequential(conv)


@dataclass(frozen=True)
class Convolutional(Images):
    """Stages of a 3 × 3 convolution, norm, activation and 2 × 2 max-pooling; then fully connected `layers`.

    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), with today's layers.
    """

    kind = "convolutional"

    layers: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels and hidden layers."""
        return (*self.channels, *self.layers)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The image, the stages, the hidden layers, the output."""
        stages = [f"conv {n:,}" for n in self.channels]
        return size_of(self.image), *stages, *(f"{n:,}" for n in (*self.layers, self.outputs))

    def parts(self, generator: Generator) -> list[nn.Module]:
        """The layers in order."""
        made = self.image.parts(generator)
        depth, height, width = self.image.plane
        for channels in self.channels:
            made += [*self.conv(depth, channels, generator), *self.activated()]
            depth = channels
            if min(height, width) >= 2:  # what is one pixel wide cannot be halved
                made.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        made.append(nn.Flatten())
        width = depth * height * width
        for units in self.layers:
            made += [*self.dropped(generator), nn.Linear(width, units, generator=generator), *self.activated()]
            width = units
        return [*made, *self.dropped(generator), nn.Linear(width, self.outputs, generator=generator)]


@dataclass(frozen=True)
class ResidualNetwork(Images):
    """A convolution, stages of `blocks` residual blocks each, the average over all places, and the output.

    Each stage after the first halves height and width. 16, 32, 64 channels with 3 blocks each are ResNet-20.
    Source: He et al., "Deep residual learning for image recognition" (2015), section 4.2; where the shape changes, the
    shortcut is a convolution of 1 × 1.
    """

    kind = "residual"

    blocks: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels and blocks."""
        return (*self.channels, self.blocks)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The image, the stages, the output."""
        stages = [f"{self.blocks} × {n:,}" for n in self.channels]
        return size_of(self.image), *stages, f"{self.outputs:,}"

    def extras(self) -> list[str]:
        """How deep it is (convolutions and the output, shortcuts not counted), and the rest."""
        return [f"ResNet-{2 * self.blocks * len(self.channels) + 2}", *super().extras()]

    def parts(self, generator: Generator) -> list[nn.Module]:
        """The layers in order."""
        depth = self.image.plane[0]
        made = [*self.image.parts(generator), *self.conv(depth, self.channels[0], generator), *self.activated()]
        depth = self.channels[0]
        for stage, channels in enumerate(self.channels):
            for number in range(self.blocks):
                made.append(self.block(depth, channels, 2 if stage and not number else 1, generator))
                made += self.activated()
                depth = channels
        made += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *self.dropped(generator)]
        return [*made, nn.Linear(depth, self.outputs, generator=generator)]

    def block(self, inputs: int, outputs: int, stride: int, generator: Generator) -> nn.Residual:
        """Two convolutions, and what they add to; the activation stands behind."""
        first = self.conv(inputs, outputs, generator, stride=stride)
        inner = nn.Sequential(*first, *self.activated(), *self.conv(outputs, outputs, generator))
        if stride == 1 and inputs == outputs:
            return nn.Residual(inner)
        return nn.Residual(inner, shortcut=self.conv(inputs, outputs, generator, kernel=1, stride=stride))


def size_of(image: ImageInput) -> str:
    """The shape of an image as people write it: `28×28`, `3×32×32`."""
    depth, height, width = image.plane
    return f"{height}×{width}" if depth == 1 else f"{depth}×{height}×{width}"
