"""Event files, byte by byte: checksums and encodings against known values. tests/oracle asks TensorBoard itself."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.errors import DataError
from chainrule.interop.tensorboard import EventWriter, crc32c, masked, record, varint


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4
        (b"\x00" * 32, 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_the_standard(data, expected):
    assert crc32c(data) == expected


def test_masked_checksums_can_be_unmasked():
    for crc in (0, 1, 0xE3069283, 0xFFFFFFFF):
        turned = (masked(crc) - 0xA282EAD8) & 0xFFFFFFFF
        assert (turned >> 17 | turned << 15) & 0xFFFFFFFF == crc


@given(st.integers(-(2**63), 2**64 - 1))
def test_varints_are_read_back(number):
    value = 0
    for i, byte in enumerate(varint(number)):
        value |= (byte & 0x7F) << 7 * i
    assert value == number % 2**64
    assert len(varint(number)) <= 10


def records(data):
    """The contents of the records of a file, their checksums verified."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked(crc32c(data[:8]))
        content, data = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[:4])[0] == masked(crc32c(content))
        data = data[4:]
        found.append(content)
    return found


def test_a_record_is_framed():
    assert records(record(b"hello") + record(b"")) == [b"hello", b""]


def test_a_file_begins_with_its_version_and_a_scalar_is_encoded_as_documented(tmp_path):
    writer = EventWriter(tmp_path / "new" / "folder")
    writer.scalar("loss", 0.5, step=300)
    writer.flush()
    version, event = records(writer.path.read_bytes())
    assert version[9:] == b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss" + b"\x15" + struct.pack("<f", 0.5)
    assert event[0] == 0x09 and event[9:] == b"\x10\xac\x02" + b"\x2a\x0d" + b"\x0a\x0b" + value


def test_flushing_twice_writes_once_and_two_writers_have_two_files(tmp_path):
    first, second = EventWriter(tmp_path), EventWriter(tmp_path)
    first.scalar("a", 1.0, 1)
    first.flush()
    size = first.path.stat().st_size
    first.flush()
    assert first.path.stat().st_size == size
    first.scalar("a", 2.0, 2)
    first.flush()
    assert len(records(first.path.read_bytes())) == 3
    second.flush()
    assert len(list(tmp_path.iterdir())) == 2


def test_numbers_beyond_float32_become_infinite(tmp_path):
    writer = EventWriter(tmp_path)
    writer.scalar("a", 1e300, 1)
    writer.scalar("a", -1e300, 2)
    writer.flush()
    events = records(writer.path.read_bytes())
    assert [struct.unpack("<f", event[-4:])[0] for event in events[1:]] == [float("inf"), float("-inf")]


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    writer = EventWriter(tmp_path / "file" / "folder")
    with pytest.raises(DataError, match="cannot be written"):
        writer.flush()
