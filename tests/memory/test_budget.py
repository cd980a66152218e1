import contextlib

import pytest
from hypothesis import example, given, strategies as st

from mirolib import BudgetSchedule, InputError, LiveBudget, MemoryConfig, ResourceMonitor, SystemBudget, parse_budget
from mirolib.memory.budget import parse_size


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("", 0, None),
        ("2000 samples", 0, 2000 * 80),
        ("0: 2000, 9: 1.5 kB", 0, 2000 * 80),
        ("64 MiB", 9, 64 * 2**20),
        ("1.5 kB", 0, 1500),
        ("500bytes", 0, 500),
        ("0: 64 MiB, 100: 32 MiB, 150: none", 99, 64 * 2**20),
        ("0: 64 MiB, 100: 32 MiB, 150: none", 100, 32 * 2**20),
        ("0: 64 MiB, 100: 32 MiB, 150: none", 150, None),
        ("30: 10 samples", 29, None),
        ("none", 0, None),
    ],
)
def test_budgets_are_read_from_text(text, at, expected):
    assert parse_budget(text, 80).read(at, 0) == expected


@pytest.mark.parametrize(
    "text",
    ["plenty", "6 4", "64 MiBs", "-1 MiB", "0 bytes", "1.2.3 kB", "a: 64 MiB", "0: , 1: 5 kB", "nan b", "²: 5 kB"],
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match="can't be read; write an amount"):
        parse_budget(text, 80)


def test_a_schedule_that_names_an_epoch_twice_is_refused():
    with pytest.raises(InputError, match="names epoch 0 twice; keep one amount"):
        parse_budget("0: 2000 samples, 00: 100 samples", 80)


@example("9" * 5000 + ": 5 kB")
@given(st.text(max_size=30))
def test_any_text_is_a_budget_or_a_sentence(text):
    with contextlib.suppress(InputError):
        assert parse_budget(text, 80).read(0, 0) is None or parse_budget(text, 80).read(0, 100) >= 0


@pytest.mark.parametrize(
    ("size", "samples"),
    [(7, 7), ("7", 7), ("7 samples", 7), ("1 sample", 1), ("64MB", 800_000), (" 1 KiB ", 12), ("80 B", 1)],
)
def test_sizes_are_samples_or_amounts(size, samples):
    assert parse_size(size, 80) == samples


@pytest.mark.parametrize(
    "text", ["", "6 4", "plenty", "system", "none", "0 bytes", "-1 MB", "1.2.3 MB", "9" * 400 + "b"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="can't be read; write an amount"):
        parse_size(text, 80)


def test_less_than_a_sample_is_refused():
    with pytest.raises(InputError, match="A buffer of 79 bytes does not hold one sample, which takes 80 bytes"):
        parse_size("79 bytes", 80)


def test_schedule_and_live_budget():
    schedule = BudgetSchedule({10: 500, 0: 1000})
    assert [schedule.read(epoch, 0) for epoch in (0, 9, 10, 99)] == [1000, 1000, 500, 500]
    live = LiveBudget(7)
    live.size_bytes = 9
    assert live.read(0, 0) == 9 and not live.is_short()
    for steps in ({0: 0}, {-1: 5}):
        with pytest.raises(InputError, match="positive number"):
            BudgetSchedule(steps)


@pytest.mark.parametrize("available", [1000, 600, 0])
def test_the_system_budget_follows_what_is_available(monkeypatch, available):
    monkeypatch.setattr("mirolib.memory.budget.available_bytes", lambda: available)
    budget = SystemBudget(share=0.5, reserve_bytes=200, least_bytes=1)
    assert budget.read(0, 400) == max((available - 200 + 400) // 2, 200)
    assert budget.is_short() == (available < 100)
    assert SystemBudget(share=0.5, reserve_bytes=200, least_bytes=999).read(0, 400) == 999


def test_a_system_budget_out_of_range_is_refused():
    with pytest.raises(InputError, match="use 0 to 1"):
        SystemBudget(share=0.0)


def test_shortage_is_told_once_and_looked_for_once_a_second(make_memory, stream, monkeypatch):
    now, available = [0.0], [1000]
    monkeypatch.setattr("mirolib.memory.budget.available_bytes", lambda: available[0])
    memory = make_memory(stream, MemoryConfig(5, 5))
    monitor = ResourceMonitor(memory, SystemBudget(reserve_bytes=200), clock=lambda: now[0])
    told = []
    for now[0], available[0] in ((0, 1000), (0.5, 10), (1.5, 10), (2.6, 10), (4, 1000), (5.5, 10)):
        told.append(monitor.is_short())
    assert told == [False, False, True, False, False, True]
