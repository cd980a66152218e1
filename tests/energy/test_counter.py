"""Running counters: what lies between two readings, and what no reading tells."""

import math

import numpy as np

from mirolib.energy import Availability, CounterSource


class Counter(CounterSource):
    """Counters that say what a function of time does."""

    name, kind, scope, update_s, unit_j = "counter", "measured", "test", 0.1, 1e-3

    def __init__(self, counts):
        super().__init__()
        self.now, self.counts, self.clock = 0.0, counts, lambda: self.now

    def probe(self):
        return Availability(True, "a function")

    def read(self):
        return self.counts(self.now)

    def meter(self, instants, start_s, end_s):
        for self.now in instants:
            self.mark()
        return self.measure(start_s, end_s)


def test_a_counter_s_band_holds_what_came_before_the_window():
    def counts(now):
        seen = math.floor(now / 0.1 + phase) * 0.1 - phase * 0.1  # as of the last update
        return {"a": round(1000 * (400 * min(seen, 5) + 60 * max(0, seen - 5)))}

    rng, inside = np.random.default_rng(0), 0
    for _ in range(100):
        phase = rng.uniform(0, 1)
        found = Counter(counts).meter(np.arange(1.0, 8.0), 5.0, 7.0)
        inside += found.low_j <= 120 <= found.high_j
    assert inside >= 95


def test_a_counter_that_freezes_within_a_window_is_not_taken_as_measured():
    source = Counter(lambda now: {"a": round(100 * min(now, 3.0)), "b": round(10 * now)})
    found = source.meter(np.arange(31.0), 0.0, 30.0)
    assert found.coverage < 0.25 and "counter a stands still" in found.note
