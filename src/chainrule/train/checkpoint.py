"""Checkpoints: named arrays and a JSON state in one file, complete and unchanged, or noticed not to be.

A checkpoint of step 300 is the file `step-000000300.safetensors`. It is a valid safetensors file
(https://github.com/huggingface/safetensors, section Format), so that other tools can read the arrays:

    8 bytes      length N of the header, little-endian
    N bytes      header, JSON: {"__metadata__": {"sha256", "format", "step", "best", "state"},
                 name: {"dtype", "shape", "data_offsets"}, ...}, padded with spaces to a multiple of 8
    the rest     the arrays' bytes, one after the other, wider dtypes first so that each is aligned

One file means one rename, so a checkpoint exists as a whole or not at all. `sha256` is the digest of the whole file
with zeros in its own place: every bit counts. It stands first in the header, at a fixed place, so it is checked
before anything in the file is believed.

The format is written and read here, in few lines, for three things that its library for NumPy does not do: it takes
arrays that are not contiguous, reads bfloat16 back, and needs no second copy of the arrays.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from chainrule.errors import CheckpointError, ConfigError, DTypeError
from chainrule.train.files import atomic_write, from_json, sync_folder, to_json

_FORMAT = "chainrule checkpoint 1"
_NAME = re.compile(r"step-(\d{9,})\.safetensors")
_START = b'{"__metadata__":{"sha256":"'
_DIGEST = slice(8 + len(_START), 8 + len(_START) + 64)
_NO_DIGEST = b"0" * 64

# Little-endian, as the format has it; on a big-endian machine saving is refused rather than wrong.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over; the message says which, why, and what was used instead."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: the arrays (writable, in the order in which they were saved) and the JSON state."""

    step: int
    tensors: dict[str, np.ndarray]
    state: dict[str, Any]
    best: bool
    path: Path


@dataclass(frozen=True)
class CheckpointInfo:
    """What can be told about a checkpoint without reading its arrays. `damage` is empty, or says what is wrong."""

    step: int
    path: Path
    best: bool
    damage: str = ""


class _Damaged(Exception):
    """The file is not what was written."""


def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    *,
    best: bool = False,
    sync: bool = True,
) -> Path:
    """Save arrays (any shape, bit for bit) and a state (JSON values, NaN and infinities too) of one step.

    `step` is a count from 0; a checkpoint of the same step is replaced. `best` marks this one as the best so far: the
    newest one that is marked is what `load_checkpoint(folder, "best")` loads. Returns the path of the file. When the
    process is killed, or the disk is full, the checkpoints saved before are untouched. `sync=False` does not wait for
    the disk: after a power failure the file may be damaged, which is noticed.

    Raises `ConfigError` for a step or a state that cannot be saved, `DTypeError` for an array that cannot,
    `CheckpointError` when the file cannot be written.

    >>> import tempfile
    >>> import numpy as np
    >>> from chainrule.train.checkpoint import load_checkpoint, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_checkpoint(folder, 300, {"weight": np.ones((2, 3), np.float32)}, {"epoch": 4})
    ...     checkpoint = load_checkpoint(folder)
    >>> path.name, checkpoint.step, checkpoint.state, checkpoint.tensors["weight"].shape
    ('step-000000300.safetensors', 300, {'epoch': 4}, (2, 3))
    """
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
        raise ConfigError(f"The step of a checkpoint is a count from 0, not {step!r}.")
    if not isinstance(state, dict):
        raise ConfigError(f"The state of a checkpoint is a dict, not {type(state).__name__}.")
    arrays = {name: _savable(name, array) for name, array in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    chunks = [arrays[name].reshape(-1).view(np.uint8).data for name in order]
    header = _header(
        {
            "sha256": _NO_DIGEST.decode(),
            "format": _FORMAT,
            "step": str(step),
            "best": "yes" if best else "no",
            "state": to_json(state, "state"),
        },
        arrays,
        order,
    )
    digest = hashlib.sha256(header)
    for chunk in chunks:
        digest.update(chunk)
    header = header[: _DIGEST.start] + digest.hexdigest().encode() + header[_DIGEST.stop :]

    path = _path(Path(folder), step)
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent.parent)
        atomic_write(path, lambda file: file.writelines([header, *chunks]), sync=sync)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint of step {step} could not be written to {path.parent}: "
            f"{error.strerror or error}. Those saved before are intact. "
            "Free some space, or choose another folder."
        ) from error
    return path


