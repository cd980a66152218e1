"""Archives unpacked with nothing taken on trust: not names, links, sizes or modes.

Members are read by the standard library and written here, as plain files and folders with the modes of the day:
`tarfile.extract` and its filters play no part, so that every Python does the same.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from mirolib.base.errors import InputError

MAX_MEMBERS = 3_000_000
"""Most files and folders in an archive."""
MAX_RATIO = 200
"""Most bytes unpacked for each byte of the archive."""
RATIO_FROM_BYTES = 16 << 20
"""Unpacked bytes up to which the ratio is not looked at."""
MAX_DEPTH = 32
"""Most folders within each other."""
HEADER_BYTES = 4 << 20
"""Most bytes of headers or padding in a row in a tar."""

_BLOCK = 1 << 20
_TAR_BLOCK = 1 << 16
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError, KeyError,
    IndexError, OverflowError, RuntimeError,
)  # fmt: skip


def unpack(file: Path, folder: Path, limit_bytes: int) -> Path:
    """Unpacks a zip or a tar (plain, gz, bz2 or xz): first beside the folder, then renamed into its place.

    Where all lies in one top folder, its content becomes that of `folder`; hidden files beside it are left out.

    Args:
        file: The archive.
        folder: Where its content goes; must not be there yet, or be empty.
        limit_bytes: Most bytes the content may have in all.

    Returns:
        The folder.

    Raises:
        InputError: If the archive is damaged, or holds links, devices, names outside of it, or more than it may; if
            the folder holds something or can't be written. Nothing is left behind.
    """
    temporary = None
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; remove it to unpack {file} there.")
        size_bytes = file.stat().st_size
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(folder), dir=folder.parent))
        target = _Target(file, size_bytes, temporary / "content", limit_bytes)
        _unpack_members(file, target)
        if not target.files:
            raise InputError(f"The archive {file} holds no file; delete it and fetch it again.")
        if folder.exists():
            folder.rmdir()
        _content(target.folder).rename(folder)
    except InputError:
        raise
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise on damaged bytes
            raise _damaged(file, error) from error
        raise cannot_write(folder, error) from error
    except _DAMAGE as error:
        raise _damaged(file, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def temporary_prefix(folder: Path) -> str:
    """How the names begin of the folders in which the content of `folder` is unpacked."""
    return f".{folder.name}-unpacking-"


def cannot_write(folder: Path, error: OSError) -> InputError:
    """A sentence on a disk that is full or a folder that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"The disk is full where {folder} should go; free some space or give another root.")
    return InputError(f"{folder} can't be written ({error.strerror or error}); give a root that can.")


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(f"The archive {file} is damaged ({error}); delete it and fetch it again.")


