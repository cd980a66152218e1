"""Controllers choose sizes and swap ratio; the memory applies them.

`miro` profiles a `grid` of candidates with a profiler (`probe` or `trials`), calibrates the scores (`calibration`),
prices them (`costs`), lets a selector pick (`selectors`) and adapts to resources (`adaptation`).
"""

from mirolib.controller.adaptation import CongestionPolicy, SwapGovernor
from mirolib.controller.base import Controller, Decision, FixedController
from mirolib.controller.baselines import RandomController, WholeBudgetController
from mirolib.controller.costs import FORWARD_SHARE, CostModel
from mirolib.controller.expectation import Calibration
from mirolib.controller.grid import candidate_grid, least_samples
from mirolib.controller.miro import MiroController
from mirolib.controller.probe import ProbeProfiler
from mirolib.controller.profiler import Profiler, Situation
from mirolib.controller.selectors import SELECTORS, Outlook, Selector, above_cutline
from mirolib.controller.trials import TrialProfiler, full_training

__all__ = [
    "FORWARD_SHARE",
    "SELECTORS",
    "Calibration",
    "CongestionPolicy",
    "Controller",
    "CostModel",
    "Decision",
    "FixedController",
    "MiroController",
    "Outlook",
    "ProbeProfiler",
    "Profiler",
    "RandomController",
    "Selector",
    "Situation",
    "SwapGovernor",
    "TrialProfiler",
    "WholeBudgetController",
    "above_cutline",
    "candidate_grid",
    "full_training",
    "least_samples",
]
