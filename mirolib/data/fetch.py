"""Data sets fetched from their homes: checked, resumed where the connection was cut, and unpacked in one step.

Of archives nothing is taken on trust: not names, links, sizes or modes.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

import pooch
import requests
from pooch.hashes import hash_matches
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.base.files import locked

TIMEOUT_S = (10.0, 60.0)  # for a connection, and for the next bytes
MAX_MEMBERS = 200_000  # tarfile keeps a kilobyte or two of each; Tiny-ImageNet, the set of most files, has 120,000
MAX_RATIO = 200
RATIO_FROM_BYTES = 16 << 20  # small files may well pack better than 200 to 1
MAX_DEPTH = 32
MAX_HEADER_BYTES = 4 << 20
UNPACKING = ".{}-unpacking-"  # how the names begin of folders that are not complete yet
_PARTS = re.compile(r"(\..*|train|val|test|audio|cache|n[0-9]{8})$")
_MOST_FOLDERS, _MOST_SETS = 1000, 100  # that are looked at, and looked into: where there are more, they are classes
_SENTENCES = {  # in place of requests' own, which quote objects; a certificate first, since its error is of both kinds
    requests.exceptions.SSLError: "the host's certificate is not trusted here",
    requests.ReadTimeout: "the host does not answer",
    requests.ConnectionError: "there is no connection to the host",
}


@dataclass(frozen=True)
class Archive:
    """Where a data set is fetched from, and how large it may be."""

    url: str  # its address
    file_name: str  # name of the archive in the folder of the data sets; kept, and may be deleted once it is unpacked
    known_hash: str | None  # `md5:` or `sha256:` and the checksum; None where none is known
    size_bytes: int  # most bytes the archive may have
    unpacked_bytes: int  # most bytes it may have unpacked
    folder: str  # name of the folder it unpacks to
    holds: Callable[[Path], bool] = lambda folder: False  # whether a folder has the content of this set's
    inside: tuple[str, ...] = ("",)  # where the content lies below a folder that is found
    layout: str = ""  # files that are there once it is unpacked
    instructions: str = ""  # for a set that a person must fetch: how

    @property
    def advice(self) -> str:
        """How to get it, for the sentence on what is missing."""
        return self.instructions or f"Get {self.url} and unpack it to {self.layout}."

    def find(self, root: Path) -> Path:
        """The data set's folder, of any name: the root, or one up to two below it; an `InputError` if there is none."""
        if (found := self.found(root)) is not None:
            return found
        what = f"There is no folder {self.folder} in {root}, nor another one with its content. {self.advice}"
        raise InputError(f"{what} Another folder of data sets is named with root=, the parameter data, or MIRO_DATA.")

    def found(self, root: Path) -> Path | None:
        """The data set's folder if it is there, the one of its name first."""
        named = root if root.name == self.folder else root / self.folder
        folders = itertools.islice(itertools.chain((named,), _folders(root)), _MOST_FOLDERS)
        for place in (folder / name for folder in folders for name in self.inside):
            if self.holds(place):
                return place
        # the loader says what is missing in it
        others = any(archive.holds(named) for archive in ARCHIVES.values())
        return named if any(named.glob("*")) and not others else None


def _folders(root: Path) -> Iterator[Path]:
    """A folder, its folders and theirs, but for hidden ones and parts of sets."""

    def below(folder: Path) -> list[Path]:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            some = itertools.islice(entries, _MOST_FOLDERS)
            return sorted(folder / entry.name for entry in some if not _PARTS.match(entry.name) and entry.is_dir())
        return []

    yield from (root, *(children := below(root)))
    if len(children) < _MOST_SETS:
        yield from itertools.chain.from_iterable(map(below, children))


