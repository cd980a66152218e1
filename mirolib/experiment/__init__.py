"""One run: its settings, the parts built from them, and the training loop."""

from mirolib.experiment.checkpoint import read_checkpoint as read_checkpoint
from mirolib.experiment.experiment import Disturbance as Disturbance, Experiment as Experiment
from mirolib.experiment.loop import Loop as Loop, run as run
from mirolib.experiment.settings import RunSettings as RunSettings
from mirolib.experiment.study import check_study as check_study, run_all as run_all
from mirolib.experiment.summary import summarise as summarise
