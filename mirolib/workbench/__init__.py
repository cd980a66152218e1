"""Runs on disk: folders, recording, launching, sweeps, and the comparison of what they left."""

from mirolib.workbench.cite import cite as cite
from mirolib.workbench.compare import (
    over_seeds as over_seeds,
    pareto as pareto,
    select as select,
    unread as unread,
)
from mirolib.workbench.folder import RunFolder as RunFolder, results_folder as results_folder
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