def load_checkpoint(folder: str | os.PathLike[str], step: int | Literal["last", "best"] | None = None) -> Checkpoint:
    """Load the last checkpoint of a folder ("last" or None), the best ("best"), or that of a given step.

    Every byte is checked. A damaged file is passed over with a `CheckpointWarning`: "last" falls back to the one
    before, "best" to the one that was the best before; a given step has no substitute. Safe while another process
    saves and prunes in the same folder. The arrays are views of one buffer: copy what is to outlive the rest.

    Raises `CheckpointError` when there is none, or none that is intact.

    >>> import tempfile
    >>> import numpy as np
    >>> from chainrule.train.checkpoint import load_checkpoint, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_checkpoint(folder, 1, {"weight": np.zeros(3)}, {"loss": 0.2}, best=True)
    ...     path = save_checkpoint(folder, 2, {"weight": np.ones(3)}, {"loss": 0.3})
    ...     load_checkpoint(folder, "best").state, load_checkpoint(folder).state, load_checkpoint(folder, 2).step
    ({'loss': 0.2}, {'loss': 0.3}, 2)
    """
    if step not in (None, "last", "best") and (isinstance(step, bool) or not isinstance(step, (int, np.integer))):
        raise ConfigError(f"step is a number, 'last' or 'best', not {step!r}.")
    folder = Path(folder)
    for _ in range(20):
        try:
            return _load(folder, step)
        except FileNotFoundError:
            continue  # pruned between listing and opening; then a newer one is there: look again
    raise CheckpointError(
        f"The checkpoints in {folder} vanish faster than they can be read. "
        "Is a training running there? Keep more of them, or try again."
    )


