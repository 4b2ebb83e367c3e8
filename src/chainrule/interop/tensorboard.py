"""Event files that TensorBoard shows, written without it.

A file is a row of records, each framed by its length and two checksums. A record is an Event, a Protocol Buffers
message. Of those only the fields that are used here are written:

    Event           1 wall_time (double)  2 step (int64)  3 file_version (string)  5 summary  7 session_log
    Summary         1 value, repeated:    1 tag (string)  2 simple_value (float)   5 histo
    HistogramProto  1 min  2 max  3 num  4 sum  5 sum_squares (double)  6 bucket_limit  7 bucket (packed doubles)
    SessionLog      1 status (enum: 1 is START, which makes events of the same and later steps before it void)

Sources: the formats of TFRecord (tensorflow.org/tutorials/load_data/tfrecord), of CRC-32C (RFC 3720, appendix B.4), and
of Protocol Buffers (protobuf.dev/programming-guides/encoding); event.proto and summary.proto of TensorBoard.
"""

import os
import socket
import struct
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from chainrule.errors import DataError

POLYNOMIAL = 0x82F63B78  # Castagnoli's, its bits reversed
MASK = 0xA282EAD8
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # wire types


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
        found.append(crc)
    return tuple(found)


TABLE = _table()


def crc32c(data: bytes) -> int:
    """The checksum CRC-32C of some bytes.

    >>> from chainrule.interop.tensorboard import crc32c
    >>> f"{crc32c(b'123456789'):08x}"
    'e3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as it stands in a file: turned and shifted, so that one of data with checksums inside is no trap."""
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Data in the frame of a record: length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(crc32c(length))) + data + struct.pack("<I", masked(crc32c(data)))


# -- Protocol Buffers


def varint(number: int) -> bytes:
    """A number of at most 64 bits, seven a byte, the lowest first. Negative ones by their two's complement.

    >>> from chainrule.interop.tensorboard import varint
    >>> varint(300).hex()
    'ac02'
    """
    number &= (1 << 64) - 1
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def _key(field: int, kind: int) -> bytes:
    return varint(field << 3 | kind)


def _double(field: int, value: float) -> bytes:
    return _key(field, DOUBLE) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, BYTES) + varint(len(value)) + value


def _doubles(field: int, values: Sequence[float]) -> bytes:
    return _bytes(field, struct.pack(f"<{len(values)}d", *values))


def _event(wall_time: float, step: int, content: bytes) -> bytes:
    return _double(1, wall_time) + (_key(2, VARINT) + varint(step) if step else b"") + content


def _scalar(tag: str, value: float) -> bytes:
    return _bytes(1, _bytes(1, tag.encode()) + _key(2, FLOAT) + struct.pack("<f", _as_float(value)))


def _as_float(value: float) -> float:
    """What a float32 holds: infinity for more."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


class EventWriter:
    """Writes a new event file into `folder`, which is made when missing. Events stay in memory until `flush`.

    TensorBoard follows a folder: several files in it are parts of one history. DataError when it cannot be written.

    >>> import tempfile
    >>> from chainrule.interop.tensorboard import EventWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = EventWriter(folder)
    ...     writer.scalar("loss", 0.5, step=1)
    ...     writer.flush()
    ...     writer.path.stat().st_size
    82
    """

    _numbers = count()

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(self._numbers)}"
        self.path = self.folder / name
        self._waiting = [record(_event(time.time(), 0, _bytes(3, b"brain.Event:2")))]

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A number of a step."""
        self._add(step, _bytes(5, _scalar(tag, value)))

    def histogram(
        self, tag: str, step: int, *, counts: Sequence[float], low: float, high: float, mean: float, norm: float
    ) -> None:
        """How the values of a tensor are distributed: counts in bins of equal width between low and high, their mean
        and Euclidean norm."""
        number = float(sum(counts))
        width = (high - low) / len(counts) if counts else 0.0
        limits = [low + width * (i + 1) for i in range(len(counts) - 1)] + [high]
        content = _double(1, low) + _double(2, high) + _double(3, number) + _double(4, mean * number)
        content += _double(5, min(norm * norm, 1.7e308)) + _doubles(6, limits) + _doubles(7, [float(n) for n in counts])
        self._add(step, _bytes(5, _bytes(1, _bytes(1, tag.encode()) + _bytes(5, content))))

    def restart(self, step: int) -> None:
        """What was written of this step and later ones, in earlier files of the folder, is void: it is made again."""
        self._add(step, _bytes(7, _key(1, VARINT) + varint(1)))

    def _add(self, step: int, content: bytes) -> None:
        self._waiting.append(record(_event(time.time(), step, content)))

    def flush(self) -> None:
        """Write what is waiting."""
        if not self._waiting:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(b"".join(self._waiting))
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written: {error.strerror or error}. TensorBoard's files need a folder that is "
                "writable, and room on the disk."
            ) from error
        self._waiting.clear()
