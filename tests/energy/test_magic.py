import pytest
from IPython.core.interactiveshell import InteractiveShell
from sensors import meter_of

from mirolib import InputError
from mirolib.energy import magic


def test_the_magic_measures_a_cell(monkeypatch):
    meter = meter_of()
    monkeypatch.setattr(magic, "cell_meter", lambda: meter)
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "mirolib")
    found = shell.run_cell_magic("energy", "napping", "import time\ntime.sleep(0.1)\nx = 3")
    assert found.window == "napping" and shell.user_ns["x"] == 3 and shell.user_ns["_energy"] is found
    assert found.measurement.energy_j == pytest.approx(5 * found.duration_s, rel=0.05)
    with pytest.raises(ZeroDivisionError):
        shell.run_cell_magic("energy", "", "1 / 0")
    assert shell.run_cell_magic("energy", "", "import time; time.sleep(0.1)").window == "cell"
    with pytest.raises(InputError, match="one word"):
        shell.run_cell_magic("energy", "two words", "1")
