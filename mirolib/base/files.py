"""Files written whole or not at all."""

import contextlib
import errno
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from mirolib.base.errors import StorageError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_NOT_WRITTEN = "{} could not be written: {}. Free space or make the folder writable, then run again."
TEMPORARY = ".miro-"
"""How the name of a file begins while it is being written; a process that is killed leaves it under that name."""
PROCESS_LOCK = "process.lock"

_MOST_BYTES = 64 << 20  # a table of a million rows fits
_TRIES = 20  # of a lock that is not to be waited for

_HELD: WeakSet[Any] = WeakSet()  # files whose locks this process holds

logger = logging.getLogger(__name__)


def write_atomic(path: Path, content: str | bytes) -> int:
    """Writes text (as UTF-8) or bytes whole, and says how many; a `StorageError` leaves the old file as it was."""
    try:
        with replacing(path) as file:
            return file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise StorageError(_NOT_WRITTEN.format(path, error.strerror)) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which takes the place of the one at `path` once it is written and synced, or is gone on an error."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)  # else a power cut could leave a file of its full length that holds zeros
        os.chmod(name, 0o644)
        os.replace(name, path)
        if os.name == "posix":  # elsewhere no folder can be opened; this makes the rename last through a power cut
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        _remove_quietly(Path(name))


def append(path: Path, lines: str) -> int:
    """Adds whole lines to the end of a file, synced, and says how many bytes; none where a `StorageError` ends it."""
    content = lines.encode()
    try:
        # unbuffered: one write, so that a process that is killed leaves no half line
        with path.open("ab", buffering=0) as file:
            size_bytes = file.tell()
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size_bytes)
                raise
        return len(content)
    except OSError as error:
        raise StorageError(_NOT_WRITTEN.format(path, error.strerror)) from error


def read_bounded(path: str | os.PathLike[str], most_bytes: int = _MOST_BYTES) -> bytes:
    """The bytes of a plain file; an `OSError` if it can't be read, a `ValueError` if it is none or larger than that."""
    about = os.stat(path)
    # a pipe would be waited for without end, and a file of holes fill the memory of a board
    if not stat.S_ISREG(about.st_mode) or about.st_size > most_bytes:
        raise ValueError(f"{Path(path).name} is no file of at most {most_bytes >> 20} MiB")
    return Path(path).read_bytes()


def clear(folder: Path, files: Iterable[Path]) -> None:
    """Deletes those files of a folder that it can, and the folder if that leaves it empty: the rest is the user's."""
    for file in files:
        _remove_quietly(file)
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def log_storage_errors() -> Iterator[None]:
    """For what is still written of a run that an error has ended: where it can't be, that error is what is told."""
    try:
        yield
    except StorageError as error:
        logger.warning("%s", error)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, remove: bool = False) -> Iterator[None]:
    """Holds the lock of a file, made if need be, which the system takes back when the process ends, however it ends.

    With `wait` it waits until another holder lets go; with `remove` the file is gone afterwards, unless another one
    holds it by then. There is a `BlockingIOError` if another holder has it and `wait` is false, and an `OSError` if it
    can't be made.
    """
    patience = 0 if wait else _TRIES
    with contextlib.ExitStack() as held:
        while fcntl is not None:  # Windows has no such lock; there nothing is kept apart
            stream = held.enter_context(path.open("ab"))
            _HELD.add(stream)
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                    break
                except BlockingIOError:
                    patience -= 1
                    if patience <= 0:
                        raise
                    time.sleep(0.01)  # it may only be looked at, by `is_locked`
            # else who held it before has removed it, and the next one may lock a new one
            if not remove or os.fstat(stream.fileno()).st_nlink:
                break
        if remove:  # a medium that has become read-only keeps the file, which locks nothing any more
            held.callback(_remove_quietly, path)
        yield


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether someone, perhaps this process, holds the lock of a file; False where it can't be looked at."""
    try:
        with path.open("rb") as stream:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _let_go() -> None:
    """In a process that was forked: it has not taken its parent's locks, and would hold them when that is dead."""
    for stream in list(_HELD):
        stream.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def folder_held(folder: Path, *, may_write: bool = True) -> Iterator[None]:
    """Holds a store's folder for this process; makes no file unless it may write: without one no process has it.

    There is an `OSError` if the lock file can't be made or written, and a `StorageError` if a process, perhaps this
    one, has the folder; the sentence names it.
    """
    path = folder / PROCESS_LOCK
    with contextlib.ExitStack() as lock:
        if may_write or path.exists():
            try:
                lock.enter_context(locked(path, wait=False))
            except BlockingIOError as error:
                holder = path.read_text(errors="replace").strip() or "unknown"
                own = holder == str(os.getpid())
                where = "is already open in this process" if own else f"is in use by process {holder:.20}"
                what = f"The store {folder} {where}; wait until it is closed, or name another folder."
                raise StorageError(what) from error
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    what = f"The file system of {folder} has no locks ({error.strerror}); name a folder on another one."
                    raise StorageError(what) from error
                if may_write:  # else who can't write here has no rival who can
                    raise
        if may_write:  # for people only: a dead process leaves its number, which may be another's by now
            path.write_text(str(os.getpid()))
        yield
