import contextlib
import errno
import hashlib
import http.server
import io
import os
import random
import re
import shutil
import socket
import stat
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from mirolib import InputError, load_dataset
from mirolib.data import ARCHIVES, LOADERS, unpack as unpack_module
from mirolib.data.fetch import Archive, fetch
from mirolib.data.unpack import unpack

CONTENT = {"set/train.bin": random.Random(0).randbytes(400_000), "set/deep/er/a.txt": b"a", "set/empty": b""}


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives `server.files` as `server.faults` says, and keeps what it was asked and how much it gave."""

    def do_GET(self):
        faults = self.server.faults
        body = self.server.files.get(self.path)
        status = faults.get("status", 200 if body is not None else 404)
        wanted = self.headers.get("Range")
        self.server.asked.append(SimpleNamespace(range=wanted, if_range=self.headers.get("If-Range"), sent=0))
        if status != 200:
            self.send_error(status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) if wanted and not faults.get("no_range") else 0
        same = self.headers.get("If-Range") in (None, faults.get("etag", '"1"'))
        if start and not same and not faults.get("ignore_if_range"):
            start = 0
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            shown = start + faults.get("shifted", 0)
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        if etag := faults.get("etag", '"1"'):
            self.send_header("ETag", etag)
        if "encoding" in faults:
            self.send_header("Content-Encoding", faults["encoding"])
        if not faults.get("no_length"):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start : faults.get("cut", len(body))]
        self.server.asked[-1].sent = len(part)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(part)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.faults, server.asked = {}, {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tar_of(content, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o4777
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_of(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return stream.getvalue()


def served(server, body, name="set.tar.gz", **changes):
    server.files[f"/{name}"] = body
    archive = Archive(
        url=f"http://127.0.0.1:{server.server_address[1]}/{name}",
        file_name=name,
        known_hash=f"sha256:{hashlib.sha256(body).hexdigest()}",
        size_bytes=1_000_000,
        unpacked_bytes=1_000_000,
        folder="set",
    )
    return replace(archive, **changes)


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def check_content(root, name):
    assert {f"set/{path}": (root / "set" / path).read_bytes() for path in ("train.bin", "deep/er/a.txt", "empty")} == (
        CONTENT
    )
    assert sorted(os.listdir(root)) == sorted(["set", name])


KINDS = {
    "set.tar.gz": tar_of(CONTENT),
    "set.tar": tar_of(CONTENT, "w:"),
    "set.tar.bz2": tar_of(CONTENT, "w:bz2"),
    "set.tar.xz": tar_of(CONTENT, "w:xz"),
    "set.zip": zip_of(CONTENT),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_good_file_is_fetched_once(server, tmp_path, name):
    archive = served(server, KINDS[name], name)
    root = tmp_path / "made" / "root"
    assert fetch(archive, root, progress=False) == root / "set"
    check_content(root, name)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((root / "set" / "train.bin").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((root / "set").stat().st_mode) == 0o777 & ~umask
    assert len(server.asked) == 1
    assert fetch(archive, root, progress=False) == root / "set" == fetch(archive, root / "set", progress=False)
    assert len(server.asked) == 1


def test_an_archive_that_is_there_is_only_unpacked(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    (tmp_path / "set.tar.gz").write_bytes(KINDS["set.tar.gz"])
    (tmp_path / "set").mkdir()  # an empty folder is none
    (tmp_path / ".set-unpacking-killed").mkdir()  # left by a process that was killed
    fetch(archive, tmp_path, progress=False)
    assert not server.asked
    check_content(tmp_path, "set.tar.gz")


def test_an_archive_with_another_checksum_is_fetched_again(server, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"something else")
    fetch(served(server, KINDS["set.tar.gz"]), tmp_path, progress=False)
    check_content(tmp_path, "set.tar.gz")


def test_progress_is_shown_if_wanted(server, tmp_path, capsys):
    archive = served(server, KINDS["set.tar.gz"])
    fetch(archive, tmp_path / "silent", progress=False)
    assert capsys.readouterr() == ("", "")
    fetch(archive, tmp_path / "shown")
    assert "set.tar.gz: 100%" in capsys.readouterr().err


def test_the_archives_bytes_are_kept_whatever_encoding_is_announced(server, tmp_path):
    server.faults["encoding"] = "gzip"
    fetch(served(server, KINDS["set.tar.gz"]), tmp_path, progress=False)
    check_content(tmp_path, "set.tar.gz")


def test_without_a_known_checksum_the_one_found_is_said(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    with pytest.warns(UserWarning, match=archive.known_hash.removeprefix("sha256:")):
        fetch(replace(archive, known_hash=None), tmp_path, progress=False)
    check_content(tmp_path, "set.tar.gz")


def test_a_wrong_checksum_is_said_and_the_file_removed(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"], known_hash="md5:" + 32 * "0")
    with pytest.raises(InputError, match=r"set.tar.gz as fetched from http.*md5:000.*was removed; fetch it again"):
        fetch(archive, tmp_path, progress=False)
    assert listing(tmp_path) == []


def cut(server, tmp_path, archive):
    """A first download that ends after 200,000 bytes; how many of them are there."""
    server.faults["cut"] = 200_000
    with pytest.raises(InputError, match=r"/set.tar.gz was cut: ([\d,]+) of .* call again to fetch the rest") as error:
        fetch(archive, tmp_path, progress=False)
    del server.faults["cut"]
    assert listing(tmp_path) == ["set.tar.gz.part", "set.tar.gz.part.tag"]
    there = (tmp_path / "set.tar.gz.part").stat().st_size
    assert 100_000 < there <= 200_000 and f"{there:,} of {len(KINDS['set.tar.gz']):,} bytes" in str(error.value)
    server.asked.clear()
    return there


def test_a_cut_download_is_resumed(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    there = cut(server, tmp_path, archive)
    fetch(archive, tmp_path, progress=False)
    rest = len(KINDS["set.tar.gz"]) - there
    assert [(asked.range, asked.if_range, asked.sent) for asked in server.asked] == [(f"bytes={there}-", '"1"', rest)]
    check_content(tmp_path, "set.tar.gz")


def test_a_resumed_download_may_be_cut_again(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    there = cut(server, tmp_path, archive)
    server.faults["cut"] = 350_000
    with pytest.raises(InputError, match="was cut: 3"):
        fetch(archive, tmp_path, progress=False)
    assert (tmp_path / "set.tar.gz.part").stat().st_size > there
    del server.faults["cut"]
    fetch(archive, tmp_path, progress=False)
    check_content(tmp_path, "set.tar.gz")


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        ({"no_range": True}, 1),  # the whole file as an answer
        ({"shifted": 1}, 2),  # another part than asked for
        ({"etag": '"2"'}, 1),  # the file changed: the host sends all of it
        ({"etag": '"2"', "ignore_if_range": True}, 2),  # the host sends the rest of another file
    ],
)
def test_a_download_starts_over_where_it_can_not_be_resumed(server, tmp_path, faults, requests):
    cut(server, tmp_path, served(server, KINDS["set.tar.gz"]))
    changed = {**CONTENT, "set/train.bin": CONTENT["set/train.bin"][::-1]}
    server.faults |= faults
    fetch(served(server, tar_of(changed)), tmp_path, progress=False)
    assert len(server.asked) == requests and server.asked[-1].sent == len(tar_of(changed))
    assert (tmp_path / "set" / "train.bin").read_bytes() == changed["set/train.bin"]
    assert sorted(os.listdir(tmp_path)) == ["set", "set.tar.gz"]


def test_a_download_starts_over_for_another_address(server, tmp_path):
    cut(server, tmp_path, served(server, KINDS["set.tar.gz"]))
    moved = served(server, KINDS["set.tar.gz"], "new.tar.gz", file_name="set.tar.gz")
    fetch(moved, tmp_path, progress=False)
    assert [asked.range for asked in server.asked] == [None]
    check_content(tmp_path, "set.tar.gz")


def test_without_etag_only_a_known_checksum_lets_a_download_be_resumed(server, tmp_path):
    server.faults["etag"] = ""
    archive = served(server, KINDS["set.tar.gz"])
    for known, root in ((True, tmp_path / "known"), (False, tmp_path / "unknown")):
        root.mkdir()
        cut(server, root, archive)
        one = archive if known else replace(archive, known_hash=None)
        with contextlib.nullcontext() if known else pytest.warns(UserWarning):
            fetch(one, root, progress=False)
        assert bool(server.asked[0].range) == known
        check_content(root, "set.tar.gz")


def test_a_part_that_is_all_there_already_is_taken(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    cut(server, tmp_path, archive)
    (tmp_path / "set.tar.gz.part").write_bytes(KINDS["set.tar.gz"])
    fetch(archive, tmp_path, progress=False)
    assert [asked.sent for asked in server.asked] == [0]
    check_content(tmp_path, "set.tar.gz")


@pytest.mark.parametrize("faults", [{}, {"no_length": True}, {"cut": 1000}])
def test_a_file_larger_than_it_may_be_is_refused(server, tmp_path, faults):
    server.faults |= faults
    with pytest.raises(
        InputError, match=r"http.*300,000 bytes are the most this file may have.*by hand and unpack it to"
    ):
        fetch(served(server, KINDS["set.tar.gz"], size_bytes=300_000), tmp_path, progress=False)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503 Service Unavailable"), (206, "206 Partial Content")],
)
def test_other_answers_are_said(server, tmp_path, status, sentence):
    server.faults["status"] = status
    archive = served(server, KINDS["set.tar.gz"])
    with pytest.raises(InputError, match=rf"http://.*answer is {sentence}.*try later, or get it by hand .*/set"):
        fetch(archive, tmp_path, progress=False)
    assert listing(tmp_path) == []


def test_a_refusal_leaves_what_had_come(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    cut(server, tmp_path, archive)
    server.faults["status"] = 503
    with pytest.raises(InputError, match="try later"):
        fetch(archive, tmp_path, progress=False)
    assert listing(tmp_path) == ["set.tar.gz.part", "set.tar.gz.part.tag"]


def test_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/set.zip"
        archive = Archive(url, "set.zip", None, 1000, 1000, "set")
        with pytest.raises(InputError) as error:
            fetch(archive, tmp_path, progress=False)
    why = f"{url} can't be fetched (there is no connection to the host)"
    assert str(error.value) == f"{why}: try later, or get it by hand and unpack it to {tmp_path / 'set'}."
    assert listing(tmp_path) == []


def test_silence_and_bad_addresses(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(import_module("mirolib.data.fetch"), "TIMEOUT_S", (1.0, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/set.zip"
        with pytest.raises(InputError, match="does not answer"):
            fetch(Archive(url, "set.zip", None, 1000, 1000, "set"), tmp_path, progress=False)
    with pytest.raises(InputError, match="nowhere can't be fetched .Invalid URL"):
        fetch(Archive("nowhere", "set.zip", None, 1000, 1000, "set"), tmp_path, progress=False)
    assert listing(tmp_path) == []


class FullDisk:
    """A file on a disk with no more room."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.stream.write(data)

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.stream.close()


