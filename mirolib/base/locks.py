"""One process at a time in a folder: a lock of the operating system's, which dies with its holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirolib.base.errors import StorageError

_FILE = "process.lock"


class FolderLock:
    """Holds a folder for this process.

    The kernel drops the lock when the process ends, however it ends, so that the file of a dead process, whose number
    may belong to another by now, is no obstacle.
    """

    def __init__(self, folder: Path, *, may_write: bool = True) -> None:
        """Takes the lock.

        Args:
            folder: The folder.
            may_write: False writes nothing and makes no file: without one no process has the folder.

        Raises:
            OSError: If the lock file can't be made or written.
            StorageError: If a process, perhaps this one, has the folder; the sentence names it.
        """
        path = folder / _FILE
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if may_write else 0), 0o644)
        except OSError:
            if may_write:
                raise
            return  # nobody has ever held it, or who can't write here has no rival who can
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            where = (
                "is already open in this process" if holder == str(os.getpid()) else f"is in use by process {holder}"
            )
            raise StorageError(
                f"The store {folder} {where}; wait until it is closed, or name another folder."
            ) from error
        if may_write:
            try:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, str(os.getpid()).encode(), 0)
            except OSError:  # a full disk
                self.release()
                raise

    @classmethod
    @contextmanager
    def held(cls, folder: Path, *, may_write: bool = True) -> Iterator[None]:
        """Holds a folder for a `with` block.

        Raises:
            StorageError: If it can't be held.
        """
        try:
            lock = cls(folder, may_write=may_write)
        except OSError as error:
            raise StorageError(
                f"The store {folder} can't be locked: {error.strerror}; free space, or make the folder writable."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def release(self) -> None:
        """Lets go of the folder; may be called again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
