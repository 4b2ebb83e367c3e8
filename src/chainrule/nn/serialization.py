"""A state in a safetensors file. The library of that name is loaded when a file is first saved or loaded.

Reading goes through the library's plain bytes, because its NumPy form does not read bfloat16.
Format: https://github.com/huggingface/safetensors, section Format.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from chainrule import dtypes
from chainrule.core.tensor import Tensor, wrap
from chainrule.errors import StateError

_CODES = {
    "F64": dtypes.float64, "F32": dtypes.float32, "F16": dtypes.float16, "BF16": dtypes.bfloat16,
    "I64": dtypes.int64, "I32": dtypes.int32, "U32": dtypes.uint32, "U8": dtypes.uint8, "BOOL": dtypes.bool_,
}  # fmt: skip


def save(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write named tensors to a file, whole or not at all. Raises OSError when it cannot be written."""
    import safetensors.numpy

    content = safetensors.numpy.save({name: np.array(x.known("save"), order="C") for name, x in state.items()})
    target = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(prefix=target.name, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of a file. Raises StateError when it is missing, damaged or of dtypes unknown here."""
    import safetensors

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StateError(f"{os.fspath(path)} cannot be read: {error.strerror or error}.") from error
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise StateError(f"{os.fspath(path)} is no intact safetensors file: {error}.") from error
    return {name: _tensor(name, entry["dtype"], entry["shape"], entry["data"]) for name, entry in entries}


def _tensor(name: str, code: str, shape: list[int], data: bytes) -> Tensor:
    if code not in _CODES:
        raise StateError(f"{name} has dtype {code}, which chainrule does not have.")
    return wrap(np.frombuffer(data, _CODES[code]).reshape(shape).copy())