def list_checkpoints(folder: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """The checkpoints of a folder, oldest first, from their headers: truncation shows, a flipped bit need not.

    Raises `CheckpointError` when there is no such folder.

    >>> import tempfile
    >>> from chainrule.train.checkpoint import list_checkpoints, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in (1, 2):
    ...         path = save_checkpoint(folder, step, {}, {}, best=step == 1)
    ...     [(info.step, info.best) for info in list_checkpoints(folder)]
    [(1, True), (2, False)]
    """
    infos = []
    for step, path in checkpoint_files(Path(folder)).items():
        try:
            infos.append(CheckpointInfo(step, path, _peek(path)))
        except FileNotFoundError:
            continue
        except _Damaged as damage:
            infos.append(CheckpointInfo(step, path, False, str(damage)))
    return infos


def prune_checkpoints(folder: str | os.PathLike[str], keep: int = 3) -> list[Path]:
    """Delete all but the last `keep` checkpoints and the best one; returns the paths that were deleted.

    Keep two or more: the one before is what a damaged last one falls back to. Damaged files neither count as kept
    nor are they deleted. A file that may not be deleted now (Windows forbids it while somebody reads it) stays.

    Raises `ConfigError` when `keep` is less than 1, `CheckpointError` when there is no such folder.

    >>> import tempfile
    >>> from chainrule.train.checkpoint import list_checkpoints, prune_checkpoints, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in range(6):
    ...         path = save_checkpoint(folder, step, {}, {}, best=step == 1)
    ...     deleted = prune_checkpoints(folder, keep=2)
    ...     [info.step for info in list_checkpoints(folder)]
    [1, 4, 5]
    """
    if keep < 1:
        raise ConfigError(f"keep is the number of checkpoints that stay, at least 1, not {keep}.")
    intact = [info for info in list_checkpoints(folder) if not info.damage]
    kept = {info.step for info in intact[-keep:]} | {info.step for info in [i for i in intact if i.best][-1:]}
    deleted = []
    for info in intact:
        with suppress(FileNotFoundError, PermissionError):
            if info.step not in kept:
                info.path.unlink()
                deleted.append(info.path)
    return deleted


def delete_checkpoints_after(folder: str | os.PathLike[str], step: int) -> list[Path]:
    """Delete the checkpoints of later steps, damaged ones too, newest first; returns the paths that were deleted.

    This is what resuming from an earlier step needs: the later ones belong to a run that is given up. Durable when it
    returns; when it is cut short, what is left is what an earlier kill would have left.

    Raises `CheckpointError` when there is no such folder, or a file cannot be deleted.

    >>> import tempfile
    >>> from chainrule.train.checkpoint import delete_checkpoints_after, list_checkpoints, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in range(4):
    ...         path = save_checkpoint(folder, step, {}, {})
    ...     deleted = delete_checkpoints_after(folder, 1)
    ...     [info.step for info in list_checkpoints(folder)]
    [0, 1]
    """
    deleted = []
    for later, path in reversed(checkpoint_files(Path(folder)).items()):
        if later > step:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CheckpointError(
                    f"{path} could not be deleted: {error.strerror or error}. Resuming from an earlier step needs that."
                ) from error
            deleted.append(path)
    sync_folder(folder)
    return deleted


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"


def checkpoint_files(folder: Path) -> dict[int, Path]:
    """The files of a folder of checkpoints, oldest first, by step. Raises `CheckpointError` when there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"There is no folder {folder}, so there are no checkpoints in it. "
            "They are in the folder checkpoints of a run."
        ) from None
    steps = {int(match[1]) for match in map(_NAME.fullmatch, names) if match}
    return {step: _path(folder, step) for step in sorted(steps)}


def _savable(name: str, array: np.ndarray) -> np.ndarray:
    if not isinstance(name, str) or name == "__metadata__":
        raise ConfigError(f"A tensor cannot be named {name!r}: names are strings, and '__metadata__' is taken.")
    if not isinstance(array, (np.ndarray, np.generic)):
        raise DTypeError(
            f"The tensor {name!r} is of type {type(array).__name__}, not a NumPy array. Try np.asarray(...)."
        )
    array = np.asarray(array, order="C")
    if array.dtype not in _CODES:
        known = ", ".join(dtype.name for dtype in _CODES)
        raise DTypeError(
            f"The tensor {name!r} has dtype {array.dtype!r}, which a checkpoint cannot hold. "
            f"It holds {known}, in little-endian order. Try .astype(...)."
        )
    return array


def _header(metadata: dict[str, str], arrays: dict[str, np.ndarray], order: list[str]) -> bytes:
    offsets, end = {}, 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        offsets[name] = [begin, end]
    entries = {
        name: {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": offsets[name]}
        for name, array in arrays.items()
    }
    text = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _load(folder: Path, step: int | str | None) -> Checkpoint:
    files = checkpoint_files(folder)
    if not files:
        raise CheckpointError(f"There are no checkpoints in {folder} yet.")
    if isinstance(step, (int, np.integer)):
        if step not in files:
            raise CheckpointError(f"There is no checkpoint of step {step} in {folder}. There are: {_some(files)}.")
        try:
            return _read(files[step], int(step))
        except _Damaged as damage:
            raise CheckpointError(
                f"{files[step]} is damaged: {damage}. Others in its folder: {_some(files.keys() - {step}) or 'none'}."
            ) from damage
    broken: list[str] = []
    for candidate, path in reversed(files.items()):
        try:
            if step == "best" and not _peek(path):
                continue
            checkpoint = _read(path, candidate)
        except _Damaged as damage:
            broken.append(f"{path.name} is damaged: {damage}")
            continue
        if broken:
            warnings.warn(
                f"{'; '.join(broken)}. The checkpoint of step {candidate} is used instead ({folder}).",
                CheckpointWarning,
                stacklevel=3,
            )
        return checkpoint
    if step == "best":
        raise CheckpointError(
            f"No {'intact ' if broken else ''}checkpoint in {folder} is marked as the best. "
            f"{'; '.join([*broken, ''])}Try the last one."
        )
    raise CheckpointError(
        f"None of the checkpoints in {folder} is intact: {'; '.join(broken)}. "
        "Restore the folder from a backup, or train again."
    )


def _some(steps: Any) -> str:
    ordered = sorted(steps)
    return ", ".join(map(str, ordered if len(ordered) < 12 else [*ordered[:3], "…", *ordered[-6:]]))


def peek_state(path: Path) -> dict[str, Any]:
    """The state in the header of a checkpoint, whose arrays are not read: nor is it known whether they are intact.

    Raises `CheckpointError` when the header or the size of the file is off, `FileNotFoundError` when there is none.
    """
    try:
        return dict(from_json(_metadata(path)["state"]))
    except (_Damaged, ValueError, LookupError, TypeError) as damage:
        raise CheckpointError(f"{path} is damaged: {damage}.") from damage


def _peek(path: Path) -> bool:
    """Whether the checkpoint is marked as the best, from its header. Raises _Damaged when the header or size is off."""
    return bool(_metadata(path)["best"] == "yes")


def _metadata(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length) if 8 + length <= size else b"")
        metadata = header.pop("__metadata__")
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if metadata["format"] != _FORMAT or not metadata.keys() >= {"best", "state"} or size != 8 + length + end:
            raise _Damaged("its size or format is not what its header says")
        return dict(metadata)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged("its header cannot be read") from error


def _read(path: Path, step: int) -> Checkpoint:
    """Read one file. Until the checksum has matched, nothing in it is believed, not even a length."""
    try:
        buffer = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Damaged(f"it cannot be read ({error.strerror or error})") from error
    if buffer[8 : _DIGEST.start].tobytes() != _START or buffer.size < _DIGEST.stop:
        raise _Damaged("it does not begin as a checkpoint of chainrule does")
    digest = hashlib.sha256(buffer[: _DIGEST.start].data)
    digest.update(_NO_DIGEST)
    digest.update(buffer[_DIGEST.stop :].data)
    if digest.hexdigest().encode() != buffer[_DIGEST].tobytes():
        raise _Damaged("its content does not match its checksum")

    data = 8 + int.from_bytes(buffer[:8].tobytes(), "little")
    header = json.loads(buffer[8:data].tobytes())
    metadata = header.pop("__metadata__")
    if metadata["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} is a {metadata['format']!r}; this version of chainrule reads {_FORMAT!r}. "
            "Install the version that wrote it."
        )
    if int(metadata["step"]) != step:
        raise _Damaged(f"it holds step {metadata['step']}, so it was renamed")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        tensors[name] = buffer[data + begin : data + end].view(dtype).reshape(entry["shape"])
    return Checkpoint(step, tensors, from_json(metadata["state"]), metadata["best"] == "yes", path)
