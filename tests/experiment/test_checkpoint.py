import json
import logging
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from mirolib import InputError, StorageError
from mirolib.base.state import Table, dumped, generator_of, loaded
from mirolib.experiment.checkpoint import Checkpoints, decoded, encoded, read_checkpoint

STATE = {
    "weights": {"a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(7)},
    "ids": np.arange(5),
    "flags": np.array([True, False]),
    "rows": [{"loss": 0.1, "none": None, "nan": float("nan")}, [1 << 70, "text"]],
    "empty": np.empty(0, dtype=np.int64),
}


def test_a_state_comes_back_as_it_was():
    found = decoded(encoded(STATE))
    assert torch.equal(found["weights"]["a"], STATE["weights"]["a"]) and int(found["weights"]["n"]) == 7
    for name in ("ids", "flags", "empty"):
        assert isinstance(found[name], np.ndarray) and found[name].dtype == STATE[name].dtype
        np.testing.assert_array_equal(found[name], STATE[name])
    assert found["rows"][1] == [1 << 70, "text"] and np.isnan(found["rows"][0]["nan"])


def test_tensors_that_share_memory_or_are_strided_are_kept_apart():
    base = torch.arange(12.0).view(3, 4)
    found = decoded(encoded({"a": base, "b": base, "t": base.T}))
    assert torch.equal(found["a"], found["b"]) and torch.equal(found["t"], base.T)


@example([math.inf, -math.inf, math.nan], [1, 2, 3], [True, False, True])
@given(st.lists(st.floats()), st.lists(st.integers(-(1 << 63), (1 << 63) - 1)), st.lists(st.booleans()))
def test_tables_come_back_as_they_were(floats, integers, flags):
    rows = min(map(len, (floats, integers, flags)))
    columns = {"x": floats[:rows], "n": integers[:rows], "ok": flags[:rows], "word": ["é,\n"] * rows}
    table = pd.DataFrame(columns).astype({"x": "float64", "n": "int64", "ok": "bool"})
    found = loaded(Table, json.loads(json.dumps(dumped(Table, table))))
    pd.testing.assert_frame_equal(found, table, check_exact=True)


@pytest.mark.parametrize(
    "value", [None, {}, {"columns": {"a": ["complex", []]}, "rows": 0}, {"columns": {"a": ["int64", [1]]}, "rows": 2}]
)
def test_what_is_no_table_is_refused(value):
    with pytest.raises(InputError, match=r"can't be used: all of it"):
        loaded(Table, value)


def test_a_generator_goes_on_where_it_was():
    rng = np.random.default_rng(3)
    rng.random(5)
    again = generator_of(json.loads(json.dumps(rng.bit_generator.state)))
    assert again.random() == rng.random()
    for value in (None, {}, {"bit_generator": "PCG64", "state": {"state": "x", "inc": 1}}):
        with pytest.raises(InputError, match="no state of a random generator"):
            generator_of(value)


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    assert checkpoints.latest() is None
    for step in range(12):
        path = checkpoints.save({"step": step})
    assert [file.name[:6] for file in checkpoints.files()] == ["000012", "000011"]
    assert checkpoints.files()[0] == path and checkpoints.latest()["step"] == 11


def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 0})
    path = checkpoints.save({"step": 1})
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest()["step"] == 0
    assert path.name in caplog.text
    checkpoints.files()[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"No checkpoint in .* can be read"):
        checkpoints.latest()


def test_another_format_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mirolib.experiment.checkpoint.CHECKPOINT_FORMAT", 99)
    path = Checkpoints(tmp_path).save({})
    monkeypatch.undo()
    with pytest.raises(InputError, match="format 99; this version reads 8"):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_older_ones(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 0})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        checkpoints.save({"step": 1})
    assert checkpoints.latest()["step"] == 0 and len(list(tmp_path.iterdir())) == 1


def test_every_flipped_bit_is_known(tmp_path):
    path = Checkpoints(tmp_path).save(STATE)
    content, draw = path.read_bytes(), random.Random(0)
    for _ in range(300):
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :])
        with pytest.raises(InputError, match="is damaged"):
            read_checkpoint(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10_000), st.booleans())
def test_foreign_bytes_get_a_sentence(junk, at, inside):
    content = encoded(STATE)
    at %= len(content)
    mixed = content[:at] + junk + content[at + len(junk) :] if inside else junk
    try:
        decoded(mixed)
    except InputError as error:
        assert "\n" not in str(error)
