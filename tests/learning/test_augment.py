from dataclasses import replace

import numpy as np
import torch
from torchvision.transforms import functional

from mirolib.data import DIGITS
from mirolib.learning.inputs import Transform

SPEC = replace(DIGITS, sample_shape=(3, 8, 8), scale=255.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), crop_padding=0)
RAW = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
CPU = torch.device("cpu")


def normalised(raw: np.ndarray) -> torch.Tensor:
    """Torchvision's ToTensor and Normalize."""
    return functional.normalize(torch.from_numpy(raw).float() / 255, SPEC.mean, SPEC.std)


def test_evaluation_and_training_without_augmentation_are_torchvisions_normalisation():
    transform = Transform(SPEC, CPU, 0)
    torch.testing.assert_close(transform.evaluate(RAW), normalised(RAW))
    torch.testing.assert_close(transform.train(RAW), normalised(RAW))


def test_every_training_image_is_one_of_torchvisions_crops_and_all_occur():
    """Pad, crop, mirror: each result equals torchvision's for exactly one offset and mirroring."""
    spec = replace(SPEC, crop_padding=1, flip=True)
    before = RAW.copy()
    out = Transform(spec, CPU, 0).train(RAW)
    np.testing.assert_array_equal(RAW, before)
    seen = np.zeros((3, 3, 2))
    for image, result in zip(RAW, out, strict=True):
        padded = functional.pad(torch.from_numpy(image), [1, 1, 1, 1])
        for top in range(3):
            for left in range(3):
                crop = functional.crop(padded, top, left, 8, 8)
                for mirrored, view in enumerate((crop, functional.hflip(crop))):
                    seen[top, left, mirrored] += torch.allclose(normalised(view.numpy()[None])[0], result, atol=1e-5)
    assert seen.sum() == 300 and seen.min() >= 4  # 16.7 expected of each, standard deviation 4


def test_mirroring_alone_leaves_the_batch_as_it_was():
    before = RAW.copy()
    Transform(replace(SPEC, flip=True), CPU, 0).train(RAW)
    np.testing.assert_array_equal(RAW, before)


def test_the_seed_decides():
    spec = replace(SPEC, crop_padding=2, flip=True)
    one, same, other = (Transform(spec, CPU, seed).train(RAW) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_float_samples_are_not_touched():
    spec = replace(DIGITS, sample_shape=(5,), sample_dtype="float32", scale=1.0, mean=(1.0,), std=(2.0,))
    raw = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    before = raw.copy()
    np.testing.assert_allclose(Transform(spec, CPU, 0).train(raw).numpy(), (before - 1) / 2, rtol=1e-6)
    np.testing.assert_array_equal(raw, before)
