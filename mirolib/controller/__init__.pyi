from mirolib.controller.adaptation import BudgetGovernor, CongestionPolicy, SwapGovernor
from mirolib.controller.allotment import AllottingController
from mirolib.controller.base import Controller, Decision, FixedController
from mirolib.controller.baselines import RandomController, ShareController, TunedController
from mirolib.controller.expectation import Calibration, CostModel
from mirolib.controller.grid import candidate_grid, least_samples
from mirolib.controller.miro import MiroController
from mirolib.controller.miro_2023 import Miro2023Controller
from mirolib.controller.objective import Objective, parse_objective
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
    "FORWARD_SHARE", "SELECTORS", "AllottingController", "BudgetGovernor", "Calibration", "CongestionPolicy",
    "Controller", "CostModel", "Decision", "FixedController", "Miro2023Controller", "MiroController", "Objective",
    "Outlook", "ProbeProfiler", "ProfileRequest", "Profiler", "RandomController", "SelectionContext", "Selector",
    "ShareController", "Situation", "SwapGovernor", "TrialProfiler", "TunedController",
    "above_cutline", "candidate_grid", "full_training", "least_samples", "parse_objective",
]  # fmt: skip
