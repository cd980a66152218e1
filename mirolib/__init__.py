"""The Miro workbench: cost-effective on-device continual learning over a memory hierarchy."""

from mirolib import comparison_plots, energy, injectors, paper, plots
from mirolib.bic import BiC
from mirolib.budgets import BudgetSchedule, LiveBudget, MemoryBudget, SystemBudget, parse_budget
from mirolib.comparison import SETTINGS, SavedRun, open_run, over_seeds, pareto, select, unread
from mirolib.controller import Controller, Decision, FixedController, MiroController, ProbeProfiler, TrialProfiler
from mirolib.datasets import Dataset, DatasetSpec, Preset, available_datasets, load_dataset
from mirolib.energy import EnergyMeter, NullSource, RaplSource, TraceSource, compare, doctor
from mirolib.errors import CorruptRecordError, InputError, MiroError, RunError, StorageError
from mirolib.experiment import Experiment, RunSettings
from mirolib.launcher import launch
from mirolib.learner import ExperienceReplay, Finetuning, Learner, Method
from mirolib.loop import Loop, run
from mirolib.memory import Batch, MemoryConfig, TieredMemory
from mirolib.metrics import AccuracyMatrix
from mirolib.recording import RecordedRun, RunResult, run_experiment
from mirolib.records import EpochRecord, Event, TaskRecord
from mirolib.report import write_report
from mirolib.resources import ResourceMonitor, Resources
from mirolib.start import setup
from mirolib.storage import Fingerprint, Storage
from mirolib.stream import Task, TaskStream
from mirolib.study import check_study, run_all
from mirolib.summary import summarise
from mirolib.swap_cost import swapping_cost
from mirolib.swapper import Swapper, SwapPolicy, UniformSwap, exchanges
from mirolib.sweeps import Sweep, load_sweep, sweep, sweep_file
from mirolib.workbench import RunFolder, load_runs

__all__ = [
    "SETTINGS",
    "AccuracyMatrix",
    "Batch",
    "BiC",
    "BudgetSchedule",
    "Controller",
    "CorruptRecordError",
    "Dataset",
    "DatasetSpec",
    "Decision",
    "EnergyMeter",
    "EpochRecord",
    "Event",
    "ExperienceReplay",
    "Experiment",
    "Finetuning",
    "Fingerprint",
    "FixedController",
    "InputError",
    "Learner",
    "LiveBudget",
    "Loop",
    "MemoryBudget",
    "MemoryConfig",
    "Method",
    "MiroController",
    "MiroError",
    "NullSource",
    "Preset",
    "ProbeProfiler",
    "RaplSource",
    "RecordedRun",
    "ResourceMonitor",
    "Resources",
    "RunError",
    "RunFolder",
    "RunResult",
    "RunSettings",
    "SavedRun",
    "Storage",
    "StorageError",
    "SwapPolicy",
    "Swapper",
    "Sweep",
    "SystemBudget",
    "Task",
    "TaskRecord",
    "TaskStream",
    "TieredMemory",
    "TraceSource",
    "TrialProfiler",
    "UniformSwap",
    "available_datasets",
    "check_study",
    "compare",
    "comparison_plots",
    "doctor",
    "energy",
    "exchanges",
    "injectors",
    "launch",
    "load_dataset",
    "load_runs",
    "load_sweep",
    "open_run",
    "over_seeds",
    "paper",
    "pareto",
    "parse_budget",
    "plots",
    "run",
    "run_all",
    "run_experiment",
    "select",
    "setup",
    "summarise",
    "swapping_cost",
    "sweep",
    "sweep_file",
    "unread",
    "write_report",
]


def load_ipython_extension(shell: object) -> None:
    """Adds the cell magic `%%energy`: `%load_ext mirolib`."""
    from mirolib.energy.magic import register

    register(shell)