ARCHIVES: dict[str, Archive] = {
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python.tar.gz",
        "md5:eb9058c3a382ffc7106e4002c42a8d85", size_bytes=200_000_000, unpacked_bytes=400_000_000,
        folder="cifar-100-python", holds=lambda at: all((at / name).is_file() for name in ("meta", "train", "test")),
        layout="cifar-100-python/train, cifar-100-python/test and cifar-100-python/meta",
    ),
    "tiny-imagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "tiny-imagenet-200.zip",
        "md5:90528d7ca1a48142e341f4ef8d21d0de", size_bytes=300_000_000, unpacked_bytes=1_000_000_000,
        folder="tiny-imagenet-200", holds=lambda at: (at / "wnids.txt").is_file() and (at / "train").is_dir(),
        layout="tiny-imagenet-200/wnids.txt, tiny-imagenet-200/train/<wnid>/images/*.JPEG and tiny-imagenet-200/val/",
    ),
    "dsads": Archive(
        "https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip",
        "daily-and-sports-activities.zip", None, size_bytes=400_000_000, unpacked_bytes=2_000_000_000,
        folder="dsads", holds=lambda at: any(any(at.glob(f"a{number:02d}/p[1-8]")) for number in range(1, 20)),
        layout="dsads/a01/p1/s01.txt and so on",
    ),
    "urbansound8k": Archive(
        "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz", "UrbanSound8K.tar.gz",
        "md5:9aa69802bbf37fb986f71ec1483a196e", size_bytes=7_000_000_000, unpacked_bytes=12_000_000_000,
        folder="UrbanSound8K",
        holds=lambda at: any((at / name / "UrbanSound8K.csv").is_file() for name in ("metadata", "")),
        layout="UrbanSound8K/audio/fold1/*.wav to fold10 and UrbanSound8K/metadata/UrbanSound8K.csv",
    ),
    "imagenet1k": Archive(
        "https://image-net.org/challenges/LSVRC/2012/", "", None, size_bytes=0, unpacked_bytes=0,
        folder="imagenet", inside=("", "CLS-LOC", "Data/CLS-LOC"),
        # with wnids.txt, or a folder images in that of a class, it is Tiny-ImageNet
        holds=lambda at: not (at / "wnids.txt").exists()
        and not all((wnid / "images").exists() for wnid in itertools.islice(at.glob(f"train/n{'[0-9]' * 8}"), 1)),
        instructions="ImageNet can't be fetched for you, since its terms must be accepted: sign in at "
        "https://image-net.org, get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and unpack them to "
        "imagenet/train/<wnid>/*.JPEG and imagenet/val/<wnid>/*.JPEG.",
    ),
}  # fmt: skip
"""Archives by name of the data set; not fetched from there when this was written: lengths and checksums are as stated
by their sources and other libraries."""


def fetch(archive: Archive, root: Path, progress: bool = True) -> Path:
    """Downloads a data set and unpacks it; what is there already is neither downloaded nor unpacked again.

    What came before a connection was cut stays in a file `.part`, and the next call asks for the rest. A process that
    finds another one at it waits, and then takes what that one fetched. Returns the data set's folder. There is an
    `InputError` if a person must fetch it, the host can't be reached or refuses, the connection is cut, the file has
    the wrong checksum or is too large, the disk is full or can't be written, or the archive is not as it should be. No
    data set is left behind half-written.
    """
    folder = root / archive.folder
    try:
        if (found := archive.found(root)) is not None:
            return found
        if archive.instructions:
            raise InputError(archive.instructions)
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{archive.file_name}.lock", remove=True):
            for stale in root.glob(f"{UNPACKING.format(folder.name)}*"):  # of a process that was killed at it
                shutil.rmtree(stale, ignore_errors=True)
            return archive.found(root) or unpack(_downloaded(archive, root, progress), folder, archive.unpacked_bytes)
    except requests.RequestException as error:  # which are OSErrors, too
        said = next((why for kind, why in _SENTENCES.items() if isinstance(error, kind)), error)
        why = f"{archive.url} can't be fetched ({said})"
        raise InputError(f"{why}: try later, or get it by hand and unpack it to {folder}.") from error
    except OSError as error:
        raise cannot_write(root, error) from error


