"""The continual learner: models, methods, augmentation and metrics."""

from mirolib.learning.bic import BiC as BiC
from mirolib.learning.inputs import Tally as Tally, Transform as Transform
from mirolib.learning.learner import (
    ExperienceReplay as ExperienceReplay,
    Finetuning as Finetuning,
    Learner as Learner,
    Method as Method,
    binary_cross_entropy as binary_cross_entropy,
    train_epoch as train_epoch,
)
from mirolib.learning.methods import METHODS as METHODS, ErAce as ErAce, LwF as LwF
from mirolib.learning.metrics import AccuracyMatrix as AccuracyMatrix
from mirolib.learning.models import MODELS as MODELS
