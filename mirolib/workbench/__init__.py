"""Runs on disk: folders, recording, launching, sweeps, and the comparison of what they left."""

from mirolib.workbench.compare import over_seeds, pareto, select, unread, unreadable_runs
from mirolib.workbench.folder import RunFolder, results_folder
from mirolib.workbench.launch import launch
from mirolib.workbench.recording import RecordedRun, run_experiment
from mirolib.workbench.run import Run, Run as RunResult, Run as SavedRun, load_runs, open_run
from mirolib.workbench.sweep import Sweep, load_sweep, sweep, sweep_file
