"""Where the rows of many steps come from: the data as they lie in memory, a converted copy, or read ahead of time."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from chainrule import dtypes, tree
from chainrule.train.batches import Batch, Data, converted, row_order

SHARE = 8  # this part of the machine's memory may be used for converted copies, and for files mapped to memory
UNKNOWN = 8 << 30  # bytes of memory of a machine that does not tell
READ = 64 << 20  # bytes read ahead at a time, at most


class Reading(NamedTuple):
    """Rows that are being read: those from `begin` on in this order."""

    order: np.ndarray
    begin: int
    rows: int
    result: Future[list[np.ndarray]]


class Feed:
    """The arrays of Data in the dtypes that steps take, in the order in which `tree.flatten` meets them.

    Arrays that engines can gather rows from are used where they are. Others are converted at once, if that takes no
    more than an eighth of the machine's memory. If not, or if a file mapped to memory is larger than that, the rows are
    gathered and converted some steps at a time: by another thread, while the rows before them are trained on.
    """

    def __init__(self, data: Data, dtype: dtypes.DType) -> None:
        self.data, self.dtype = data, dtype
        self.sources: list[np.ndarray] = []
        self.reading: Reading | None = None
        self.reader: ThreadPoolExecutor | None = None
        room, streams, row_bytes = _memory() // SHARE, False, 0
        for leaf in tree.flatten([data.x, data.y, data.weight]).leaves:
            array, kind = leaf.value, converted(leaf.value[:0], dtype).dtype
            size = array.size * kind.itemsize
            row_bytes += size // data.rows
            if _fits(array, kind):
                streams |= _mapped(array) and array.nbytes > room
                self.sources.append(np.asarray(array))
                continue
            streams |= size > room
            if not streams:
                self.sources.append(np.ascontiguousarray(converted(array, dtype)))
                room -= size
        self.most = max(1, READ // max(1, row_bytes)) if streams else data.rows  # rows at a time
        self.streams = streams
        if streams:
            self.sources = []

    def example(self, rows: int) -> Batch:
        """A batch of so many rows, whatever is in them."""
        return self.data.gather(slice(0, rows), self.dtype)

    def ready(self, order: np.ndarray, begin: int) -> int:
        """How many rows from `begin` on are being read; 0 for none."""
        reading = self.reading
        return reading.rows if reading is not None and reading.order is order and reading.begin == begin else 0

    def rows(self, order: np.ndarray, begin: int, count: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Arrays, and the numbers in them of `count` rows of the order, from `begin` on."""
        if not self.streams:
            return self.sources, order[begin : begin + count]
        if self.ready(order, begin) >= count:
            assert self.reading is not None
            arrays, self.reading = self.reading.result.result(), None
        else:
            arrays = self._read(order[begin : begin + count])
        return arrays, np.arange(count)

    def ahead(self, order: np.ndarray, begin: int, count: int) -> None:
        """Begin to read the next rows."""
        count = min(count, self.most, len(order) - begin)
        if not self.streams or count <= 0:
            return
        if self.reader is None:
            self.reader = ThreadPoolExecutor(1, thread_name_prefix="chainrule-reader")
        self.reading = Reading(order, begin, count, self.reader.submit(self._read, order[begin : begin + count]))

    def _read(self, rows: np.ndarray) -> list[np.ndarray]:
        batch = self.data.gather(rows, self.dtype)
        return [np.ascontiguousarray(leaf.value) for leaf in tree.flatten([batch.x, batch.y, batch.weight]).leaves]

    def close(self) -> None:
        """End the thread that reads."""
        if self.reader is not None:
            self.reader.shutdown(cancel_futures=True)
        self.reader = self.reading = None


class Order:
    """The order of the rows in each epoch. With `another` thread, that of the next epoch is made during this one."""

    def __init__(self, seed: int, rows: int, shuffle: bool) -> None:
        self.seed, self.rows, self.shuffle, self.another = seed, rows, shuffle, False
        self.next: tuple[int, Future[np.ndarray]] | None = None
        self.maker: ThreadPoolExecutor | None = None

    def of(self, epoch: int) -> np.ndarray:
        """The numbers of all rows."""
        if self.next is not None and self.next[0] == epoch:
            return self.next[1].result()
        return row_order(self.seed, epoch, self.rows, self.shuffle)

    def ahead(self, epoch: int) -> None:
        """Begin to make that of another epoch."""
        if not self.another or not self.shuffle:
            return
        if self.maker is None:
            self.maker = ThreadPoolExecutor(1, thread_name_prefix="chainrule-order")
        self.next = epoch, self.maker.submit(row_order, self.seed, epoch, self.rows)

    def close(self) -> None:
        """End the other thread."""
        if self.maker is not None:
            self.maker.shutdown(cancel_futures=True)
        self.maker = self.next = None


def _fits(array: np.ndarray, kind: dtypes.DType) -> bool:
    """Whether engines take rows from it as it is: see ChunkSession."""
    alike = array.dtype == kind or {array.dtype, kind} == {dtypes.float32, dtypes.float64}
    return bool(array.flags.c_contiguous) and alike


def _mapped(array: np.ndarray) -> bool:
    """Whether it is a view of a file mapped to memory."""
    base = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base  # type: ignore[assignment]
    return False


def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN
