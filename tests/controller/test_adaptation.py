import math

import pytest
from hypothesis import given, settings, strategies as st

from mirolib import InputError
from mirolib.controller import CongestionPolicy, SwapGovernor


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.0}, {"floor": 0.0}, {"clean_epochs": 0}])
def test_a_policy_out_of_range_is_refused(options):
    with pytest.raises(InputError, match="choose"):
        CongestionPolicy(**options)


def test_halving_and_recovery_by_hand():
    governor = SwapGovernor(1.0, CongestionPolicy(threshold=0.1, floor=0.25, clean_epochs=2))
    ratios = []
    for stall in (0.0, 0.3, 0.3, 0.3, 0.05, 0.05, 0.05, 0.05, 0.05):
        reason = governor.step(stall)
        assert bool(reason) == (len(ratios) == 0 or governor.ratio != ratios[-1]) or not ratios
        ratios.append(governor.ratio)
    assert ratios == [1.0, 0.5, 0.25, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]


def test_a_wait_of_milliseconds_is_no_congestion():
    governor = SwapGovernor(1.0, CongestionPolicy(least_wait_s=0.05))
    assert not governor.step(0.5, 0.049) and governor.ratio == 1.0
    assert governor.step(0.5, 0.051) and governor.ratio == 0.5


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.01, 1.0), st.integers(1, 5))
def test_the_ratio_stays_between_floor_and_highest(stalls, floor, clean):
    governor = SwapGovernor(0.8, CongestionPolicy(floor=floor, clean_epochs=clean))
    for stall in stalls:
        governor.step(stall)
        assert floor * 0.8 - 1e-12 <= governor.ratio <= 0.8


@settings(deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.5, 3.0))
def test_under_constant_conditions_changes_become_rare(scale, power):
    """A disk on which waiting grows with the ratio: it settles, and tries again ever more rarely."""
    governor, changed = SwapGovernor(1.0), []
    for epoch in range(4000):
        if governor.step(scale * governor.ratio**power):
            changed.append(epoch)
    assert len(changed) <= 4 + 2 * math.log2(4000)
    assert sum(epoch >= 2000 for epoch in changed) <= 4


def test_after_relief_the_ratio_comes_back_soon_even_after_long_congestion():
    governor = SwapGovernor(1.0)
    for _ in range(500):
        governor.step(0.15 * governor.ratio)
    patience = governor.patience
    assert governor.ratio < 1 and patience > 16
    needed = next(n for n in range(500) if not governor.step(0.0) and governor.ratio == 1.0)
    assert needed <= 6, "as soon as there is less waiting than there was at the same ratio"


def test_what_congestion_took_does_not_come_back_with_a_higher_cap():
    governor = SwapGovernor(1.0, CongestionPolicy(clean_epochs=2))
    assert governor.cap(0.5) and governor.ratio == 0.5
    assert governor.step(0.9) and governor.ratio == 0.25
    assert governor.cap(1.0) == "" and governor.ratio == 0.25
    assert [bool(governor.step(0.0)) for _ in range(2)] == [False, True] and governor.ratio == 0.5
    assert governor.cap(0.1) and governor.ratio == 0.1
    assert governor.cap(1.0) and governor.ratio == 0.5, "where congestion had left it"
