import subprocess
import sys
from pathlib import Path

import pytest

from mirolib import InputError
from mirolib.buffers import SampleArray
from mirolib.limits import available_bytes, check_room, telling

UNDER_A_LIMIT = """
import resource
import psutil
from mirolib import InputError, SystemBudget
from mirolib.buffers import SampleArray
from mirolib.limits import available_bytes

used = psutil.Process().memory_info().data
resource.setrlimit(resource.RLIMIT_DATA, (used + (600 << 20),) * 2)
assert available_bytes() <= 600 << 20
assert SystemBudget().read(0, 0) <= 300 << 20
array = SampleArray(100, (3, 32, 32), "uint8")
for grow in (lambda: SampleArray(10**6, (3, 32, 32), "uint8"), lambda: array.resize(10**6)):
    try:
        grow()
    except InputError as error:
        print(error)
assert array.capacity == 100
"""


def test_a_real_limit_of_the_process_is_heeded_and_told_in_a_sentence():
    done = subprocess.run([sys.executable, "-c", UNDER_A_LIMIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert line.startswith("A buffer of 1000000 samples needs 3,0") and "are available; choose smaller" in line
    assert len(done.stdout.splitlines()) == 2


def group(folder: Path, names: tuple[str, str], most: str, used: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(names, (most, used), strict=True):
        (folder / name).write_text(text)


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


@pytest.mark.parametrize(("folder", "names", "place"), [("memory", V1, "a/b"), ("", V2, "a/b"), ("", V2, "a")])
def test_the_narrowest_group_above_the_process_counts(tmp_path, monkeypatch, folder, names, place):
    monkeypatch.setattr("mirolib.limits._membership", lambda controller: "/a/b" if controller == folder else "")
    group(tmp_path / folder, names, str(10**6), "0")
    group(tmp_path / folder / "a" / "b", names, "max" if folder == "" else str(1 << 62), "0")
    group(tmp_path / folder / place, names, "5000", "1000")
    assert available_bytes(tmp_path) == 4000
    group(tmp_path / folder / place, names, "5000", "9000")
    assert available_bytes(tmp_path) == 0


def test_what_does_not_fit_is_refused_before_it_is_taken():
    with pytest.raises(InputError, match="needs .* MB, and .* are available"):
        SampleArray(1 << 40, (3, 32, 32), "uint8")
    check_room(1 << 19, "little")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_a_failed_allocation_becomes_a_sentence(error):
    with pytest.raises(InputError, match="Training needs more memory than this process may have"), telling("Training"):
        raise error
    with pytest.raises(RuntimeError, match="another"), telling("Training"):
        raise RuntimeError("another")
