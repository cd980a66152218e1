"""Flipped bits in the files of a store and of a run, and what becomes of them.

A store with records of 64 or 5,000 bytes, or of encoded ones of their own lengths, of both parts, with places that a
budget has taken from others, loses one random bit of its data, or of its index, at a time. A fresh process opens the
damaged copy, reads every record, and writes 40 more. `named` counts files of which one record was refused by its
checksum or missing, `refused` those that were not opened but answered with a sentence; nothing came of the others.
More than one record lost to a bit would be `more`, a record that passes though its bytes differ `wrong`, any other
error a `traceback`, a process that ended by a signal or took 20 s `killed`.

A run on digits loses a random bit of its newest checkpoint, or of one of its tables, `run.json` and list of checksums:
what is read back is `named` as damaged by its reader, or the flip is `unseen`.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.common import row, table
from mirolib import Fingerprint, MiroError, RecordedRun, RunSettings, Storage, open_run
from mirolib.data.stream import make_ids
from mirolib.experiment.checkpoint import read_checkpoint
from mirolib.memory.store_file import DATA, FINGERPRINT, HEADER, INDEX, ROW

FLIPS, CLASSES, MORE = 1000, 4, 40
PARTS = {"train": 120, "validation": 12}  # samples of a class
OUTCOMES = ("nothing", "named", "refused", "more", "wrong", "traceback", "killed")
ENCODED = 0  # the size that stands for samples of their own lengths
_SECONDS = 20


def run() -> pd.DataFrame:
    """Flips `FLIPS` bits in a store of each kind."""
    rows = []
    for size in (64, 5000, ENCODED):
        for name in (DATA, INDEX, FINGERPRINT):
            what = f"{f'{size} bytes a record' if size else 'encoded records'}, {name}"
            found = flip_bits(FLIPS, size, name)
            rows += [row(f"{what}: {outcome}", found[outcome], "files") for outcome in OUTCOMES[:3]]
            rows += [row(f"{what}: {outcome}", found[outcome], "files", at_most=0) for outcome in OUTCOMES[3:]]
    for what, found in flip_run_files(FLIPS).items():
        rows.append(row(f"{what}: named", found["named"], "files"))
        rows += [row(f"{what}: {outcome}", found[outcome], "files", at_most=0) for outcome in ("unseen", "traceback")]
    return table(rows)


def flip_run_files(count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """What becomes of `count` flips in a run's checkpoint and of as many in its other files, by outcome."""
    rng = np.random.default_rng(seed)
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        settings = RunSettings(epochs=2, tasks=2, device="cpu", energy="none")
        for _ in (run := RecordedRun(settings, results=folder, run_id="one", keep_store=True)).steps(progress=False):
            pass
        path = run.result.path
        files = sorted(file for file in path.iterdir() if file.is_file() and file.name != "trace.csv")
        checkpoint = max((path / "checkpoint").iterdir())
        return {
            "checkpoint": Counter(_reread(checkpoint, rng, _checkpoint_problems) for _ in range(count)),
            "tables, run.json, SHA256SUMS": Counter(
                _reread(files[rng.integers(len(files))], rng, _run_problems) for _ in range(count)
            ),
        }


def _reread(file: Path, rng: np.random.Generator, problems: Callable[[Path], bool]) -> str:
    """Whether a reader names what is damaged once a bit of a file is flipped, which is put right again."""
    sound = file.read_bytes()
    damaged = bytearray(sound)
    damaged[rng.integers(len(sound))] ^= 1 << int(rng.integers(8))
    file.write_bytes(damaged)
    try:
        return "named" if problems(file) else "unseen"
    except Exception:
        return "traceback"
    finally:
        file.write_bytes(sound)


def _checkpoint_problems(file: Path) -> bool:
    try:
        read_checkpoint(file)
    except MiroError:
        return True
    return False


def _run_problems(file: Path) -> bool:
    run = open_run(file.parent)
    return bool(run.problems) or run.row["status"] == "unreadable"


def flip_bits(count: int, sample_bytes: int, name: str, seed: int = 0) -> Counter[str]:
    """What becomes of `count` copies of a store with one bit of a file flipped each, by outcome."""
    rng, outcomes = np.random.default_rng(seed), Counter[str]()
    with TemporaryDirectory(prefix="miro-bench-") as folder:
        sound = Path(folder) / "sound"
        _make(sound, sample_bytes)
        bits = 8 * (sound / name).stat().st_size
        left = rng.integers(0, bits, count).tolist()
        while left:  # a process goes on until a file kills it; another takes over behind that one
            told = list(_judged(Path(folder), name, left, sample_bytes))
            outcomes.update(told + (["killed"] if len(told) < len(left) else []))
            left = left[len(told) + 1 :]
    return outcomes


