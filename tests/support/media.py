"""Real media that fill up or turn read-only: a small tmpfs, and an ext4 card in a file."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest


def _system(*command: str | Path) -> None:
    """Runs a command of the system's; skips the test where it is not permitted."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"{command[0]} can't be run: {error}")
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Medium:
    """A file system of its own, mounted at `path`."""

    def __init__(self, path: Path, *mount: str | Path) -> None:
        """Mounts it."""
        self.path = path
        self._mount = ("mount", *mount, path)
        path.mkdir(exist_ok=True)
        _system(*self._mount)

    def fill(self, leave_bytes: int = 0) -> None:
        """Takes the space that is left but for some bytes."""
        about = os.statvfs(self.path)
        with (self.path / "ballast").open("ab") as file:
            file.write(bytes(about.f_bavail * about.f_frsize - leave_bytes))

    def free(self) -> None:
        """Gives the space back."""
        (self.path / "ballast").unlink()

    def remount(self, options: str) -> None:
        """Mounts it anew with other options, such as `ro`; no file of it may be open for writing."""
        _system("mount", "-o", f"remount,{options}", self.path)

    def unmount(self) -> None:
        """Takes it out, whoever has it open."""
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)


class Card(Medium):
    """An ext4 file system that the kernel makes read-only once it finds an error in it, as on a failing card."""

    def __init__(self, path: Path) -> None:
        """Makes and mounts it."""
        self._image = path.with_suffix(".img")
        with self._image.open("wb") as file:
            file.truncate(16 << 20)
        _system("mkfs.ext4", "-q", "-O", "^has_journal", self._image)
        super().__init__(path, "-o", "loop,errors=remount-ro", self._image)

    def fail(self) -> None:
        """Lets the kernel find an error: what is open stays open, and nothing can be written any more."""
        device = os.stat(self.path).st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        try:
            Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")
        except OSError as error:
            pytest.skip(f"ext4 can't be made to fail here: {error}")

    def mend(self) -> None:
        """Checks it and mounts it again, as after a restart."""
        subprocess.run(["umount", self.path], check=True)
        subprocess.run(["fsck.ext4", "-fp", self._image], capture_output=True, check=False)
        _system(*self._mount)


def full_disk(*_: object) -> None:
    """In the place of a call of the system's, such as `os.fsync`: there is no space left."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
