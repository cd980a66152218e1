"""A store lives through histories of writing, reopening, damage and repair, beside a set of what it must give back."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from stores import PRINT, ids_of

from mirolib import Storage
from mirolib.memory.store_check import repair, verify
from mirolib.memory.store_file import DATA, INDEX

LABELS, PARTS = range(3), ("train", "validation")


class Histories(RuleBasedStateMachine):
    """Of records of one size."""

    fingerprint = PRINT

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.counts = {part: [0, 0, 0] for part in PARTS}
        self.given: set[tuple[str, int]] = set()  # what must be read back, and nothing else
        self.store = Storage(self.folder, self.fingerprint)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def samples(self, ids: np.ndarray, part: str) -> np.ndarray:
        """Samples that go by ids, none like another."""
        rngs = [np.random.default_rng([*divmod(id_, 1 << 32), PARTS.index(part)]) for id_ in ids.tolist()]
        if self.fingerprint is PRINT:
            return (
                np.array([rng.integers(0, 256, PRINT.sample_shape, np.uint8) for rng in rngs])
                .reshape(-1, *PRINT.sample_shape)
                .astype(np.uint8)
            )
        samples = np.empty(len(ids), dtype=object)
        samples[:] = [rng.bytes(int(rng.integers(1, 60))) for rng in rngs]
        return samples

    def ids(self, part: str) -> np.ndarray:
        """All that came of a part."""
        return np.concatenate([ids_of(label, 0, self.counts[part][label]) for label in LABELS])

    def read(self) -> set[tuple[str, int]]:
        """What is read back, every byte of which is right."""
        found = set()
        for part in PARTS:
            ids = self.ids(part)
            samples, sound = self.store.read_sound(ids, part)
            assert samples.tolist() == self.samples(ids[sound], part).tolist()
            found |= {(part, id_) for id_ in ids[sound].tolist()}
        return found

    @rule(part=st.sampled_from(PARTS), more=st.tuples(*[st.integers(0, 6)] * len(LABELS)))
    def put_what_came_with_more(self, part, more):
        self.counts[part] = [count + n for count, n in zip(self.counts[part], more, strict=True)]
        ids = np.random.default_rng(sum(more)).permutation(self.ids(part))
        new = ids[~self.store.holds(ids, part)]
        assert self.store.put(ids, self.samples(ids, part), part) == len(new)
        self.given |= {(part, id_) for id_ in new.tolist()}

    @rule()
    def open_again(self):
        self.store.close()
        self.store = Storage(self.folder, self.fingerprint)

    @rule(name=st.sampled_from([DATA, INDEX]), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def flip_a_bit(self, name, at, bit):
        content = bytearray((self.folder / name).read_bytes())
        if content:
            content[int(at * len(content))] ^= 1 << bit
            (self.folder / name).write_bytes(content)
            self.open_again()
            lost = self.given - (left := self.read())
            assert len(lost) <= 1, "a bit costs a record at most"
            self.given = left

    @rule(name=st.sampled_from([DATA, INDEX]), share=st.floats(0.5, 1))
    def lose_a_tail(self, name, share):
        size = (self.folder / name).stat().st_size
        os.truncate(self.folder / name, int(share * size))
        self.open_again()
        left = self.read()
        assert left <= self.given
        self.given = left

    @rule()
    def drop_what_is_damaged(self):
        self.store.close()
        assert repair(self.folder) == len(self.given)
        report = verify(self.folder, progress=False)
        assert not report.damaged and not report.problems
        self.open_again()
        for part in PARTS:
            ids = self.ids(part)
            assert {(part, id_) for id_ in ids[self.store.holds(ids, part)].tolist()} == {
                one for one in self.given if one[0] == part
            }

    @invariant()
    def gives_back_what_it_must(self):
        assert self.read() == self.given
        starts = np.array([id_ for of, id_ in sorted(self.given) if of == "train"][::5], dtype=np.int64)
        ids = self.store.neighbours(starts, 4)
        samples, sound = self.store.read_sound(ids)
        assert {("train", id_) for id_ in ids[sound].tolist()} <= self.given
        assert samples.tolist() == self.samples(ids[sound], "train").tolist()


class EncodedHistories(Histories):
    """Of encoded records of their own lengths."""

    fingerprint = replace(PRINT, sample_shape=(), sample_dtype="object", mean_bytes=30)


TestHistories, TestEncodedHistories = Histories.TestCase, EncodedHistories.TestCase
TestHistories.settings = TestEncodedHistories.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, derandomize=True
)
