"""The Miro workbench: cost-effective on-device continual learning over a memory hierarchy."""

import sys

from mirolib import energy as energy, paper as paper
from mirolib.base.errors import (
    CorruptRecordError as CorruptRecordError,
    InputError as InputError,
    MiroError as MiroError,
    RunError as RunError,
    StorageError as StorageError,
)
from mirolib.base.moved import MovedFinder as _MovedFinder
from mirolib.controller.base import Controller as Controller, Decision as Decision, FixedController as FixedController
from mirolib.controller.miro import MiroController as MiroController
from mirolib.controller.probe import ProbeProfiler as ProbeProfiler
from mirolib.controller.resources import ResourceMonitor as ResourceMonitor, Resources as Resources
from mirolib.controller.trials import TrialProfiler as TrialProfiler
from mirolib.data import available_datasets as available_datasets, load_dataset as load_dataset
from mirolib.data.dataset import Dataset as Dataset, DatasetSpec as DatasetSpec, Preset as Preset
from mirolib.data.stream import Task as Task, TaskStream as TaskStream
from mirolib.energy.compare import compare as compare
from mirolib.energy.doctor import doctor as doctor
from mirolib.energy.meter import EnergyMeter as EnergyMeter
from mirolib.energy.sensors.rapl import RaplSource as RaplSource
from mirolib.energy.sensors.trace import TraceSource as TraceSource
from mirolib.energy.source import NullSource as NullSource
from mirolib.experiment import injectors as injectors
from mirolib.experiment.experiment import Experiment as Experiment
from mirolib.experiment.loop import Loop as Loop, run as run
from mirolib.experiment.settings import RunSettings as RunSettings
from mirolib.experiment.study import check_study as check_study, run_all as run_all, swapping_cost as swapping_cost
from mirolib.experiment.summary import summarise as summarise
from mirolib.learning.bic import BiC as BiC
from mirolib.learning.learner import (
    ExperienceReplay as ExperienceReplay,
    Finetuning as Finetuning,
    Learner as Learner,
    Method as Method,
)
from mirolib.learning.metrics import AccuracyMatrix as AccuracyMatrix
from mirolib.memory.budget import (
    BudgetSchedule as BudgetSchedule,
    LiveBudget as LiveBudget,
    MemoryBudget as MemoryBudget,
    SystemBudget as SystemBudget,
    parse_budget as parse_budget,
)
from mirolib.memory.config import MemoryConfig as MemoryConfig
from mirolib.memory.storage import Storage as Storage
from mirolib.memory.store_file import Fingerprint as Fingerprint
from mirolib.memory.swapper import (
    Swapper as Swapper,
    SwapPolicy as SwapPolicy,
    UniformSwap as UniformSwap,
    exchanges as exchanges,
)
from mirolib.memory.tiered import Batch as Batch, TieredMemory as TieredMemory
from mirolib.records import EpochRecord as EpochRecord, Event as Event, TaskRecord as TaskRecord
from mirolib.viz import compare as comparison_plots, figures as plots
from mirolib.viz.report import write_report as write_report
from mirolib.viz.setup import setup as setup
from mirolib.workbench.cite import cite as cite
from mirolib.workbench.compare import (
    SETTINGS as SETTINGS,
    over_seeds as over_seeds,
    pareto as pareto,
    select as select,
    unread as unread,
    unreadable_runs as unreadable_runs,
)
from mirolib.workbench.folder import RunFolder as RunFolder
from mirolib.workbench.launch import launch as launch
from mirolib.workbench.recording import (
    RecordedRun as RecordedRun,
    run_experiment as run_experiment,
)
from mirolib.workbench.run import (
    Run as Run,
    Run as RunResult,
    Run as SavedRun,
    load_runs as load_runs,
    open_run as open_run,
)
from mirolib.workbench.sweep import Sweep as Sweep, load_sweep as load_sweep, sweep as sweep, sweep_file as sweep_file

sys.meta_path.insert(0, _MovedFinder())


def load_ipython_extension(shell: object) -> None:
    """Adds the cell magic `%%energy`: `%load_ext mirolib`."""
    from mirolib.energy.magic import register

    register(shell)
