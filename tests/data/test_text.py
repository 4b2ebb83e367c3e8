"""Text by characters: there and back, windows with what comes next, files that are no text."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import data
from chainrule.data import CharacterText
from chainrule.errors import ConfigError, DataError
from chainrule.random import Generator


@given(st.text(min_size=1))
def test_there_and_back(text):
    coded = CharacterText.of(text)
    assert coded.decode(coded.ids) == text
    assert coded.vocabulary == "".join(sorted(set(text)))
    np.testing.assert_array_equal(coded.encode(text), coded.ids)
    assert coded.ids.dtype == np.int32 and len(coded) == len(text)


@given(st.text(min_size=2, max_size=60), st.integers(1, 8), st.integers(1, 9))
def test_windows_hold_what_comes_next(text, length, stride):
    coded = CharacterText.of(text)
    if len(text) <= length:
        with pytest.raises(DataError, match="too few"):
            coded.windows(length)
        return
    x, y = coded.windows(length, stride)
    begins = list(range(0, len(text) - length, stride))
    assert [coded.decode(row) for row in x] == [text[i : i + length] for i in begins]
    assert [coded.decode(row) for row in y] == [text[i + 1 : i + 1 + length] for i in begins]


def test_without_a_stride_each_character_is_the_answer_once():
    _, y = CharacterText.of("abcdefghijklm").windows(4)
    assert y.ravel().tolist() == list(range(1, 13))


def test_samples_begin_anywhere_and_repeat_with_the_generator():
    text = CharacterText.of("abcdefgh")
    x, y = text.sample(3, 200, Generator(0))
    assert set(x[:, 0].tolist()) == set(range(5))
    np.testing.assert_array_equal(y, x + 1)
    np.testing.assert_array_equal(x, text.sample(3, 200, Generator(0))[0])


def test_parts_share_the_vocabulary():
    training, validation = CharacterText.of("aaaaaaaaab").split(0.1)
    assert (len(training), len(validation)) == (9, 1)
    assert validation.decode(validation.ids) == "b" and training.vocabulary == "ab"


@pytest.mark.parametrize(("text", "share"), [("abc", 0), ("abc", 1), ("abc", -0.1), ("abc", 0.9), ("a", 0.5)])
def test_parts_are_not_empty(text, share):
    with pytest.raises(ConfigError, match="share"):
        CharacterText.of(text).split(share)


def test_files(tmp_path):
    (tmp_path / "plain.txt").write_bytes("\ufeffé\r\nb\rc\n".encode())
    text = CharacterText.read(tmp_path / "plain.txt")
    assert text.decode(text.ids) == "é\nb\nc\n"
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(b"caf\xe9"))
    assert CharacterText.read(tmp_path / "packed.txt.gz", encoding="latin-1").vocabulary == "acfé"


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"byte 3 is 0xe9(.|\n)*latin-1"):
        CharacterText.read(tmp_path / "latin.txt")
    with pytest.raises(ConfigError, match="encoding"):
        CharacterText.read(tmp_path / "latin.txt", encoding="klingon")
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(DataError):
        CharacterText.read(tmp_path / "empty.txt")
    with pytest.raises(DataError):
        CharacterText.read(tmp_path / "nothing.txt")


def test_unknown_characters_and_numbers():
    text = data.CharacterText.of("abc")
    with pytest.raises(DataError, match="2 characters are not in the vocabulary of 3: 'x' and 'y'"):
        text.encode("axby")
    for wrong in ([3], [-1], [[0]], [0.5]):
        with pytest.raises(DataError, match="from 0 to 2"):
            text.decode(wrong)
    assert text.decode([]) == ""
