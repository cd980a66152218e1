"""Checkpoints: the state of a run in one file, written whole or not at all.

A checkpoint is a safetensors file: tensors and arrays, and the rest as JSON in its header. Nothing in it is executed
when it is read. Its name carries a hash of its content, so that a damaged one is known. Samples are not in it:
the store has them, the checkpoint names them by their ids.
"""

import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load, save

from mirolib.base.errors import InputError
from mirolib.base.files import TEMPORARY, clear, read_bounded, write_atomic
from mirolib.base.state import State

CHECKPOINT_FORMAT = 8
_MOST_BYTES = 1 << 34  # with momentum, two thousand million weights
_KEEP = 2  # the last may be the one that a failing card has damaged
_NAME = re.compile(r"(\d{6,})-([0-9a-f]{32})\.safetensors")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run in a folder, which need not exist yet; the last two are kept."""

    folder: Path

    def files(self) -> list[Path]:
        """The checkpoints there are, the newest first."""
        found = (file for file in self.folder.glob("*.safetensors") if _NAME.fullmatch(file.name))
        return sorted(found, key=_number, reverse=True)

    def save(self, state: State) -> Path:
        """Adds a checkpoint and deletes those before the last two; a `StorageError` leaves all of them there."""
        content = encoded(state)
        files = self.files()
        number = _number(files[0]) + 1 if files else 1
        path = self.folder / f"{number:06d}-{xxhash.xxh3_128_hexdigest(content)}.safetensors"
        with suppress(OSError):  # which is told where the file itself can't be written
            self.folder.mkdir()
        write_atomic(path, content)
        clear(self.folder, files[_KEEP - 1 :])  # only once the new one is whole on disk
        return path

    def delete(self) -> None:
        """Deletes all of them, and the folder if nothing else is in it."""
        clear(self.folder, [*self.files(), *self.folder.glob(f"{TEMPORARY}*")])

    def latest(self) -> State | None:
        """The newest checkpoint that is whole; None where there is none. Damaged ones are named in the log.

        There is an `InputError` if there are checkpoints and all are damaged, or of another format.
        """
        files = self.files()
        for file in files:
            try:
                return read_checkpoint(file)
            except InputError as error:
                logger.warning("%s", error)
        if files:
            raise InputError(f"No checkpoint in {self.folder} can be read; delete the folder to begin the run anew.")
        return None


def read_checkpoint(path: Path) -> State:
    """The state in a checkpoint file; an `InputError` if it can't be read, is damaged, or is of another format."""
    try:
        content = read_bounded(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"The checkpoint {path} can't be read: {getattr(error, 'strerror', error)}.") from error
    name = _NAME.fullmatch(path.name)
    if not name or xxhash.xxh3_128_hexdigest(content) != name[2]:
        raise InputError(f"The checkpoint {path} is damaged: its content is not what its name says.")
    return decoded(content)


def encoded(state: State) -> bytes:
    """A state as the content of a safetensors file."""
    tensors: dict[str, torch.Tensor] = {}

    def key_of(value: Any) -> dict[str, str]:
        """The key under which a tensor or array, which JSON doesn't know, was moved to `tensors`."""
        kind, key = ("tensor" if isinstance(value, torch.Tensor) else "array"), f"{len(tensors):06d}"
        tensor = value.detach().cpu() if kind == "tensor" else torch.from_numpy(value)
        tensors[key] = tensor.clone(memory_format=torch.contiguous_format)  # no two may share memory
        return {kind: key}

    return save(tensors, {"state": json.dumps({"format": CHECKPOINT_FORMAT, **state}, default=key_of)})


def decoded(content: bytes) -> State:
    """The inverse of `encoded`; an `InputError` if the content is no such file, or of another format."""

    def with_tensors(value: State) -> Any:
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        return tensors[value["array"]].numpy() if value.keys() == {"array"} else value

    try:
        tensors, size = load(content), int.from_bytes(content[:8], "little")
        state = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["state"], object_hook=with_tensors)
        if (written := state["format"]) == CHECKPOINT_FORMAT:
            return state
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"This is no checkpoint of a run: {type(error).__name__}: {error}.") from error
    raise InputError(
        f"The checkpoint has format {written}; this version reads {CHECKPOINT_FORMAT}. Go on with the version that "
        "wrote it, or begin the run anew."
    )


def _number(file: Path) -> int:
    return int(file.name.split("-")[0])
