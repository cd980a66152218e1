"""Controllers choose sizes and swap ratio; the memory applies them.

`miro` profiles a `grid` of candidates with a profiler (`probe` or `trials`), says what each is expected to reach and to
cost (`expectation`), lets a selector rank them (`selectors`, `table`) and adapts to resources (`adaptation`).
"""

from mirolib.controller.adaptation import BudgetGovernor, CongestionPolicy, SwapGovernor
from mirolib.controller.base import Controller, Decision, FixedController
from mirolib.controller.baselines import RandomController, WholeBudgetController
from mirolib.controller.expectation import Calibration, CostModel
from mirolib.controller.grid import candidate_grid, least_samples
from mirolib.controller.miro import MiroController
from mirolib.controller.probe import ProbeProfiler
from mirolib.controller.profiler import Profiler, ProfileRequest, ProfileRequest as Situation
from mirolib.controller.selectors import (
    SELECTORS,
    SelectionContext,
    SelectionContext as Outlook,
    Selector,
    above_cutline,
)
from mirolib.controller.trials import TrialProfiler, full_training
from mirolib.energy import FORWARD_SHARE

# said once more for type checkers, which take an import without a word of it for private
__all__ = [
    "FORWARD_SHARE", "SELECTORS", "BudgetGovernor", "Calibration", "CongestionPolicy", "Controller", "CostModel",
    "Decision", "FixedController", "MiroController", "Outlook", "ProbeProfiler", "ProfileRequest", "Profiler",
    "RandomController", "SelectionContext", "Selector", "Situation", "SwapGovernor", "TrialProfiler",
    "WholeBudgetController", "above_cutline", "candidate_grid", "full_training", "least_samples",
]  # fmt: skip
