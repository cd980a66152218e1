from mirolib import energy, paper
from mirolib.base.errors import CorruptRecordError, InputError, MiroError, RunError, StorageError
from mirolib.controller.base import Controller, Decision, FixedController
from mirolib.controller.miro import MiroController
from mirolib.controller.miro_2023 import Miro2023Controller
from mirolib.controller.probe import ProbeProfiler
from mirolib.controller.resources import ResourceMonitor, Resources
from mirolib.controller.trials import TrialProfiler
from mirolib.data import available_datasets, load_dataset
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.open_stream import OpenStream
from mirolib.data.stream import Task, TaskStream
from mirolib.energy.compare import compare
from mirolib.energy.doctor import doctor
from mirolib.energy.meter import EnergyMeter
from mirolib.energy.sensors.rapl import RaplSource
from mirolib.energy.sensors.trace import TraceSource
from mirolib.energy.source import NullSource
from mirolib.experiment import injectors
from mirolib.experiment.experiment import Experiment
from mirolib.experiment.loop import Loop, run
from mirolib.experiment.settings import RunSettings
from mirolib.experiment.study import check_study, run_all, swapping_cost
from mirolib.experiment.summary import summarise
from mirolib.learning.bic import BiC
from mirolib.learning.learner import ExperienceReplay, Finetuning, Learner, Method
from mirolib.learning.metrics import AccuracyMatrix
from mirolib.learning.trained import TrainedModel
from mirolib.memory.budget import BudgetSchedule, LiveBudget, MemoryBudget, SystemBudget, parse_budget
from mirolib.memory.config import MemoryConfig
from mirolib.memory.storage import Storage
from mirolib.memory.store_file import Fingerprint
from mirolib.memory.swapper import Swapper, SwapPolicy, UniformSwap, exchanges
from mirolib.memory.tiered import Batch, TieredMemory
from mirolib.records import EpochRecord, Event, TaskRecord
from mirolib.viz import compare as comparison_plots, figures as plots
from mirolib.viz.report import write_report
from mirolib.viz.setup import setup
from mirolib.workbench.compare import SETTINGS, labels, over_seeds, pareto, select, unread, unreadable_runs
from mirolib.workbench.folder import RunFolder
from mirolib.workbench.launch import launch
from mirolib.workbench.recording import RecordedRun, run_experiment
from mirolib.workbench.run import Run, Run as RunResult, Run as SavedRun, cite, load_model, load_runs, open_run
from mirolib.workbench.sweep import Sweep, load_sweep, sweep, sweep_file

# said once more for type checkers, which take an import without a word of it for private
__all__ = [
    "SETTINGS", "AccuracyMatrix", "Batch", "BiC", "BudgetSchedule", "Controller", "CorruptRecordError", "Dataset",
    "DatasetSpec", "Decision", "EnergyMeter", "EpochRecord", "Event", "ExperienceReplay", "Experiment", "Finetuning",
    "Fingerprint", "FixedController", "InputError", "Learner", "LiveBudget", "Loop", "MemoryBudget", "MemoryConfig",
    "Method", "Miro2023Controller", "MiroController", "MiroError", "NullSource", "OpenStream", "Preset",
    "ProbeProfiler", "RaplSource", "RecordedRun", "ResourceMonitor", "Resources", "Run", "RunError", "RunFolder",
    "RunResult", "RunSettings", "SavedRun", "Storage", "StorageError", "SwapPolicy", "Swapper", "Sweep", "SystemBudget",
    "Task", "TaskRecord", "TaskStream", "TieredMemory", "TraceSource", "TrainedModel", "TrialProfiler", "UniformSwap",
    "available_datasets", "check_study", "cite", "compare", "comparison_plots", "doctor", "energy", "exchanges",
    "injectors", "labels", "launch", "load_dataset", "load_model", "load_runs", "load_sweep", "open_run", "over_seeds",
    "paper", "pareto", "parse_budget", "plots", "run", "run_all", "run_experiment", "select", "setup", "summarise",
    "swapping_cost", "sweep", "sweep_file", "unread", "unreadable_runs", "write_report",
]  # fmt: skip

def load_ipython_extension(shell: object) -> None: ...
