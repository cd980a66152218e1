"""Data sets fetched from their homes: checked, resumed where the connection was cut, and unpacked in one step.

The archives of `ARCHIVES` were not fetched from these addresses when this was written: their lengths and checksums are
those that their sources and other libraries state.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import pooch
import requests
from tqdm.auto import tqdm

from mirolib.base.errors import InputError
from mirolib.data.files import find_folder
from mirolib.data.unpack import cannot_write, temporary_prefix, unpack

if sys.platform != "win32":
    import fcntl

__all__ = ["ARCHIVES", "Archive", "fetch", "unpack"]

TIMEOUT_S = (10.0, 60.0)
"""Longest wait for a connection and for the next bytes."""

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Archive:
    """Where a data set is fetched from, and how large it may be.

    Attributes:
        url: Its address.
        file_name: Name of the archive in the folder of the data sets; kept, and may be deleted once it is unpacked.
        known_hash: `md5:` or `sha256:` and the checksum; None where none is known.
        size_bytes: Most bytes the archive may have.
        unpacked_bytes: Most bytes it may have unpacked.
        folder: Name of the folder it unpacks to.
        other_folders: Names under which its folder may be there as well.
        holding: Pattern of a name that occurs in the folder if it is there.
        instructions: For a set that a person must fetch: how; `{folder}` stands for its folder.
    """

    url: str
    file_name: str
    known_hash: str | None
    size_bytes: int
    unpacked_bytes: int
    folder: str
    other_folders: tuple[str, ...] = ()
    holding: str = "*"
    instructions: str = ""

    def found(self, root: Path) -> Path | None:
        """The data set's folder if it is there: the root itself or a folder below it."""
        with suppress(InputError):
            return find_folder(root, (self.folder, *self.other_folders), "", self.holding)
        return None


ARCHIVES: dict[str, Archive] = {
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        file_name="cifar-100-python.tar.gz",
        known_hash="md5:eb9058c3a382ffc7106e4002c42a8d85",
        size_bytes=200_000_000,
        unpacked_bytes=400_000_000,
        folder="cifar-100-python",
    ),
    "tiny-imagenet": Archive(
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        file_name="tiny-imagenet-200.zip",
        known_hash="md5:90528d7ca1a48142e341f4ef8d21d0de",
        size_bytes=300_000_000,
        unpacked_bytes=1_000_000_000,
        folder="tiny-imagenet-200",
        other_folders=("tiny-imagenet",),
    ),
    "dsads": Archive(
        url="https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip",
        file_name="daily-and-sports-activities.zip",
        known_hash=None,
        size_bytes=400_000_000,
        unpacked_bytes=2_000_000_000,
        folder="dsads",
        other_folders=("data", "dsads/data", "daily+and+sports+activities/data", "daily+and+sports+activities"),
        holding="a[0-9][0-9]",
    ),
    "urbansound8k": Archive(
        url="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
        file_name="UrbanSound8K.tar.gz",
        known_hash="md5:9aa69802bbf37fb986f71ec1483a196e",
        size_bytes=7_000_000_000,
        unpacked_bytes=12_000_000_000,
        folder="UrbanSound8K",
    ),
    "imagenet1k": Archive(
        url="https://image-net.org/challenges/LSVRC/2012/",
        file_name="",
        known_hash=None,
        size_bytes=0,
        unpacked_bytes=0,
        folder="imagenet",
        other_folders=("ILSVRC2012", "ilsvrc", "imagenet1k"),
        instructions="ImageNet can't be fetched for you, since its terms must be accepted: sign in at "
        "https://image-net.org, get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and unpack them to "
        "{folder}/train/<wnid>/*.JPEG and {folder}/val/<wnid>/*.JPEG.",
    ),
}
"""Archives by name of the data set."""


def fetch(archive: Archive, root: Path, progress: bool = True) -> Path:
    """Downloads a data set and unpacks it; what is there already is neither downloaded nor unpacked again.

    What came before a connection was cut stays in a file `.part`, and the next call asks for the rest. A process that
    finds another one at it waits, and then takes what that one fetched.

    Args:
        archive: What to fetch.
        root: The folder of the data sets; made if it is missing.
        progress: Whether to show a bar of the bytes that came.

    Returns:
        The data set's folder.

    Raises:
        InputError: If a person must fetch it, the host can't be reached or refuses, the connection is cut, the file has
            the wrong checksum or is too large, the disk is full or can't be written, or the archive is not as it
            should be. No data set is left behind half-written.
    """
    folder = root / archive.folder
    try:
        if (found := archive.found(root)) is not None:
            return found
        if archive.instructions:
            raise InputError(archive.instructions.format(folder=folder))
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{archive.file_name}.lock"):
            if (found := archive.found(root)) is not None:
                return found
            for stale in root.glob(f"{temporary_prefix(folder)}*"):
                shutil.rmtree(stale, ignore_errors=True)
            file = _download(archive, root, progress)
            return unpack(file, folder, archive.unpacked_bytes)
    except OSError as error:
        raise cannot_write(root, error) from error


