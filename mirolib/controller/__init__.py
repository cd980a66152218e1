"""Controllers choose work, sizes and swap ratio; learner and memory apply them.

`miro` ends each task where an `objective` says, by the `curve` of held-out samples; RAM goes by rule (`allotment`).
`miro_2023` is the paper's: it profiles a `grid` of sizes with a profiler (`probe` or `trials`), says what each is
expected to reach and to cost (`expectation`) and lets a selector rank them (`selectors`). Both adapt to
resources (`adaptation`); `baselines` are what they are compared with.
"""

from mirolib.base.faces import wear as _wear

__all__ = _wear(__name__)
