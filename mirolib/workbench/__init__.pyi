from mirolib.workbench.compare import labels, over_seeds, pareto, select, unread, unreadable_runs
from mirolib.workbench.folder import RunFolder
from mirolib.workbench.launch import launch
from mirolib.workbench.recording import RecordedRun, run_experiment
from mirolib.workbench.run import Run, Run as RunResult, Run as SavedRun, load_runs, open_run, results_folder
from mirolib.workbench.sweep import Sweep, load_sweep, sweep, sweep_file

# said once more for type checkers, which take an import without a word of it for private
__all__ = [
    "RecordedRun", "Run", "RunFolder", "RunResult", "SavedRun", "Sweep", "labels", "launch", "load_runs", "load_sweep",
    "open_run", "over_seeds", "pareto", "results_folder", "run_experiment", "select", "sweep", "sweep_file", "unread",
    "unreadable_runs",
]  # fmt: skip
