import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from samples import make_dataset

from mirolib import (
    Controller,
    EnergyMeter,
    Fingerprint,
    InputError,
    Learner,
    MemoryConfig,
    Miro2023Controller,
    MiroController,
    NullSource,
    Storage,
    StorageError,
    TaskStream,
    TieredMemory,
)
from mirolib.base.state import State
from mirolib.experiment.checkpoint import decoded, encoded
from mirolib.experiment.loop import Loop
from mirolib.learning.bic import BiC

STREAM = TaskStream(make_dataset(classes=4, per_class=8), 2, seed=0)
PRESET = replace(STREAM.dataset.spec.preset(), model="linear", epochs=2, batch_size=8)
EPOCH_OF = {MiroController: "task", Miro2023Controller: "buffers"}
JUNK = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
    | st.just(np.array([1 << 40, -1])) | st.just(np.zeros(3)) | st.just(torch.zeros(2, 2)) | st.lists(st.integers())
)  # fmt: skip


def parts(folder: Path, kind: type[Controller]) -> tuple[Loop, TieredMemory]:
    storage = Storage(folder, Fingerprint.of(STREAM))
    memory = TieredMemory(storage, MemoryConfig(4, 4, 0.5), STREAM.num_classes)
    learner = Learner(STREAM.dataset.spec, replace(PRESET, epoch_of=EPOCH_OF[kind]), method=BiC())
    return Loop(STREAM, learner, memory, kind(), EnergyMeter(NullSource())), memory


def state_and_store(folder: Path, kind: type[Controller]) -> State:
    """The state of a run that stands in the middle of its second task."""
    loop, memory = parts(folder, kind)
    with memory:
        steps = loop.steps(progress=False)
        while next(steps).task == 0:
            pass
        state = decoded(encoded(loop.state()))
        steps.close()
    return state


def places(value: object, at: tuple = ()) -> list[tuple]:
    """Where something could be replaced in a nested state."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, entry in inside for place in places(entry, (*at, key)))]


def restored_or_refused(state: State, place: tuple, junk: object, folder: Path, kind: type[Controller]) -> None:
    """Puts junk at a place of a state and restores a run from it."""
    spoilt = copy.deepcopy(state)
    target = spoilt
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = junk
    loop, memory = parts(folder, kind)
    with memory:
        try:
            loop.restore(spoilt)
        except (InputError, StorageError) as error:
            assert "\n" not in str(error)


def fuzz(inputs: int, kind: type[Controller] = MiroController) -> None:
    """Tries so many spoilt states; one that is neither restored nor refused with a sentence ends it."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        state = state_and_store(store, kind)
        found = [place for place in places(state) if place]

        @settings(max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(place=st.sampled_from(found), junk=JUNK)
        def spoilt(place: tuple, junk: object) -> None:
            restored_or_refused(state, place, junk, store, kind)

        spoilt()


@pytest.mark.parametrize("kind", EPOCH_OF)
def test_a_spoilt_state_is_refused_with_a_sentence(kind):
    fuzz(150, kind)