def test_a_full_disk(server, tmp_path, monkeypatch):
    archive = served(server, KINDS["set.tar.gz"])
    real = Path.open

    def opened(path, mode="r", *args, **kwargs):
        stream = real(Path(path), mode, *args, **kwargs)
        return FullDisk(stream, 300_000) if re.search(r"(\.part|train\.bin)$", str(path)) and mode != "rb" else stream

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(InputError, match="The disk is full .*free some space"):
        fetch(archive, tmp_path, progress=False)
    assert listing(tmp_path) == ["set.tar.gz.part", "set.tar.gz.part.tag"]
    monkeypatch.setattr(Path, "open", real)
    monkeypatch.setattr(tarfile, "bltn_open", opened)
    with pytest.raises(InputError, match="The disk is full .*free some space"):
        fetch(archive, tmp_path, progress=False)
    assert server.asked[-1].range  # made room: only the rest was asked for
    assert listing(tmp_path) == ["set.tar.gz"]
    monkeypatch.undo()
    fetch(archive, tmp_path, progress=False)
    assert len(server.asked) == 2
    check_content(tmp_path, "set.tar.gz")


def test_a_root_that_can_not_be_written(server, tmp_path, monkeypatch):
    archive = served(server, KINDS["set.tar.gz"])
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="can't be written .*give a root that can"):
            fetch(archive, root, progress=False)

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match="Permission denied"):
        fetch(archive, tmp_path / "other", progress=False)
    assert listing(tmp_path) == ["file"] and not server.asked


