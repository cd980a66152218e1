"""Adapting the swap ratio to I/O congestion: halve and recover (paper: P3, P4)."""

from __future__ import annotations

from dataclasses import dataclass

from mirolib.base.errors import InputError
from mirolib.base.state import State, dumped, loaded
from mirolib.controller.base import cap_sentence


@dataclass(frozen=True)
class CongestionPolicy:
    """When the swap ratio falls and rises.

    Attributes:
        threshold: Share of the time that training may wait for storage before the ratio is halved.
        floor: Lowest ratio, as a share of the highest.
        clean_epochs: Epochs without congestion after which the ratio is doubled again.
        least_wait_s: A shorter wait in an epoch is no congestion, whatever its share: on epochs of milliseconds the
            share says more about the scheduler than about the disk.
    """

    threshold: float = 0.1
    floor: float = 1 / 16
    clean_epochs: int = 2
    least_wait_s: float = 0.05

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 < self.threshold < 1:
            raise InputError(f"The congestion threshold is {self.threshold}; choose a share between 0 and 1.")
        if not 0 < self.floor <= 1:
            raise InputError(f"The floor of the swap ratio is {self.floor}; choose a share of it above 0, up to 1.")
        if self.clean_epochs < 1:
            raise InputError(f"clean_epochs is {self.clean_epochs}; choose 1 or more.")


@dataclass(frozen=True)
class _Standing:
    """What a governor remembers; see its attributes."""

    ratio: float
    clean: int
    patience: int
    just_risen: bool
    waiting: float | None
    failed_at: float


class SwapGovernor:
    """Halves the swap ratio when training waits for storage and doubles it again after clean epochs.

    A rise that brings congestion back doubles the number of clean epochs before the next try, so that under constant
    conditions the ratio changes ever more rarely; that number falls back as soon as a rise has lasted, or there is less
    waiting at the lower ratio than there was when it was last reached.
    """

    def __init__(self, highest: float, policy: CongestionPolicy | None = None) -> None:
        """Begins at the highest ratio.

        Args:
            highest: The ratio without congestion, in [0, 1].
            policy: Threshold, floor and patience.
        """
        self.policy = policy or CongestionPolicy()
        self._highest = self._within = highest  # of itself, and under the cap
        self._own = highest  # what congestion leaves, whatever the cap
        self._clean = 0
        self._patience = self.policy.clean_epochs
        self._just_risen = False
        self._waiting: float | None = None  # stall share at the first epoch after a halving
        self._failed_at = float("inf")  # ratio that last brought congestion

    @property
    def ratio(self) -> float:
        """The swap ratio for the next epoch, in [0, 1]."""
        return min(self._own, self._within)

    def cap(self, most: float) -> str:
        """Takes in the highest ratio that is allowed from outside, in [0, 1].

        Returns:
            Why the ratio changed; empty if it did not.
        """
        before, self._within = self.ratio, min(self._highest, most)
        return cap_sentence(most, before, self.ratio) if self.ratio != before else ""

    def state(self) -> State:
        """Where it stands, for a checkpoint."""
        return dumped(
            _Standing,
            _Standing(self._own, self._clean, self._patience, self._just_risen, self._waiting, self._failed_at),
        )

    def restore(self, state: State) -> None:
        """Takes back what `state` gave."""
        s = loaded(_Standing, state)
        self._own, self._clean, self._patience = s.ratio, s.clean, s.patience
        self._just_risen, self._waiting, self._failed_at = s.just_risen, s.waiting, s.failed_at

    def step(self, stall_share: float, stall_s: float = float("inf")) -> str:
        """Takes in an epoch's wait for storage and sets `ratio` for the next one.

        Args:
            stall_share: Share of the epoch that training waited for storage, in [0, 1].
            stall_s: The same in seconds.

        Returns:
            Why the ratio changed; empty if it did not.
        """
        policy, before = self.policy, self.ratio
        if stall_share > policy.threshold and stall_s >= policy.least_wait_s:
            if self._just_risen:
                self._patience *= 2
            self._clean, self._just_risen, self._waiting, self._failed_at = 0, False, None, before
            self._own = max(before / 2, policy.floor * self._highest)
            sentence = f"training waited for storage {stall_share:.0%} of the epoch (more than {policy.threshold:.0%})"
            return f"{sentence}: swap ratio {before:g} to {self.ratio:g}" if self.ratio < before else ""
        if before < self._within:
            if self._waiting is None:
                self._waiting = stall_share
            elif self._waiting > policy.threshold / 4 and stall_share < self._waiting / 2:
                self._patience = policy.clean_epochs  # conditions have changed for the better
        self._just_risen = False
        self._clean += 1
        if before >= self._failed_at and self._clean >= policy.clean_epochs:
            self._patience, self._failed_at = policy.clean_epochs, float("inf")
        if before == self._within or self._clean < self._patience:
            return ""
        self._own = min(2 * before, self._highest)
        epochs, self._clean, self._just_risen, self._waiting = self._clean, 0, True, None
        return f"{epochs} epochs without congestion: swap ratio {before:g} to {self.ratio:g}"