class _Target:
    """Where members go, with a count of what went there."""

    def __init__(self, file: Path, size_bytes: int, folder: Path, limit_bytes: int) -> None:
        """Members of the archive `file`, of that size, are written to a folder that is made here."""
        self.file, self.folder = file, folder
        self.members = self.files = self.bytes = 0
        self._limit_bytes = limit_bytes
        self._ratio_bytes = max(RATIO_FROM_BYTES, MAX_RATIO * size_bytes)
        folder.mkdir()

    def refused(self, name: str, why: str) -> InputError:
        """A sentence on a member that is not unpacked."""
        return InputError(f"The archive {self.file} is not unpacked, since its member {name[:200]!r} {why}.")

    def add_folder(self, name: str) -> None:
        """Makes a folder."""
        path = self._path(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refused(name, "is a file and a folder") from error

    def add_file(self, name: str, size_bytes: int, content: IO[bytes], source: _TarBytes | None = None) -> None:
        """Writes a file, in blocks; a tar's `source` is told how many bytes belong to the content."""
        path = self._path(name)
        if path == self.folder:
            raise self.refused(name, "has no name")
        self._check_room(name, size_bytes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refused(name, "is there twice") from error
        with stream:
            while block := content.read(_BLOCK):
                self._check_room(name, len(block))
                self.bytes += len(block)
                stream.write(block)
                if source is not None:
                    source.allow()
        self.files += 1

    def _path(self, name: str) -> Path:
        """The place of a member, which is inside the folder."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise InputError(f"The archive {self.file} is not unpacked: it has more than {MAX_MEMBERS:,} members.")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or "\\" in name or PureWindowsPath(name).drive or ".." in parts:
            raise self.refused(name, "leads out of the folder")
        if len(parts) > MAX_DEPTH:
            raise self.refused(name, f"lies more than {MAX_DEPTH} folders deep")
        return self.folder.joinpath(*parts)

    def _check_room(self, name: str, size_bytes: int) -> None:
        """Refuses a member with which the content is larger than it may be."""
        if self.bytes + size_bytes > self._limit_bytes:
            raise self.refused(name, f"makes it larger than the {self._limit_bytes:,} bytes this set may have")
        if self.bytes + size_bytes > self._ratio_bytes:
            raise self.refused(name, f"makes it more than {MAX_RATIO} times as large as the archive")


class _TarBytes:
    """The bytes of a tar, decompressed: few at a time may be other than content, and the last ones are kept."""

    def __init__(self, stream: IO[bytes], target: _Target) -> None:
        """Reads from a stream what goes to a target."""
        self._stream, self._target = stream, target
        self._count = 0
        self._recent = b""
        self.allow()

    def allow(self) -> None:
        """Content went by: the count of what is not content starts anew."""
        self._left = HEADER_BYTES + _BLOCK

    def read(self, size: int) -> bytes:
        """The next bytes."""
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise InputError(
                f"The archive {self._target.file} is not unpacked: it has more than {HEADER_BYTES:,} bytes of headers."
            )
        self._count += len(block)
        self._recent = self._recent[-_TAR_BLOCK:] + block
        return block

    def ends_at(self, offset: int) -> bool:
        """Whether there is nothing but padding from an offset on, as at the end of a tar; reads the rest."""
        end = self._recent[max(0, offset - self._count + len(self._recent)) :]
        padding = len(end)
        empty = not any(end)
        while block := self.read(_TAR_BLOCK):
            padding += len(block)
            empty = empty and not any(block)
        return empty and padding >= tarfile.BLOCKSIZE


def _unpack_members(file: Path, target: _Target) -> None:
    """All members of an archive, whose kind its first bytes tell."""
    with file.open("rb") as stream:
        start = stream.read(6)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _unpack_zip(file, target)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), open)
    with opener(file, "rb") as stream:
        _unpack_tar(stream, target)


def _unpack_zip(file: Path, target: _Target) -> None:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise target.refused(info.filename, "is a link")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise target.refused(info.filename, "is neither file nor folder")
            if info.flag_bits & 1:
                raise target.refused(info.filename, "is encrypted")
            if info.is_dir():
                target.add_folder(info.filename)
            else:
                with archive.open(info) as content:
                    target.add_file(info.filename, info.file_size, content)


def _unpack_tar(stream: IO[bytes], target: _Target) -> None:
    source = _TarBytes(stream, target)
    with tarfile.open(fileobj=source, mode="r|", bufsize=_TAR_BLOCK) as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members = []  # which else grows with every member
            if member.issym() or member.islnk():
                raise target.refused(member.name, "is a link")
            if not (member.isdir() or (member.isreg() and not member.issparse())):
                raise target.refused(member.name, "is neither file nor folder")
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                target.add_folder(member.name)
            elif member.size < 0:
                raise tarfile.ReadError("a negative size")
            else:
                with content:
                    target.add_file(member.name, member.size, content, source)
        # tarfile takes a broken header for the end, and would not see that the rest is missing
        if not source.ends_at(archive.offset):
            raise tarfile.ReadError("it ends too early")


def _content(folder: Path) -> Path:
    """The one top folder in a folder, or the folder itself."""
    seen = [entry for entry in os.scandir(folder) if not entry.name.startswith((".", "__MACOSX"))]
    return Path(seen[0].path) if len(seen) == 1 and seen[0].is_dir() else folder