def test_those_who_fetch_a_set_at_once_download_it_once(server, tmp_path):
    archive = served(server, KINDS["set.tar.gz"])
    with ThreadPoolExecutor(3) as pool:  # locks tell threads apart as they do processes
        assert list(pool.map(lambda _: fetch(archive, tmp_path, progress=False), range(3))) == 3 * [tmp_path / "set"]
    assert len(server.asked) == 1
    check_content(tmp_path, "set.tar.gz")


def test_a_lock_on_a_file_that_is_gone_is_none(server, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    real, locked = fcntl.flock, []

    def late(stream, how):
        real(stream, how)
        locked.append(Path(stream.name))
        if len(locked) == 1:
            locked[0].unlink()  # by the process that had the lock before

    monkeypatch.setattr(fcntl, "flock", late)
    fetch(served(server, KINDS["set.tar.gz"]), tmp_path, progress=False)
    assert len(locked) == 2
    check_content(tmp_path, "set.tar.gz")


def tar_with(*members):
    """A tar of `(name, type, link or data)`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(value, bytes):
                info.size = len(value)
            else:
                info.linkname = value
            archive.addfile(info, io.BytesIO(value) if isinstance(value, bytes) else None)
    return stream.getvalue()


def zip_link(name, target):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return stream.getvalue()


def zip_encrypted():
    body = bytearray(zip_of({"set/a": b"abc"}))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(body)


FILE, LINK, HARD, DEVICE, PIPE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE
OUTSIDE, TAKEN = "leads out of the folder", "takes the place of another one"
HOSTILE = {
    "absolute path": (tar_with(("/tmp/evil", FILE, b"x")), f"'/tmp/evil' {OUTSIDE}"),
    "path up": (tar_with(("set/../../evil", FILE, b"x")), f"'set/../../evil' {OUTSIDE}"),
    "folder up": (tar_with(("../evil", tarfile.DIRTYPE, b"")), f"'../evil' {OUTSIDE}"),
    "path of Windows": (tar_with(("set\\..\\..\\evil", FILE, b"x")), OUTSIDE),
    "drive of Windows": (tar_with(("C:evil", FILE, b"x")), OUTSIDE),
    "no name": (tar_with(("./", FILE, b"x")), TAKEN),
    "through a link": (
        tar_with(("set/out", LINK, "../.."), ("set/out/evil", FILE, b"x")),
        "'set/out' is neither file nor folder",
    ),
    "link to itself": (tar_with(("set/a", LINK, "a")), "is neither file nor folder"),
    "hard link": (tar_with(("set/a", HARD, "/etc/passwd")), "'set/a' is neither file nor folder"),
    "device": (tar_with(("set/null", DEVICE, "")), "'set/null' is neither file nor folder"),
    "pipe": (tar_with(("set/pipe", PIPE, "")), "'set/pipe' is neither file nor folder"),
    "twice": (tar_with(("set/a", FILE, b"x"), ("set/a", FILE, b"y")), f"'set/a' {TAKEN}"),
    "file as a folder": (
        tar_with(("set/a", FILE, b"x"), ("set/a/b", FILE, b"y")),
        f"'set/a/b' {TAKEN}",
    ),
    "folder as a file": (
        tar_with(("set/a", FILE, b"x"), ("set/a", tarfile.DIRTYPE, b"")),
        f"'set/a' {TAKEN}",
    ),
    "deep": (tar_with(("a/" * 2000 + "a", FILE, b"x")), "makes it larger than it may be .*32 folders in each other"),
    "larger than it may be": (tar_of({"set/a": bytes(1_000_001)}), "'set/a' makes it larger than it.*1,000,000 bytes"),
    "large in sum": (tar_of({f"set/{n}": bytes(400_000) for n in range(3)}), "'set/2' makes it larger"),
    "zip: absolute path": (zip_of({"/tmp/evil": b"x"}), f"'/tmp/evil' {OUTSIDE}"),
    "zip: path up": (zip_of({"set/../../evil": b"x"}), OUTSIDE),
    "zip: link": (zip_link("set/out", "/etc"), "'set/out' is neither file nor folder"),
    "zip: encrypted": (zip_encrypted(), "is damaged .*'set/a'.* is encrypted"),
    "zip: large": (zip_of({"set/a": bytes(1_000_001)}), "'set/a' makes it larger than it.*1,000,000 bytes"),
    "empty": (tar_of({}), "holds no file"),
    "empty zip": (zip_of({}), "holds no file"),
    "no archive": (b"<html>Please sign in</html>" * 100, "is damaged"),
    "nothing": (b"\n", "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(server, tmp_path, name):
    body, sentence = HOSTILE[name]
    with pytest.raises(InputError, match=sentence):
        fetch(served(server, body), tmp_path / "root", progress=False)
    assert listing(tmp_path) == ["root", "root/set.tar.gz"]


@pytest.mark.parametrize("body", [zip_of({"set/a": bytes(40_000_000)}), tar_of({"set/a": bytes(40_000_000)})])
def test_bombs_by_ratio_are_refused(tmp_path, body):
    (tmp_path / "bomb").write_bytes(body)
    with pytest.raises(InputError, match="'set/a' makes it larger than it may be .16,777,216 bytes"):
        unpack(tmp_path / "bomb", tmp_path / "set", 10**12)
    assert listing(tmp_path) == ["bomb"]


def test_no_more_is_written_than_a_header_claims(tmp_path, monkeypatch):
    real = zipfile.ZipFile.infolist

    def lying(archive):
        infos = real(archive)
        for info in infos:
            info.file_size = 1
        return infos

    written = []
    real_copy = shutil.copyfileobj
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lying)
    monkeypatch.setattr(
        shutil, "copyfileobj", lambda source, target: (real_copy(source, target), written.append(target.tell()))
    )
    (tmp_path / "bomb").write_bytes(zip_of({"set/a": bytes(3_000_000)}))
    with pytest.raises(InputError, match="is damaged .*CRC"):
        unpack(tmp_path / "bomb", tmp_path / "set", 2_000_000)
    assert sum(written) <= 1
    assert listing(tmp_path) == ["bomb"]


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_too_many_members_are_refused(tmp_path, monkeypatch, make):
    monkeypatch.setattr(unpack_module, "MAX_MEMBERS", 9)
    for count in (9, 10):
        (tmp_path / "many").write_bytes(make({f"set/{number}": b"" for number in range(count)}))
        with contextlib.nullcontext() if count == 9 else pytest.raises(InputError, match="larger than it .* 9 members"):
            unpack(tmp_path / "many", tmp_path / str(count), 1000)
    assert sorted(os.listdir(tmp_path)) == ["9", "many"]


def test_headers_without_end_are_refused(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", pax_headers={"comment": "x" * 8_000_000}) as archive:
        archive.addfile(tarfile.TarInfo("set/a"))
    (tmp_path / "bomb").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="bytes of headers"):
        unpack(tmp_path / "bomb", tmp_path / "set", 10**12)
    assert listing(tmp_path) == ["bomb"]


@pytest.mark.parametrize("name", KINDS)
def test_damaged_archives_are_refused_whole(tmp_path, name):
    file, draw = tmp_path / name, random.Random(1)
    for trial in range(36):
        body = bytearray(KINDS[name])
        if trial % 3 == 0:
            body = body[: draw.randrange(len(body) - 600)]
        elif trial % 3 == 1:
            for _ in range(4):
                body[draw.randrange(len(body))] ^= draw.randrange(1, 256)
        else:  # headers at either end
            place = draw.choice([0, max(0, len(body) - 400)]) + draw.randrange(400)
            body[place] ^= draw.randrange(1, 256)
        file.write_bytes(body)
        folder = tmp_path / f"out-{trial}"
        try:
            unpack(file, folder, 1_000_000)
        except InputError as error:
            assert str(file) in str(error) and "can't be written" not in str(error)
            assert listing(tmp_path) == [name], trial
        else:
            assert trial % 3 or name == "set.tar", f"cut to {len(body)} bytes, it passed"
            shutil.rmtree(folder)


def test_a_tar_that_ends_too_early_is_damaged(tmp_path):
    """tarfile itself takes a broken header for the end of the archive."""
    body = bytearray(tar_of({"set/a": bytes(1000), "set/b": b"b"}, "w:"))
    (tmp_path / "good").write_bytes(body)
    unpack(tmp_path / "good", tmp_path / "out", 10_000)
    assert listing(tmp_path / "out") == ["a", "b"]
    for broken in (body[:1536], body[:1700], body[:1536] + b"?" + body[1537:]):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(InputError, match="is damaged"):
            unpack(tmp_path / "broken", tmp_path / "set", 10_000)
        assert not (tmp_path / "set").exists()


def test_content_of_any_length_is_no_header(tmp_path):
    content = {"set/a": bytes(9_000_000), "set/b": bytes(7_000_000)}
    (tmp_path / "file").write_bytes(tar_of(content))
    unpack(tmp_path / "file", tmp_path / "set", 16_000_000)
    assert [(tmp_path / name).stat().st_size for name in content] == [9_000_000, 7_000_000]


def test_where_the_content_goes(tmp_path):
    cases = {
        "one top folder": ({"any/a": b"1"}, ["a"]),
        "hidden beside it": ({"any/a": b"1", "__MACOSX/x": b"2", ".DS_Store": b"3"}, ["a"]),
        "two folders": ({"a/x": b"1", "b/x": b"2"}, ["a", "a/x", "b", "b/x"]),
        "a file": ({"./a": b"1"}, ["a"]),
    }
    for name, (content, wanted) in cases.items():
        (tmp_path / "file").write_bytes(tar_of(content))
        assert listing(unpack(tmp_path / "file", tmp_path / name, 1000)) == wanted
    with pytest.raises(InputError, match="is not empty; remove it"):
        unpack(tmp_path / "file", tmp_path / "a file", 1000)


def test_every_set_but_the_bundled_one_has_its_archive():
    assert set(ARCHIVES) == set(LOADERS) - {"digits"}
    for archive in ARCHIVES.values():
        assert archive.instructions or archive.known_hash is None or re.match("md5:[0-9a-f]{32}$", archive.known_hash)
        assert archive.size_bytes <= archive.unpacked_bytes


def test_load_dataset_fetches_what_is_missing_if_told_to(server, tmp_path, monkeypatch):
    archive = served(server, tar_of({"cifar-100-python/x": b"1"}), folder="cifar-100-python")
    monkeypatch.setitem(ARCHIVES, "cifar100", archive)
    with pytest.raises(InputError, match="no folder cifar-100-python"):
        load_dataset("cifar100", root=tmp_path)
    assert not server.asked
    for _ in range(2):
        with pytest.raises(InputError, match="meta"):  # fetched, unpacked, and not what the loader reads
            load_dataset("cifar100", root=tmp_path, download=True)
        assert len(server.asked) == 1 and (tmp_path / "cifar-100-python" / "x").exists()
    assert len(load_dataset("digits", root=tmp_path, download=True).train) == 1400


def test_a_set_with_terms_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"https://image-net.org.*imagenet/train/<wnid>/\*.JPEG and .*/val/"):
        load_dataset("imagenet1k", root=tmp_path, download=True)
    assert listing(tmp_path) == []
    (tmp_path / "dsads").mkdir()
    assert ARCHIVES["dsads"].found(tmp_path) is None
    (tmp_path / "dsads" / "a01").mkdir()
    assert ARCHIVES["dsads"].found(tmp_path) == tmp_path / "dsads"