def _download(archive: Archive, root: Path, progress: bool) -> Path:
    """The archive with the right checksum, downloaded unless it is there."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        file = Path(
            pooch.retrieve(
                archive.url, archive.known_hash, archive.file_name, root, downloader=_Download(archive, root, progress)
            )
        )
        if archive.known_hash is None:
            warnings.warn(
                f"No checksum of {archive.file_name} is known to compare with; the file from {archive.url} has "
                f"sha256 {pooch.file_hash(str(file))}.",
                stacklevel=3,
            )
    except InputError:
        raise
    except ValueError as error:  # pooch has removed the file
        raise InputError(
            f"{archive.file_name} as fetched from {archive.url} has another checksum than {archive.known_hash} and was "
            "removed; fetch it again, and if that does not help, look for the set's new address or version."
        ) from error
    finally:
        logger.setLevel(level)
    return file


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes waiting that lock the same file, which is gone afterwards."""
    if sys.platform == "win32":
        yield
        return
    while True:
        stream = path.open("wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                break
        stream.close()  # who had the lock has removed the file meanwhile
    with stream:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class _Download:
    """What pooch calls to download a file: keeps what came, and asks only for the rest.

    Beside `<name>.part` lies `<name>.part.tag` with the address and what tells one version of the file from another
    there (its ETag, or when it was last changed).
    """

    def __init__(self, archive: Archive, root: Path, progress: bool) -> None:
        """A download of an archive to a folder."""
        self._archive, self._progress = archive, progress
        self._part = root / f"{archive.file_name}.part"
        self._tag = root / f"{archive.file_name}.part.tag"
        self._folder = root / archive.folder
        self._host = urlsplit(archive.url).hostname or archive.url

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Downloads to a file that pooch has made."""
        try:
            with self._part.open("ab") as stream:
                self._transfer(stream)
            os.replace(self._part, output_file)
        finally:
            if not (self._part.exists() and self._part.stat().st_size):
                self._part.unlink(missing_ok=True)
                self._tag.unlink(missing_ok=True)

    def _transfer(self, stream: IO[bytes]) -> None:
        """Completes the part that is there, or starts over where it does not fit the file."""
        there = stream.seek(0, os.SEEK_END)
        tag = self._tag.read_text("utf-8", "replace") if self._tag.exists() else ""
        url, _, version = tag.partition("\n")
        if url != self._archive.url or not (version or self._archive.known_hash):
            there = 0
        for start in (there, 0) if there else (0,):
            headers = {"Accept-Encoding": "identity"}
            if start:
                headers["Range"] = f"bytes={start}-"
                headers |= {"If-Range": version} if version else {}
            with requests.Session() as session, self._answer(session, headers) as response:
                ranges = response.headers.get("Content-Range", "")
                if response.status_code == 200:
                    stream.truncate(0)
                    self._tag.write_text(f"{self._archive.url}\n{_version(response)}", "utf-8")
                    return self._receive(response, stream, 0)
                if start and response.status_code == 206 and re.match(rf"bytes {start}-\d+/", ranges):
                    if _version(response) in ("", version):
                        return self._receive(response, stream, start)
                elif start and ranges == f"bytes */{start}" and self._archive.known_hash:
                    return None  # all there, and its checksum is still to be compared
        raise self._no(f"did not give the file (status {response.status_code})")

    def _answer(self, session: requests.Session, headers: dict[str, str]) -> requests.Response:
        """The host's answer, with one of the statuses 200, 206 and 416."""
        try:
            response = session.get(self._archive.url, headers=headers, stream=True, timeout=TIMEOUT_S)
        except requests.exceptions.SSLError as error:
            raise self._no("has no certificate that is trusted here") from error
        except requests.exceptions.ReadTimeout as error:
            raise self._no("does not answer") from error
        except requests.exceptions.ConnectionError as error:
            raise self._by_hand(f"There is no connection to {self._host}") from error
        except requests.exceptions.RequestException as error:
            raise self._no(f"can't be asked ({error})") from error
        # some hosts call a .tar.gz a tar with an encoding, and requests would undo that
        response.raw.headers.pop("Content-Encoding", None)
        if response.status_code in (200, 206, 416):
            return response
        response.close()
        if response.status_code in (404, 410):
            raise self._no(f"no longer has the file at that address (status {response.status_code})")
        if response.status_code in (401, 403):
            raise self._no(f"refuses to give the file (status {response.status_code})")
        raise self._no(f"did not give the file (status {response.status_code}); try later")

    def _receive(self, response: requests.Response, stream: IO[bytes], start: int) -> None:
        """Appends what the host sends."""
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=self._archive.file_name,
            disable=not self._progress,
        )  # fmt: skip
        count = start
        with bar:
            if max(total or 0, count) > self._archive.size_bytes:
                raise self._too_large(stream, total)
            try:
                for block in response.iter_content(_BLOCK):
                    if count + len(block) > self._archive.size_bytes:
                        raise self._too_large(stream, total)
                    stream.write(block)
                    count += len(block)
                    bar.update(len(block))
                stream.flush()
            except requests.exceptions.RequestException as error:
                raise self._cut(count, total) from error
        if total is not None and count < total:  # which urllib3 1 does not say
            raise self._cut(count, total)

    def _too_large(self, stream: IO[bytes], total: int | None) -> InputError:
        """A sentence on a file larger than it may be, of which nothing is kept."""
        stream.truncate(0)
        size = "more" if total is None else f"{total:,}"
        return self._no(f"sends {size} bytes where {self._archive.size_bytes:,} are the most this file may have")

    def _cut(self, count: int, total: int | None) -> InputError:
        """A sentence on a connection that ended early."""
        of = "" if total is None else f" of {total:,}"
        return InputError(
            f"The connection to {self._host} was cut: {count:,}{of} bytes of {self._archive.file_name} are there; call "
            "again to fetch the rest."
        )

    def _no(self, what: str) -> InputError:
        """A sentence on what the host does, and on the way around it."""
        return self._by_hand(f"{self._host} {what}")

    def _by_hand(self, why: str) -> InputError:
        return InputError(f"{why}: fetch {self._archive.url} by hand and unpack it to {self._folder}.")


def _version(response: requests.Response) -> str:
    """What tells this version of the file from others: a strong ETag, or when it was changed."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
