import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mirolib import Experiment, InputError, MemoryConfig, RunSettings, run_experiment
from mirolib.memory.available_memory import available_bytes, check_available, explain_memory_errors

UNDER_A_LIMIT = """
import resource
from pathlib import Path
import numpy as np
import psutil
from mirolib import InputError, SystemBudget
from mirolib.memory.available_memory import available_bytes
from mirolib.memory.budget import parse_size
from mirolib.memory.buffers import SampleArray

def resident_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

before, buffers, shape = resident_bytes(), [], (3, 32, 32)
for amount in ("80 MB", "40 MB"):
    size = parse_size(amount, 3072 + 16)
    buffers.append(SampleArray(size, shape, "uint8"))
    for start in range(0, size, 256):
        ids = np.arange(start, min(start + 256, size))
        buffers[-1].append(np.full((len(ids), *shape), 7, np.uint8), ids)
print(sum(buffer.allocated_bytes for buffer in buffers), resident_bytes() - before)

used = psutil.Process().memory_info().data
resource.setrlimit(resource.RLIMIT_DATA, (used + (600 << 20),) * 2)
assert available_bytes() <= 600 << 20
assert SystemBudget().read(0, 0) <= 300 << 20
array = SampleArray(100, shape, "uint8")
for grow in (lambda: SampleArray(10**6, shape, "uint8"), lambda: array.resize(10**6)):
    try:
        grow()
    except InputError as error:
        print(error)
assert array.capacity == 100
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_full_buffers_take_what_their_sizes_say_and_a_limit_of_the_process_is_told_in_a_sentence():
    """In a process of its own, in which nothing that was freed before can be taken again."""
    done = subprocess.run([sys.executable, "-c", UNDER_A_LIMIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken, *refusals = done.stdout.splitlines()
    allocated, grown = map(int, taken.split())
    assert allocated == pytest.approx(120e6, rel=1e-3)
    assert grown == pytest.approx(allocated, rel=0.05)
    assert len(refusals) == 2
    for line in refusals:
        assert line.startswith("A buffer of 1000000 samples needs 3,0") and "are available; choose smaller" in line


IN_A_GROUP = """
import sys
from pathlib import Path
import numpy as np
from mirolib import Dataset, InputError, RunSettings, run_experiment
from mirolib.datasets import DatasetSpec, Preset, Samples
from mirolib.memory.available_memory import available_bytes

group, results, shape = Path(sys.argv[1]), sys.argv[2], (3, 64, 64)
spec = DatasetSpec("big", shape, "uint8", {"": Preset("mlp", 2, 1, 128, 0.01, 10, 10, 0)}, scale=255)

def samples(count):
    return Samples(np.broadcast_to(np.uint8(7), (count, *shape)), np.arange(count) % 4, np.arange(count))

def run(count, **settings):
    dataset = Dataset(spec, samples(count), samples(8), tuple("abcd"), str(count))  # takes no memory itself
    settings = RunSettings(energy="none", validation_share=0.02, **settings)
    return run_experiment(settings, dataset=dataset, results=results, progress=False)

run(400)  # what is loaded late
(group / "memory.force_empty").write_text("0")  # pages of libraries that were read here first
used = int((group / "memory.usage_in_bytes").read_text())
(group / "memory.limit_in_bytes").write_text(str(used + (400 << 20)))
for stream_size, episodic_size in (("500 MB", 1), ("300 MB", "300 MB")):
    try:
        run(100_000, controller="fixed", stream_size=stream_size, episodic_size=episodic_size)
    except InputError as error:
        print(error)
