"""The Miro workbench: cost-effective on-device continual learning over a memory hierarchy."""

from mirolib import plots
from mirolib.controller import Controller, FixedController
from mirolib.datasets import Dataset, DatasetSpec, Preset, load_dataset
from mirolib.energy import EnergyMeter, NullSource, RaplSource, TraceSource
from mirolib.errors import CorruptRecordError, InputError, MiroError, RunError, StorageError
from mirolib.experiment import Experiment, RunSettings, run_all, summarise
from mirolib.launcher import launch
from mirolib.learner import ExperienceReplay, Finetuning, Learner, Method
from mirolib.loop import EpochRecord, TaskRecord, run
from mirolib.memory import Batch, MemoryConfig, TieredMemory, exchanges
from mirolib.metrics import AccuracyMatrix
from mirolib.resources import ResourceMonitor, Resources
from mirolib.storage import Fingerprint, Storage
from mirolib.stream import Task, TaskStream
from mirolib.swapper import Swapper, SwapPolicy, UniformSwap
from mirolib.workbench import RunFolder, RunResult, load_runs, run_experiment

__all__ = [
    "AccuracyMatrix",
    "Batch",
    "Controller",
    "CorruptRecordError",
    "Dataset",
    "DatasetSpec",
    "EnergyMeter",
    "EpochRecord",
    "ExperienceReplay",
    "Experiment",
    "Finetuning",
    "Fingerprint",
    "FixedController",
    "InputError",
    "Learner",
    "MemoryConfig",
    "Method",
    "MiroError",
    "NullSource",
    "Preset",
    "RaplSource",
    "ResourceMonitor",
    "Resources",
    "RunError",
    "RunFolder",
    "RunResult",
    "RunSettings",
    "Storage",
    "StorageError",
    "SwapPolicy",
    "Swapper",
    "Task",
    "TaskRecord",
    "TaskStream",
    "TieredMemory",
    "TraceSource",
    "UniformSwap",
    "exchanges",
    "launch",
    "load_dataset",
    "load_runs",
    "plots",
    "run",
    "run_all",
    "run_experiment",
    "summarise",
]