def _downloaded(archive: Archive, root: Path, progress: bool) -> Path:
    """The archive with the right checksum, downloaded unless it is there."""
    file, part = root / archive.file_name, root / f"{archive.file_name}.part"
    tag = part.with_name(f"{part.name}.tag")
    if not (file.is_file() and hash_matches(file, archive.known_hash)):
        try:
            with part.open("ab") as stream:
                _transfer(archive, stream, tag, progress)
            if not hash_matches(part, archive.known_hash):
                part.unlink()
                raise InputError(
                    f"{archive.file_name} as fetched from {archive.url} has another checksum than {archive.known_hash} "
                    "and was removed; fetch it again, and if that does not help, look for the set's new address."
                )
            os.replace(part, file)
        finally:
            if not (part.exists() and part.stat().st_size):
                part.unlink(missing_ok=True)
                tag.unlink(missing_ok=True)
    if archive.known_hash is None:
        found = f"sha256 {pooch.file_hash(str(file))}"
        warnings.warn(f"No checksum of {archive.file_name} is known; that of {file} is {found}.", stacklevel=3)
    return file


def _transfer(archive: Archive, stream: IO[bytes], tag: Path, progress: bool) -> None:
    """Completes the part that is there, or starts over where it does not fit the file.

    The tag holds the address, and what tells one version of the file from another there.
    """
    url, _, version = (tag.read_text("utf-8", "replace") if tag.exists() else "").partition("\n")
    # with neither a version nor a checksum, the rest of another file would go unnoticed
    fits = url == archive.url and (version or archive.known_hash)
    for start in dict.fromkeys((stream.seek(0, os.SEEK_END) if fits else 0, 0)):
        headers = {"Accept-Encoding": "identity"} | ({"If-Range": version} if start and version else {})
        headers |= {"Range": f"bytes={start}-"} if start else {}
        with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            # some hosts call a .tar.gz a tar with an encoding, and requests would undo that
            response.raw.headers.pop("Content-Encoding", None)
            # a strong ETag, since two files with the same weak one may differ in bytes
            found = response.headers.get("ETag", "")
            found = found if found.startswith('"') else response.headers.get("Last-Modified", "")
            status, ranges = response.status_code, response.headers.get("Content-Range", "")
            answer = f"{status} {response.reason}"
            if status == 200:
                stream.truncate(0)
                tag.write_text(f"{archive.url}\n{found}", "utf-8")
                return _receive(archive, stream, response, 0, progress)
            if start and status == 206 and ranges.startswith(f"bytes {start}-") and found in ("", version):
                return _receive(archive, stream, response, start, progress)
            if start and ranges == f"bytes */{start}" and archive.known_hash:
                return None  # all there, and its checksum is still to be compared
    raise requests.HTTPError(f"the host's answer is {answer}")


def _receive(archive: Archive, stream: IO[bytes], response: requests.Response, start: int, progress: bool) -> None:
    """Appends what the host sends."""
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    count, name, cut = start, archive.file_name, None
    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=not progress) as bar:
        try:
            for block in response.iter_content(1 << 16):
                count += len(block)
                if max(total or 0, count) > archive.size_bytes:
                    break
                stream.write(block)
                bar.update(len(block))
        except requests.RequestException as error:
            cut = error
    if max(total or 0, count) > archive.size_bytes:
        stream.truncate(0)
        raise requests.HTTPError(f"{archive.size_bytes:,} bytes are the most this file may have")
    if cut or (total is not None and count < total):  # urllib3 1 raises no error there
        of = "" if total is None else f" of {total:,}"
        raise InputError(
            f"The connection to {archive.url} was cut: {count:,}{of} bytes are there; call again to fetch the rest."
        ) from cut


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