events = run(8000, memory_budget="system").events
print(*events["memory_bytes"])
print(*events["memory_budget_bytes"])
"""


@pytest.fixture
def own_group():
    """A control group for a process to be limited in, of version 1, where one may be made."""
    folder = Path(f"/sys/fs/cgroup/memory/mirolib-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    yield folder
    folder.rmdir()


def test_a_run_in_a_control_group_adapts_or_says_what_does_not_fit_before_it_is_killed(own_group, tmp_path):
    command = ["sh", "-c", f'echo $$ > {own_group}/cgroup.procs && exec "$0" "$@"', sys.executable, "-c", IN_A_GROUP]
    done = subprocess.run([*command, own_group, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, both, taken, budgets = done.stdout.splitlines()
    # of the 400 MB that were left, Python keeps a few
    assert re.match(r"A memory of 40637 \+ 1 samples needs 500 MB, and (3[89]|4\d)\d MB are available", one)
    assert re.match(r"A memory of 24382 \+ 24382 samples needs 600 MB, and (3[89]|4\d)\d MB", both), "each alone fits"
    assert one.endswith("; choose smaller buffers or batches, or memory_budget='system', which adapts.")
    pairs = list(zip(map(int, taken.split()), map(float, budgets.split()), strict=True))
    assert len(pairs) >= 2 and all(size <= budget < 200 << 20 for size, budget in pairs)


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Writes what a control group says; the process is in `a/b` of such a version, on a machine with 10 kB left."""
    written = []
    monkeypatch.setattr("mirolib.memory.available_memory._GROUPS", tmp_path)
    monkeypatch.setattr("mirolib.memory.available_memory._membership", lambda name: "/a/b" if name in written else "")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10_000))

    def write(names, place, most, used, stat=""):
        written.append("memory" if names == V1 else "")
        folder = tmp_path / written[-1] / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip((*names, "memory.stat"), (most, used, stat), strict=True):
            (folder / name).write_text(f"{text}\n")

    return write


@pytest.mark.parametrize(("names", "place"), [(V1, "a/b"), (V2, "a/b"), (V2, "a")])
def test_the_narrowest_group_above_the_process_counts(group, names, place):
    group(names, "", 10**6, 0)
    group(names, "a/b", "max" if names == V2 else 1 << 62, 0)
    assert available_bytes() == 10_000, "the machine's"
    group(names, place, 5000, 1000)
    assert available_bytes() == 4000
    group(names, place, 5000, 9000)
    assert available_bytes() == 0
    check_available(1 << 20, "what is too little to look for")


@pytest.mark.parametrize(("names", "prefix"), [(V1, "total_"), (V2, "")])
def test_pages_of_files_that_a_group_has_read_are_still_available(group, names, prefix):
    stat = f"anon 800\n{prefix}active_file 1000\n{prefix}inactive_file 3000\n{prefix}shmem 7"
    group(names, "a", 5000, 4800, stat)
    assert available_bytes() == 4200
    group(names, "a", 5000, 4800, "no such thing")
    assert available_bytes() == 200


def test_buffers_that_fit_one_by_one_but_not_together_are_refused(make_memory, stream, monkeypatch):
    memory, large = make_memory(stream, MemoryConfig(5, 5)), MemoryConfig(10**6, 10**6)
    monkeypatch.setattr("mirolib.memory.available_memory.available_bytes", lambda: 40 << 20)
    sentence = r"A memory of 1000000 \+ 1000000 samples needs 64 MB, and 42 MB are available"
    with pytest.raises(InputError, match=sentence):
        memory.resize(large)
    assert memory.config == MemoryConfig(5, 5) and memory.stream_buffer.array.capacity == 5
    with pytest.raises(InputError, match=sentence):
        make_memory(stream, large)


def test_what_was_refused_for_want_of_memory_leaves_its_store_free(tmp_path, monkeypatch):
    settings = RunSettings(tasks=2, controller="fixed", stream_size=500, episodic_size=500, model="linear")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="A memory of"):
        patch.setattr("mirolib.memory.tiers.check_available", lambda size, what: check_available(1 << 60, what))
        Experiment.build(settings, tmp_path)
    Experiment.build(settings, tmp_path).memory.close()


def test_a_probe_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mirolib.memory.available_memory.available_bytes", lambda: 1 << 20)
    sentence = "Probing .* candidates on 48 features needs .*; choose a model with fewer fea"
    with pytest.raises(InputError, match=sentence):
        run_experiment(RunSettings(epochs=1, controller="miro-2023"), results=tmp_path, progress=False)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_a_failed_allocation_becomes_a_sentence(error):
    with (
        pytest.raises(InputError, match="Training needs more memory than this process may have"),
        explain_memory_errors("Training"),
    ):
        raise error
    with pytest.raises(RuntimeError, match="another"), explain_memory_errors("Training"):
        raise RuntimeError("another")
