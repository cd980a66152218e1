import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kill test forks")
def test_a_run_killed_in_any_of_its_operations_ends_with_the_same_numbers():
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.kill", "22", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    killed = re.search(r"22 of 22 runs, killed (\d+) times", done.stdout)
    assert killed and int(killed[1]) >= 20
