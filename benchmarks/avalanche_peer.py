"""The peer of `data_path`: Avalanche's Naive strategy with its ReplayPlugin, written as its users write it.

Run as a script by an interpreter that has Avalanche and nothing of this library. It learns a first experience, then,
for each line on its input, one epoch of the second, and answers with that epoch's samples a second.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision import transforms

warnings.simplefilter("ignore")

BATCH, MEMORY = 128, 2000


class Images(Dataset):
    """Random CIFAR-shaped images, kept as torchvision's CIFAR10 keeps them."""

    def __init__(self, per_class: int) -> None:
        """Ten classes."""
        self.targets = np.repeat(np.arange(10), per_class).tolist()
        self.data = np.random.default_rng(0).integers(0, 256, (len(self.targets), 32, 32, 3), dtype=np.uint8)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """An image and its class."""
        return Image.fromarray(self.data[index]), self.targets[index]


def main(per_class: int, epochs: int) -> None:
    """Trains, one epoch a line of input."""
    from avalanche.benchmarks import nc_benchmark  # may be missing where this file is only imported
    from avalanche.training import Naive
    from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin, SupervisedPlugin

    class Clock(SupervisedPlugin):
        """Waits for its turn before each epoch of the second experience and reports its speed after it."""

        def before_training_epoch(self, strategy, **kwargs):  # type: ignore[no-untyped-def]
            if strategy.clock.train_exp_counter == 1:
                sys.stdin.readline()
            self.samples, self.start = 0, time.perf_counter()

        def after_training_iteration(self, strategy, **kwargs):  # type: ignore[no-untyped-def]
            self.samples += len(strategy.mb_y)

        def after_training_epoch(self, strategy, **kwargs):  # type: ignore[no-untyped-def]
            if strategy.clock.train_exp_counter == 1:
                sys.stdout.write(f"speed {self.samples / (time.perf_counter() - self.start)}\n")
                sys.stdout.flush()

    normalise = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.3,) * 3)]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    benchmark = nc_benchmark(
        Images(per_class),
        Images(1),
        n_experiences=2,
        task_labels=False,
        train_transform=transforms.Compose(augment + normalise),
        eval_transform=transforms.Compose(normalise),
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=epochs,
        plugins=[ReplayPlugin(mem_size=MEMORY), Clock()],
        evaluator=EvaluationPlugin(),  # no metrics and no logger: the default ones would make it slower
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
