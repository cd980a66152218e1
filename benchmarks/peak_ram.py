"""Resident memory of filled buffers, against sizes x bytes a sample.

A fresh process reads CIFAR-shaped images from a memory-mapped file and fills an episodic memory of 20,000 and a
stream buffer of 10,000 through `TieredMemory.receive` and `retain`, then resizes both to half and back. The parent
reads the process's anonymous resident memory (RssAnon) every millisecond. Pages of mapped files, the source and the
store, do not count: they are page cache, which the system takes back when it needs room. Growth is over the process
with empty buffers that has taken a tiny memory through the same phases before; the expected value is slots x 3,072
bytes.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

EPISODIC, STREAM, SAMPLE, CLASSES, CHUNK = 20_000, 10_000, 3072, 10, 20


def run() -> pd.DataFrame:
    """Follows the child process through its phases."""
    from benchmarks.common import row, table

    now, peak = _follow()
    full, half = (EPISODIC + STREAM) * SAMPLE, (EPISODIC + STREAM) // 2 * SAMPLE
    grown = {phase: value - now["empty"] for phase, value in now.items()}
    peaks = {phase: value - now["empty"] for phase, value in peak.items()}
    return table(
        [
            row("expected, both buffers full", full / 1e6, "MB"),
            row("growth, both buffers full", grown["full"] / 1e6, "MB"),
            row("growth / expected, full", grown["full"] / full, "ratio", at_least=0.95, at_most=1.05),
            row("growth / expected, resized to half", grown["half"] / half, "ratio"),
            row("growth / expected, resized back", grown["full again"] / full, "ratio"),
            row("peak / expected while filling", peaks["full"] / full, "ratio"),
            row("peak / full before, while resizing to half", peaks["half"] / grown["full"], "ratio"),
            row("peak / full after, while resizing back", peaks["full again"] / grown["full again"], "ratio"),
        ]
    )


def _follow() -> tuple[dict[str, int], dict[str, int]]:
    """Anonymous resident bytes at the end of each phase of the child, and the most during it."""
    command = [sys.executable, "-m", "benchmarks.peak_ram"]
    now, peak, most = {}, {}, 0
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin and child.stdout
        status = Path(f"/proc/{child.pid}/status")
        while True:
            said = bool(select.select([child.stdout], [], [], 0.001)[0])
            phase = child.stdout.readline().strip() if said else ""
            if said and not phase:
                break
            resident = _resident(status)
            most = max(most, resident)
            if phase:
                now[phase], peak[phase], most = resident, most, resident
                child.stdin.write("\n")
    if child.returncode:
        raise RuntimeError("The child process failed; its message is above.")
    return now, peak


def _resident(status: Path) -> int:
    """Anonymous resident bytes of a process."""
    lines = [line.split() for line in status.read_text().splitlines() if line.startswith("RssAnon")]
    return int(lines[0][1]) * 1024 if lines else 0


def child() -> None:
    """Fills and resizes the buffers, naming each phase when it is done and waiting for an answer."""
    import numpy as np

    from mirolib import Dataset, Fingerprint, MemoryConfig, Storage, TaskStream, TieredMemory
    from mirolib.data import DatasetSpec, Preset, Samples

    def fill(folder: Path, count: int, stream_size: int, episodic_size: int) -> Iterator[str]:
        """Takes a memory through the phases, naming each when it is done."""
        rng = np.random.default_rng(0)
        with (folder / "data").open("wb") as file:
            for _ in range(count // CHUNK):
                file.write(rng.bytes(CHUNK * SAMPLE))
        images = np.memmap(folder / "data", np.uint8, "r", shape=(count, 3, 32, 32))
        samples = Samples(images, np.arange(count) % CLASSES, np.arange(count))
        preset = Preset("linear", 2, 1, 128, 0.01, stream_size, episodic_size, 0)
        spec = DatasetSpec("random", (3, 32, 32), "uint8", {"": preset})
        stream = TaskStream(Dataset(spec, samples, samples, tuple("0123456789"), "random"), 2, validation_share=0.0)
        first, second = stream
        config, half = MemoryConfig(stream_size, episodic_size), MemoryConfig(stream_size // 2, episodic_size // 2)
        with TieredMemory(Storage(folder / "store", Fingerprint.of(stream)), config, CLASSES) as memory:
            yield "empty"
            memory.receive(first)
            memory.retain(first)
            memory.receive(second)
            assert len(memory.stream_buffer) == stream_size and len(memory.episodic_memory) == episodic_size
            yield "full"
            memory.resize(half)
            yield "half"
            memory.resize(config)
            assert len(memory.stream_buffer) == stream_size and len(memory.episodic_memory) == episodic_size
            yield "full again"

    with TemporaryDirectory(prefix="miro-bench-") as small, TemporaryDirectory(prefix="miro-bench-") as large:
        list(fill(Path(small), 2 * CHUNK, 10, 20))
        for phase in fill(Path(large), 2 * EPISODIC, STREAM, EPISODIC):
            sys.stdout.write(f"{phase}\n")
            sys.stdout.flush()
            sys.stdin.readline()


if __name__ == "__main__":
    child()
