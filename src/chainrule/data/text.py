"""Text as numbers, a character each, for networks that learn what comes next."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.data.findings import counted, listed
from chainrule.data.textfile import read_bytes
from chainrule.errors import ConfigError, DataError
from chainrule.random import Generator

Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class CharacterText:
    """A text as the numbers of its characters in a vocabulary.

    ids: int32 (characters,). vocabulary: all characters that occur, in the order of their code points; a character's
    number is its place there.

    >>> from chainrule import data
    >>> text = data.CharacterText.of("hello, hell")
    >>> text.vocabulary, text.ids[:5].tolist(), text.decode(text.ids[:5])
    (' ,ehlo', [3, 2, 4, 4, 5], 'hello')
    """

    ids: Ids
    vocabulary: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The text with the vocabulary of its own characters. Raises DataError for an empty one.

        >>> from chainrule import data
        >>> data.CharacterText.of("abba").ids.tolist()
        [0, 1, 1, 0]
        """
        if not text:
            raise DataError("the text is empty: there is nothing to learn from.")
        points, ids = np.unique(code_points(text), return_inverse=True)
        return cls(ids.astype(np.int32), "".join(map(chr, points.tolist())))

    @classmethod
    def read(cls, path: str | os.PathLike[str], encoding: str = "utf-8") -> Self:
        """The text in a file, which may be gzipped. Line ends become newlines.

        Raises DataError for a file that is not there, is empty, or is no text of this encoding.
        """
        file = Path(path)
        content = read_bytes(file)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file.name} is no {encoding} text: byte {error.start:,} is {content[error.start]:#04x}. "
                f'Give its encoding, such as encoding="latin-1".'
            ) from error
        except LookupError as error:
            raise ConfigError(f'encoding is "{encoding}", which Python does not know. Try utf-8 or latin-1.') from error
        return cls.of(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each character."""
        return {character: i for i, character in enumerate(self.vocabulary)}

    def encode(self, text: str) -> Ids:
        """The numbers of the characters of another text: int32 (characters,). Raises DataError for unknown ones.

        >>> from chainrule import data
        >>> data.CharacterText.of("abc").encode("cab").tolist()
        [2, 0, 1]
        """
        unknown = sorted(set(text) - self.numbers.keys())
        if unknown:
            raise DataError(
                f"{counted(len(unknown), 'character is', 'characters are')} not in the vocabulary of "
                f"{len(self.vocabulary)}: {listed(map(repr, unknown), 8)}."
            )
        return np.array([self.numbers[character] for character in text], np.int32)

    def decode(self, ids: ArrayLike) -> str:
        """The text of some numbers (characters,). Raises DataError for numbers that no character has.

        >>> from chainrule import data
        >>> data.CharacterText.of("abc").decode([2, 0, 1])
        'cab'
        """
        given = np.asarray(ids)
        fitting = given.ndim == 1 and (given.dtype.kind in "iu" or not given.size)
        if not fitting or (given.size and not (given.min() >= 0 and given.max() < len(self.vocabulary))):
            raise DataError(
                f"numbers of characters are integers from 0 to {len(self.vocabulary) - 1} along one axis; got "
                f"{given.dtype} of shape {given.shape}{f', from {given.min()} to {given.max()}' if given.size else ''}."
            )
        return "".join(self.vocabulary[i] for i in given.tolist())

    def split(self, validation: float = 0.1) -> tuple[Self, Self]:
        """The beginning, to train on, and the rest, to validate on, with one vocabulary.

        Text is not drawn by chance: what stands next to a training sentence would give away its neighbours. Raises
        ConfigError for a share outside of 0 to 1 or parts that are empty.

        >>> from chainrule import data
        >>> training, validation = data.CharacterText.of("abcdefghij").split(0.2)
        >>> len(training), validation.decode(validation.ids)
        (8, 'ij')
        """
        if not 0 < validation < 1 or not 0 < (begin := int(len(self) * (1 - validation))) < len(self):
            raise ConfigError(
                f"validation={validation} is a share between 0 and 1 that leaves both parts some of the "
                f"{counted(len(self), 'character')}."
            )
        return type(self)(self.ids[:begin], self.vocabulary), type(self)(self.ids[begin:], self.vocabulary)

    def windows(self, length: int, stride: int | None = None) -> tuple[Ids, Ids]:
        """All windows: inputs and what comes next, both (rows, length). For `fit`, as (x, y).

        A window begins every `stride` characters, without one every `length`, so that each character is the answer
        once. Raises ConfigError for lengths that make no sense, DataError for a text that is too short.

        >>> from chainrule import data
        >>> x, y = data.CharacterText.of("abcdefgh").windows(3)
        >>> x.tolist(), y.tolist()
        ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
        """
        step = length if stride is None else stride
        if step < 1:
            raise ConfigError(f"stride={step} must be at least 1.")
        return self.at(np.arange(0, self.places(length), step), length)

    def sample(self, length: int, rows: int, generator: Generator) -> tuple[Ids, Ids]:
        """Windows that begin anywhere, each place alike likely: inputs and what comes next, both (rows, length).

        >>> import chainrule as cr
        >>> x, y = cr.data.CharacterText.of("abcdefgh").sample(4, 2, cr.random.Generator(0))
        >>> bool((x[:, 1:] == y[:, :-1]).all())
        True
        """
        return self.at(np.asarray(generator.randint(0, self.places(length), (rows,))), length)

    def places(self, length: int) -> int:
        """At how many places a window can begin, so that each of its characters has a next one."""
        if length < 1:
            raise ConfigError(f"length={length} must be at least 1.")
        if len(self) <= length:
            raise DataError(
                f"the text has {counted(len(self), 'character')}: too few for a window of {length} and one."
            )
        return len(self) - length

    def at(self, begins: NDArray[Any], length: int) -> tuple[Ids, Ids]:
        """The windows that begin at some places."""
        places = begins[:, None] + np.arange(length)
        return self.ids[places], self.ids[places + 1]


def code_points(text: str) -> NDArray[np.uint32]:
    """The characters of a text as numbers, all of one size."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
