"""Controllers choose sizes and swap ratio; the memory applies them.

`miro` profiles a `grid` of candidates with a profiler (`probe` or `trials`), says what each is expected to reach and to
cost (`expectation`), lets a selector rank them (`selectors`, `table`) and adapts to resources (`adaptation`).
"""

from mirolib.controller.adaptation import (
    BudgetGovernor as BudgetGovernor,
    CongestionPolicy as CongestionPolicy,
    SwapGovernor as SwapGovernor,
)
from mirolib.controller.base import Controller as Controller, Decision as Decision, FixedController as FixedController
from mirolib.controller.baselines import (
    RandomController as RandomController,
    WholeBudgetController as WholeBudgetController,
)
from mirolib.controller.expectation import Calibration as Calibration, CostModel as CostModel
from mirolib.controller.grid import candidate_grid as candidate_grid, least_samples as least_samples
from mirolib.controller.miro import MiroController as MiroController
from mirolib.controller.probe import ProbeProfiler as ProbeProfiler
from mirolib.controller.profiler import (
    Profiler as Profiler,
    ProfileRequest as ProfileRequest,
    ProfileRequest as Situation,
)
from mirolib.controller.selectors import (
    SELECTORS as SELECTORS,
    SelectionContext as Outlook,
    SelectionContext as SelectionContext,
    Selector as Selector,
    above_cutline as above_cutline,
)
from mirolib.controller.trials import TrialProfiler as TrialProfiler, full_training as full_training
from mirolib.energy import FORWARD_SHARE as FORWARD_SHARE
