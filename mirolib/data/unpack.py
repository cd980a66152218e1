"""Archives unpacked with nothing taken on trust: not names, links, sizes or modes."""

from __future__ import annotations

import errno
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from mirolib.base.errors import InputError

MAX_MEMBERS = 200_000  # tarfile keeps a kilobyte or two of each; Tiny-ImageNet, the set of most files, has 120,000
MAX_RATIO = 200
RATIO_FROM_BYTES = 16 << 20  # small files may well pack better than 200 to 1
MAX_DEPTH = 32
MAX_HEADER_BYTES = 4 << 20
UNPACKING = ".{}-unpacking-"  # how the names begin of folders that are not complete yet


def unpack(file: Path, folder: Path, limit_bytes: int) -> Path:
    """Unpacks a zip or a tar (plain, gz, bz2 or xz): first beside the folder, then renamed into its place.

    Where all lies in one top folder, its content becomes that of `folder`; hidden files beside it are left out. There
    is an `InputError` if the archive is damaged, or holds links, devices, names outside of it, or more than it may; if
    the folder holds something or can't be written. Nothing is left behind.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; remove it to unpack {file} there.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNPACKING.format(folder.name), dir=folder.parent) as temporary:
            target = Path(temporary, "content")  # since the temporary folder itself is closed to others
            target.mkdir()
            _extract(file, target, min(limit_bytes, max(RATIO_FROM_BYTES, MAX_RATIO * file.stat().st_size)))
            if not any(path.is_file() for path in target.rglob("*")):
                raise InputError(f"The archive {file} holds no file; delete it and fetch it again.")
            if folder.exists():
                folder.rmdir()
            seen = [path for path in target.iterdir() if not path.name.startswith((".", "__MACOSX"))]
            (seen[0] if len(seen) == 1 and seen[0].is_dir() else target).rename(folder)
    except InputError:
        raise
    except Exception as error:  # decompressors meet damage in many ways, some with an OSError that has no number
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_write(folder, error) from error
        raise InputError(f"The archive {file} is damaged ({error}); delete it and fetch it again.") from error
    return folder


def cannot_write(folder: Path, error: OSError) -> InputError:
    """A sentence on a disk that is full or a folder that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"The disk is full where {folder} should go; free some space or give another root.")
    return InputError(f"{folder} can't be written ({error.strerror or error}); give a root that can.")


def _extract(file: Path, target: Path, most_bytes: int) -> None:
    """Extracts each member once it is found fit: neither library gives more of one than its header claims."""
    total, members = 0, (_zip_members if zipfile.is_zipfile(file) else _tar_members)(file, target)
    for number, (name, is_file, is_folder, size_bytes) in enumerate(members, start=1):
        place = PureWindowsPath(name)  # which knows drives and both slashes, so that no system unpacks it elsewhere
        path = target.joinpath(*place.parts)
        total += size_bytes
        if not (is_file or is_folder) or size_bytes < 0:
            why = "is neither file nor folder"  # links among them, since none of the sets has any
        elif place.anchor or ".." in place.parts or "\\" in name:
            why = "leads out of the folder"
        elif total > most_bytes or number > MAX_MEMBERS or len(place.parts) > MAX_DEPTH:
            most = f"{most_bytes:,} bytes, {MAX_MEMBERS:,} members, {MAX_DEPTH} folders in each other"
            why = f"makes it larger than it may be ({most})"
        elif any(part.is_file() for part in (path, *path.parents)) or (path.is_dir() and not is_folder):
            why = "takes the place of another one"
        else:
            continue
        raise InputError(f"The archive {file} is not unpacked, since its member {name[:200]!r} {why}.")


def _zip_members(file: Path, target: Path) -> Iterator[tuple[str, bool, bool, int]]:
    """Name, whether it is a file, or a folder, and bytes of each; it is extracted when the next one is asked for."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            yield member.filename, plain and not member.is_dir(), plain and member.is_dir(), member.file_size
            archive.extract(member, target)


def _tar_members(file: Path, target: Path) -> Iterator[tuple[str, bool, bool, int]]:
    with tarfile.open(file, tarinfo=_Member) as archive:
        for member in archive:
            yield member.name, member.isreg() and not member.issparse(), member.isdir(), member.size
            # filtered by the standard library's rules, and with the modes and times of files made here
            made = tarfile.data_filter(member, target).replace(mode=None, mtime=None)  # type: ignore[arg-type]
            archive.extract(made, target, filter="fully_trusted")
        stream = archive.fileobj
        assert stream is not None, "the archive is open"
        stream.seek(archive.offset)
        rest = stream.read(MAX_HEADER_BYTES)  # to the very end, where gzip and xz compare their checksums
        # tarfile takes a broken header for the end, and would not see that the rest is missing
        if len(rest) < tarfile.BLOCKSIZE or any(rest):
            raise tarfile.ReadError("it ends too early")


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if not member.isreg() and member.size > MAX_HEADER_BYTES:  # which would be read into memory at once
            raise tarfile.ReadError(f"more than {MAX_HEADER_BYTES:,} bytes of headers")
        return member
