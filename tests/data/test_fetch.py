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
from media import full_disk

from mirolib import InputError, available_datasets, load_dataset
from mirolib.data import ARCHIVES, LOADERS, fetch as fetch_module
from mirolib.data.fetch import Archive, fetch, unpack

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


def tar_of(content, mode="w:gz", **options):
    """A tar of bytes, or of a type and the target of a link, by name; pairs where a name comes twice."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, **options) as archive:
        for name, data in content.items() if isinstance(content, dict) else content:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size, info.mode = len(data), 0o4777
                archive.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                archive.addfile(info)
    return stream.getvalue()


def zip_of(content, attributes=0):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


KINDS = {
    "set.tar.gz": tar_of(CONTENT),
    "set.tar": tar_of(CONTENT, "w:"),
    "set.tar.bz2": tar_of(CONTENT, "w:bz2"),
    "set.tar.xz": tar_of(CONTENT, "w:xz"),
    "set.zip": zip_of(CONTENT),
}
BODY = KINDS["set.tar.gz"]


def served(server, body=BODY, name="set.tar.gz", **changes):
    server.files[f"/{name}"] = body
    known_hash = f"sha256:{hashlib.sha256(body).hexdigest()}"
    url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
    return replace(Archive(url, name, known_hash, 1_000_000, 1_000_000, "set"), **changes)


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fetched(archive, root, content=CONTENT):
    """Fetches an archive, after which its content is there and nothing else."""
    assert fetch(archive, root, progress=False) == root / "set"
    assert {name: (root / name).read_bytes() for name in content} == content
    assert sorted(os.listdir(root)) == ["set", archive.file_name]


def refused(archive, root, sentence):
    """What is said where an archive can't be fetched."""
    with pytest.raises(InputError, match=sentence) as error:
        fetch(archive, root, progress=False)
    return str(error.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_good_file_is_fetched_once(server, tmp_path, name):
    archive, root = served(server, KINDS[name], name), tmp_path / "made" / "root"
    for _ in range(2):
        fetched(archive, root)
    assert fetch(archive, root / "set", progress=False) == root / "set"
    assert len(server.asked) == 1
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((root / "set" / "train.bin").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((root / "set").stat().st_mode) == 0o777 & ~umask


def test_an_archive_that_is_there_is_only_unpacked(server, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(BODY)
    (tmp_path / "set").mkdir()  # an empty folder is none
    (tmp_path / ".set-unpacking-killed").mkdir()  # left by a process that was killed
    fetched(served(server), tmp_path)
    assert not server.asked


def test_an_archive_with_another_checksum_is_fetched_again(server, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"something else")
    fetched(served(server), tmp_path)


def test_progress_is_shown_if_wanted(server, tmp_path, capsys):
    fetch(served(server), tmp_path / "silent", progress=False)
    assert capsys.readouterr() == ("", "")
    fetch(served(server), tmp_path / "shown")
    assert "set.tar.gz: 100%" in capsys.readouterr().err


def test_the_archives_bytes_are_kept_whatever_encoding_is_announced(server, tmp_path):
    server.faults["encoding"] = "gzip"
    fetched(served(server), tmp_path)


def test_without_a_known_checksum_the_one_found_is_said(server, tmp_path):
    with pytest.warns(UserWarning, match=hashlib.sha256(BODY).hexdigest()):
        fetched(served(server, known_hash=None), tmp_path)


def test_a_wrong_checksum_is_said_and_the_file_removed(server, tmp_path):
    archive = served(server, known_hash="md5:" + 32 * "0")
    refused(archive, tmp_path, r"set.tar.gz as fetched from http.*md5:000.*was removed; fetch it again")
    assert listing(tmp_path) == []


def cut(server, root, archive, at=200_000):
    """A download that ends after some bytes; how many of them are there."""
    server.faults["cut"] = at
    said = refused(archive, root, "/set.tar.gz was cut: .* call again to fetch the rest")
    del server.faults["cut"]
    assert listing(root) == ["set.tar.gz.part", "set.tar.gz.part.tag"]
    there = (root / "set.tar.gz.part").stat().st_size
    assert at - 100_000 < there <= at and f"{there:,} of {len(BODY):,} bytes" in said
    server.asked.clear()
    return there


def test_a_cut_download_is_resumed_as_often_as_it_is_cut(server, tmp_path):
    archive = served(server)
    first, second = (cut(server, tmp_path, archive, at) for at in (200_000, 350_000))
    fetched(archive, tmp_path)
    expected = (f"bytes={second}-", '"1"', len(BODY) - second)
    assert first < second
    assert [(asked.range, asked.if_range, asked.sent) for asked in server.asked] == [expected]


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
    cut(server, tmp_path, served(server))
    changed = {**CONTENT, "set/train.bin": CONTENT["set/train.bin"][::-1]}
    server.faults |= faults
    fetched(served(server, tar_of(changed)), tmp_path, changed)
    assert len(server.asked) == requests and server.asked[-1].sent == len(tar_of(changed))


def test_a_download_starts_over_for_another_address(server, tmp_path):
    cut(server, tmp_path, served(server))
    fetched(served(server, BODY, "new.tar.gz", file_name="set.tar.gz"), tmp_path)
    assert [asked.range for asked in server.asked] == [None]


def test_without_etag_only_a_known_checksum_lets_a_download_be_resumed(server, tmp_path):
    server.faults["etag"] = ""
    archive = served(server)
    for known, root in ((True, tmp_path / "known"), (False, tmp_path / "unknown")):
        root.mkdir()
        cut(server, root, archive)
        with contextlib.nullcontext() if known else pytest.warns(UserWarning):
            fetched(archive if known else replace(archive, known_hash=None), root)
        assert bool(server.asked[0].range) == known


def test_a_part_that_is_all_there_already_is_taken(server, tmp_path):
    archive = served(server)
    cut(server, tmp_path, archive)
    (tmp_path / "set.tar.gz.part").write_bytes(BODY)
    fetched(archive, tmp_path)
    assert [asked.sent for asked in server.asked] == [0]


@pytest.mark.parametrize("faults", [{}, {"no_length": True}, {"cut": 1000}])
def test_a_file_larger_than_it_may_be_is_refused(server, tmp_path, faults):
    server.faults |= faults
    sentence = "http.*300,000 bytes are the most this file may have.*by hand and unpack it to"
    refused(served(server, size_bytes=300_000), tmp_path, sentence)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("answer", ["404 Not Found", "403 Forbidden", "503 Service Unavailable", "206 Partial Content"])
def test_other_answers_are_said_and_leave_what_had_come(server, tmp_path, answer):
    archive, sentence = served(server), rf"http://.*answer is {answer}.*try later, or get it by hand .*/set"
    server.faults["status"] = int(answer[:3])
    refused(archive, tmp_path, sentence)
    assert listing(tmp_path) == []
    del server.faults["status"]
    cut(server, tmp_path, archive)
    server.faults["status"] = int(answer[:3])
    refused(archive, tmp_path, sentence)
    assert listing(tmp_path) == ["set.tar.gz.part", "set.tar.gz.part.tag"]


def test_hosts_that_are_not_there_or_silent_and_bad_addresses(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(import_module("mirolib.data.fetch"), "TIMEOUT_S", (1.0, 0.1))
    with socket.socket() as unheard, socket.create_server(("127.0.0.1", 0)) as silent:
        unheard.bind(("127.0.0.1", 0))
        gone, quiet = (f"http://127.0.0.1:{one.getsockname()[1]}/set.zip" for one in (unheard, silent))
        for url, why in (
            (gone, "there is no connection to the host"),
            (quiet, "the host does not answer"),
            ("nowhere", "Invalid URL.*"),
        ):
            said = (
                rf"^{url} can't be fetched \({why}\): try later, or get it by hand and unpack it to {tmp_path}/set\.$"
            )
            refused(Archive(url, "set.zip", None, 1000, 1000, "set"), tmp_path, said)
    assert listing(tmp_path) == []


class FullDisk(io.FileIO):
    """A file on a disk with room for 300,000 bytes."""

    def write(self, data):
        return full_disk() if self.tell() + len(data) > 300_000 else super().write(data)


def test_a_full_disk(server, tmp_path, monkeypatch):
    archive, sentence = served(server), "The disk is full .*free some space"
    real = Path.open

    def opened(path, mode="r", *args, **kwargs):
        full = re.search(r"(\.part|train\.bin)$", str(path)) and mode != "rb"
        return FullDisk(path, mode[0]) if full else real(Path(path), mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        refused(archive, tmp_path, sentence)
    assert listing(tmp_path) == ["set.tar.gz.part", "set.tar.gz.part.tag"]
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "bltn_open", opened)
        refused(archive, tmp_path, sentence)
    assert server.asked[-1].range  # made room: only the rest was asked for
    assert listing(tmp_path) == ["set.tar.gz"]
    fetched(archive, tmp_path)
    assert len(server.asked) == 2


def test_a_root_that_can_not_be_written(server, tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        refused(served(server), root, "can't be written .*give a root that can")
    monkeypatch.setattr(Path, "mkdir", denied)
    refused(served(server), tmp_path / "other", "Permission denied")
    assert listing(tmp_path) == ["file"] and not server.asked


def test_those_who_fetch_a_set_at_once_download_it_once(server, tmp_path):
    archive = served(server)
    with ThreadPoolExecutor(3) as pool:  # locks tell threads apart as they do processes
        assert list(pool.map(lambda _: fetch(archive, tmp_path, progress=False), range(3))) == 3 * [tmp_path / "set"]
    assert len(server.asked) == 1
    fetched(archive, tmp_path)


def test_a_lock_on_a_file_that_is_gone_is_none(server, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    real, locked = fcntl.flock, []

    def late(stream, how):
        real(stream, how)
        locked.append(Path(stream.name))
        if len(locked) == 1:
            locked[0].unlink()  # by the process that had the lock before

    monkeypatch.setattr(fcntl, "flock", late)
    fetched(served(server), tmp_path)
    assert len(locked) == 2


def zip_encrypted():
    body = bytearray(zip_of({"set/a": b"abc"}))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(body)


FOLDER = (tarfile.DIRTYPE, "")
LINK = (stat.S_IFLNK | 0o777) << 16
OUTSIDE, TAKEN, NEITHER = "leads out of the folder", "takes the place of another one", "is neither file nor folder"
HOSTILE = {
    "absolute path": (tar_of({"/tmp/evil": b"x"}), f"'/tmp/evil' {OUTSIDE}"),
    "path up": (tar_of({"set/../../evil": b"x"}), f"'set/../../evil' {OUTSIDE}"),
    "folder up": (tar_of({"../evil": FOLDER}), f"'../evil' {OUTSIDE}"),
    "path of Windows": (tar_of({"set\\..\\..\\evil": b"x"}), OUTSIDE),
    "slash of Windows": (tar_of({"set\\evil": b"x"}), OUTSIDE),
    "drive of Windows": (tar_of({"C:evil": b"x"}), OUTSIDE),
    "no name": (tar_of({"./": b"x"}), TAKEN),
    "through a link": (tar_of({"set/out": (tarfile.SYMTYPE, "../.."), "set/out/evil": b"x"}), f"'set/out' {NEITHER}"),
    "link to itself": (tar_of({"set/a": (tarfile.SYMTYPE, "a")}), NEITHER),
    "hard link": (tar_of({"set/a": (tarfile.LNKTYPE, "/etc/passwd")}), f"'set/a' {NEITHER}"),
    "device": (tar_of({"set/null": (tarfile.CHRTYPE, "")}), f"'set/null' {NEITHER}"),
    "pipe": (tar_of({"set/pipe": (tarfile.FIFOTYPE, "")}), f"'set/pipe' {NEITHER}"),
    "twice": (tar_of([("set/a", b"x"), ("set/a", b"y")]), f"'set/a' {TAKEN}"),
    "file as a folder": (tar_of({"set/a": b"x", "set/a/b": b"y"}), f"'set/a/b' {TAKEN}"),
    "folder as a file": (tar_of([("set/a", b"x"), ("set/a", FOLDER)]), f"'set/a' {TAKEN}"),
    "deep": (tar_of({"a/" * 2000 + "a": b"x"}), "makes it larger than it may be .*32 folders in each other"),
    "larger than it may be": (tar_of({"set/a": bytes(1_000_001)}), "'set/a' makes it larger than it.*1,000,000 bytes"),
    "large in sum": (tar_of({f"set/{n}": bytes(400_000) for n in range(3)}), "'set/2' makes it larger"),
    "zip: absolute path": (zip_of({"/tmp/evil": b"x"}), f"'/tmp/evil' {OUTSIDE}"),
    "zip: path up": (zip_of({"set/../../evil": b"x"}), OUTSIDE),
    "zip: link": (zip_of({"set/out": "/etc"}, LINK), f"'set/out' {NEITHER}"),
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
    refused(served(server, body), tmp_path / "root", sentence)
    assert listing(tmp_path) == ["root", "root/set.tar.gz"]


def not_unpacked(folder, body, sentence, limit_bytes=10**12):
    """An archive is refused with a sentence, and leaves nothing behind."""
    (folder / "bomb").write_bytes(body)
    before = listing(folder)
    with pytest.raises(InputError, match=sentence):
        unpack(folder / "bomb", folder / "set", limit_bytes)
    assert listing(folder) == before


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_bombs_by_ratio_and_too_many_members_are_refused(tmp_path, monkeypatch, make):
    bomb = make({"set/a": bytes(40_000_000)})
    not_unpacked(tmp_path, bomb, "'set/a' makes it larger than it may be .16,777,216 bytes")
    monkeypatch.setattr(fetch_module, "MAX_MEMBERS", 9)
    not_unpacked(tmp_path, make({f"set/{number}": b"" for number in range(10)}), "larger than it .* 9 members")
    (tmp_path / "many").write_bytes(make({f"set/{number}": b"" for number in range(9)}))
    unpack(tmp_path / "many", tmp_path / "set", 1000)


def test_no_more_is_written_than_a_header_claims(tmp_path, monkeypatch):
    real, real_copy, written = zipfile.ZipFile.infolist, shutil.copyfileobj, []

    def lying(archive):
        infos = real(archive)
        for info in infos:
            info.file_size = 1
        return infos

    def copied(source, target):
        real_copy(source, target)
        written.append(target.tell())

    monkeypatch.setattr(zipfile.ZipFile, "infolist", lying)
    monkeypatch.setattr(shutil, "copyfileobj", copied)
    not_unpacked(tmp_path, zip_of({"set/a": bytes(3_000_000)}), "is damaged .*CRC", 2_000_000)
    assert sum(written) <= 1


def test_headers_without_end_are_refused(tmp_path):
    not_unpacked(tmp_path, tar_of({"set/a": b""}, pax_headers={"comment": "x" * 8_000_000}), "bytes of headers")


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
        not_unpacked(tmp_path, broken, "is damaged", 10_000)


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


# Where a set lies


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


CONTENTS = {
    "cifar100": ("meta", "train", "test"),
    "tiny-imagenet": ("wnids.txt", "train/n00000001/images/a.JPEG"),
    "dsads": ("a02/p8/s01.txt",),
    "imagenet1k": ("train/n00000001/a.JPEG",),
    "urbansound8k": ("audio/fold1/a.wav", "metadata/UrbanSound8K.csv"),
}
OTHERS = {
    "cifar100": ("train/rose/a.jpg", "test/rose/a.jpg", "meta/a.csv"),
    "tiny-imagenet": ("wnids.txt", "val/a.JPEG"),
    "dsads": ("a02/notes.txt", "a20/p1/s01.txt"),
    "imagenet1k": ("train/rose/a.jpg", "train/n0000001/a.jpg"),
    "urbansound8k": ("audio/fold1/a.wav", "metadata/esc50.csv"),
}


@pytest.mark.parametrize("place", [".", "any name", "archives/one of them"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_set_is_found_by_its_content(tmp_path, name, place):
    touch(tmp_path / place, *CONTENTS[name])
    assert available_datasets(tmp_path) == ["digits", name] and ARCHIVES[name].find(tmp_path) == tmp_path / place
    named = touch(tmp_path / ARCHIVES[name].folder, *CONTENTS[name])
    assert ARCHIVES[name].find(tmp_path) == named, "the name goes first"


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_only_looks_like_a_set_is_none(tmp_path, name):
    touch(tmp_path / "own", *OTHERS[name])
    for hidden in (".trash/set", "cache/set", "mine/train/set", "mine/val/set", "a/b/c", "mine/n00000001/set"):
        touch(tmp_path / hidden, *CONTENTS["dsads"])
    assert available_datasets(tmp_path) == ["digits"]


@pytest.mark.parametrize("archive", ARCHIVES.values())
def test_a_folder_of_one_set_is_not_taken_for_anothers(tmp_path, archive):
    for name, names in CONTENTS.items():
        touch(tmp_path / name / archive.folder, *names)
        assert available_datasets(tmp_path / name) == ["digits", name]
    touch(tmp_path / "flat" / "tiny", "wnids.txt", "train/n00000001/a.JPEG")
    assert available_datasets(tmp_path / "flat") == ["digits", "tiny-imagenet"]
    tiny = tmp_path / "lost" / "tiny"
    touch(tiny, "train/n00000001/images/a.JPEG", "val/val_annotations.txt")
    assert available_datasets(tmp_path / "lost") == ["digits"], "Tiny-ImageNet without its list is not ImageNet"


@pytest.mark.parametrize("root", [".", "kaggle", "kaggle/ILSVRC", "kaggle/ILSVRC/Data", "kaggle/ILSVRC/Data/CLS-LOC"])
def test_imagenet_is_found_as_deep_as_kaggle_has_it(tmp_path, root):
    folder = touch(tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC", *CONTENTS["imagenet1k"])
    touch(tmp_path / "kaggle" / "ILSVRC", "Annotations/CLS-LOC/train/n00000001/a.xml", "ImageSets/CLS-LOC/val.txt")
    assert ARCHIVES["imagenet1k"].find(tmp_path / root) == folder


def test_the_search_ends_in_large_folders_and_those_that_are_closed(tmp_path, monkeypatch):
    for number in range(120):
        (tmp_path / "flowers" / f"rose {number}" / "more").mkdir(parents=True)
    touch(tmp_path / "flowers" / "rose 7" / "set", *CONTENTS["dsads"])
    assert available_datasets(tmp_path / "flowers") == ["digits"], "that many are classes"
    scanned, scandir = [], os.scandir

    def noted(folder):
        scanned.append(str(folder))
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    (tmp_path / "closed").mkdir()
    touch(tmp_path / "zz", *CONTENTS["dsads"])
    monkeypatch.setattr(os, "scandir", noted)
    assert ARCHIVES["dsads"].find(tmp_path) == tmp_path / "zz" and len(scanned) < 10