def _judged(folder: Path, name: str, flips: list[int], sample_bytes: int) -> Iterator[str]:
    """Outcomes from a process of its own, as far as it gets."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_judge_all, args=(folder, name, flips, sample_bytes, there), daemon=True)
    child.start()
    there.close()
    try:
        here.recv()  # it has started
        for _ in flips:
            if not here.poll(_SECONDS):
                break
            yield here.recv()
    except EOFError:
        pass
    finally:
        child.kill()
        child.join()


def _judge_all(folder: Path, name: str, flips: list[int], sample_bytes: int, pipe) -> None:  # type: ignore[no-untyped-def]
    """The process: damages, opens, reads and writes one copy after another."""
    logging.disable()
    pipe.send("started")
    for bit in flips:
        shutil.rmtree(folder / "damaged", ignore_errors=True)
        shutil.copytree(folder / "sound", folder / "damaged")
        with (folder / "damaged" / name).open("r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))
        try:
            pipe.send(_judge(folder / "damaged", sample_bytes))
        except MiroError:
            pipe.send("refused")
        except Exception:
            pipe.send("traceback")


def _judge(path: Path, sample_bytes: int) -> str:
    """Reads all of a damaged store and writes to it."""
    storage = Storage(path, _fingerprint(sample_bytes))
    try:
        more = _ids(CLASSES, CLASSES + 1, MORE)
        storage.put(more, _samples(more, "train", sample_bytes))
        lost = 0
        for part, per_class in PARTS.items():
            ids = _ids(0, CLASSES, per_class)
            ids = np.concatenate([ids, more]) if part == "train" else ids
            samples, sound = storage.read_sound(ids, part)
            lost += int(np.count_nonzero(~sound))
            if samples.tolist() != _samples(ids[sound], part, sample_bytes).tolist():
                return "wrong"
        return "more" if lost > 1 else "named" if lost else "nothing"
    finally:
        storage.close()


def _make(path: Path, sample_bytes: int) -> None:
    """A store that was written piece by piece, with records in places that others have left to a budget."""
    records = CLASSES * sum(PARTS.values())
    budget = records * (sample_bytes + HEADER.itemsize + ROW.itemsize) if sample_bytes else None
    storage = Storage(path, _fingerprint(sample_bytes), size_budget=budget)
    more = 40 if budget else 0
    pieces = (("validation", 0, PARTS["validation"]), ("train", 0, PARTS["train"] + more), ("train", 3, PARTS["train"]))
    for part, first, per_class in pieces:
        for ids in np.array_split(_ids(first, 3 if part == "train" and not first else CLASSES, per_class), 20):
            storage.put(ids, _samples(ids, part, sample_bytes), part)
    assert storage.counts(CLASSES).tolist() == [PARTS["train"]] * CLASSES
    storage.close()


def _fingerprint(sample_bytes: int) -> Fingerprint:
    kind = ((sample_bytes,), "uint8") if sample_bytes else ((), "object", 100)
    return Fingerprint("random", "random", tuple(range(CLASSES + 1)), 0, 0.1, *kind)


def _ids(first: int, beyond: int, per_class: int) -> np.ndarray:
    """Ids of some classes' samples, the classes taking turns."""
    ordinals, labels = np.meshgrid(np.arange(per_class), np.arange(first, beyond), indexing="ij")
    return make_ids(labels.ravel(), ordinals.ravel())


def _samples(ids: np.ndarray, part: str, sample_bytes: int) -> np.ndarray:
    """The samples of some ids, of which none is like another."""
    seeds = ids * 2 + (part == "validation")
    rngs = [np.random.default_rng(seed) for seed in seeds.tolist()]
    rows = [rng.integers(0, 256, sample_bytes or rng.integers(1, 200), dtype=np.uint8) for rng in rngs]
    if sample_bytes:
        return np.array(rows, dtype=np.uint8).reshape(len(ids), sample_bytes)
    samples = np.empty(len(rows), dtype=object)
    samples[:] = [row.tobytes() for row in rows]
    return samples


if __name__ == "__main__":
    print(run().to_string())  # noqa: T201
