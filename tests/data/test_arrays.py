"""A stranger's arrays: what is recognised, what is asked for, and that the defaults learn on them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mirolib import Dataset, DatasetSpec, InputError, Preset, RunSettings, run_experiment
from mirolib.data.arrays import statistics

PRESET = Preset("mlp-bn", 2, 1, 8, 0.1, 10, 10, 0.5, epoch_of="buffers")


def made(samples, classes=2, **options):
    labels = np.arange(len(samples)) % classes
    return Dataset.from_arrays(samples, labels, samples[: 2 * classes], labels[: 2 * classes], **options)


def drawn(*shape, dtype=float):
    return np.random.default_rng(0).integers(0, 200, (12, *shape)).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "kept", "model", "channels"),
    [
        ((8,), float, "", (8,), "mlp-bn", 8),
        ((8, 8), np.uint8, "", (1, 8, 8), "cnn", 1),
        ((3, 8, 8), float, "", (3, 8, 8), "cnn", 3),
        ((40, 50), float, "images", (1, 40, 50), "cnn", 1),
        ((25, 20), float, "windows", (1, 25, 20), "cnn1d", 20),
        ((20, 25), float, "channels-first", (1, 25, 20), "cnn1d", 20),
        ((1, 30, 4), float, "windows", (1, 30, 4), "cnn1d", 4),
        ((5, 4), float, "table", (20,), "mlp-bn", 20),
        ((8, 9, 3), np.uint8, "", (3, 8, 9), "cnn", 3),
        ((8, 9, 2), np.uint8, "channels-last", (2, 8, 9), "cnn", 2),
    ],
)
def test_a_layout_gives_shape_model_and_statistics(shape, dtype, layout, kept, model, channels):
    spec = made(drawn(*shape, dtype=dtype), layout=layout).spec
    assert (spec.sample_shape, spec.preset().model, len(spec.mean)) == (kept, model, channels)


@pytest.mark.parametrize(
    ("shape", "kept"), [((30, 4), (1, 30, 4)), ((3, 96), (1, 96, 3)), ((1, 800), (1, 800, 1)), ((800, 1), (1, 800, 1))]
)
def test_what_is_guessed_is_said(shape, kept):
    samples = drawn(*shape)
    with pytest.warns(UserWarning, match=r"are taken for \d+ steps of \d+ sensors; say so by layout="):
        dataset = made(samples)
    assert dataset.spec.sample_shape == kept and dataset.spec.preset().model == "cnn1d"
    last = samples[5] if shape[0] >= shape[1] else samples[5].T
    np.testing.assert_array_equal(dataset.train.read(slice(5, 6))[0, 0], last.astype(np.float32))


def test_what_can_not_be_told_is_asked_for():
    with pytest.raises(InputError, match=r"\(25, 20\) may be images or windows; say which by layout: table, images"):
        made(drawn(25, 20))
    with pytest.raises(InputError, match="no layout 'wide'; choose one of table"):
        made(drawn(25, 20), layout="wide")
    with pytest.raises(InputError, match=r"\(3, 8, 8\) are no windows"):
        made(drawn(3, 8, 8), layout="windows")


def test_statistics_are_numpys_in_chunks_and_constants_are_left_alone(monkeypatch):
    monkeypatch.setattr("mirolib.data.arrays._CHUNK_BYTES", 1000)
    samples = np.random.default_rng(1).normal([5e4, 0, 1013.25, -3], [2e4, 1, 0.02, 0], (200, 6, 4))
    mean, std = statistics(samples, -1, np.arange(200))
    np.testing.assert_allclose(mean, samples.mean(axis=(0, 1)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(std[:3], samples.std(axis=(0, 1))[:3], rtol=1e-6)
    assert std[3] == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"presets": {}}, "has no presets; give one"),
        ({"mean": (0.5,), "std": (0.2, 0.2, 0.2)}, "give one value, or 3, of each"),
        ({"mean": (0.5, 0.5)}, r"\(0.5, 0.5\).*give one value, or 3, of each"),
        ({"std": (0.0, 0.1, 0.1), "mean": (0.5, 0.5, 0.5)}, "not above 0"),
        ({"scale": 1.0, "mean": (0.5,), "std": (0.2,)}, "set scale to 255"),
        ({"sample_shape": (8,), "flip": True}, "flip and crop_padding are for images"),
        ({"sample_dtype": "int16"}, "give uint8, float32 or jpeg"),
    ],
)
def test_a_spec_checks_itself(change, sentence):
    facts = {
        "name": "x",
        "sample_shape": (3, 8, 8),
        "sample_dtype": "uint8",
        "presets": {"small": PRESET},
        "scale": 255.0,
    }
    with pytest.raises(InputError, match=sentence):
        DatasetSpec(**facts | change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"milestones": 5}, "milestones are 5; give epochs"), ({"milestones": (3,)}, "it is 'falling'; choose one"),
        ({"epochs": 0}, "epochs is 0"), ({"epochs": 1.5}, "epochs is 1.5"), ({"lr": 0}, "lr is 0"),
        ({"swap_ratio": 2}, "swap_ratio is 2"), ({"fall": 0}, "fall is 0"), ({"batch_size": True}, "size is True"),
    ],
)  # fmt: skip
def test_a_preset_checks_itself(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(PRESET, **change)


def table(rng, labels):
    """Seven columns that tell the class, and one of another unit that tells nothing."""
    found = rng.normal(size=(len(labels), 8))
    found[np.arange(len(labels)), labels] += 3
    found[:, 7] = rng.normal(50_000, 20_000, len(labels))
    return found


def windows(rng, labels):
    """Four sensors that swing at the class's frequency, one of them in hectopascal."""
    at, phase = np.arange(30)[None, :, None] / 30, rng.uniform(0, 6, (len(labels), 1, 4))
    found = np.sin(2 * np.pi * (labels[:, None, None] + 1) * at + phase) + rng.normal(0, 0.7, (len(labels), 30, 4))
    return found * [1, 1, 1, 0.5] + [0, 0, 0, 1013]


def images(rng, labels):
    patterns = np.random.default_rng(9).integers(0, 200, (242, 3, 8, 8))
    return (patterns[labels] + rng.integers(0, 56, (len(labels), 3, 8, 8))).astype(np.uint8)


@pytest.mark.parametrize(
    ("draw", "classes", "each", "layout", "least"),
    [(table, 7, 60, "", 0.75), (windows, 5, 40, "windows", 0.8), (images, 242, 20, "", 0.8)],
)
def test_the_defaults_learn_on_a_stranger_s_data(tmp_path, draw, classes, each, layout, least):
    rng = np.random.default_rng(0)
    labels, test_labels = np.repeat(np.arange(classes), each), np.repeat(np.arange(classes), 10)
    dataset = Dataset.from_arrays(draw(rng, labels), labels, draw(rng, test_labels), test_labels, layout=layout)
    settings = RunSettings(controller="fixed", energy="none", tasks=2, epochs=6 if classes > 99 else None)
    done = run_experiment(settings, dataset=dataset, results=tmp_path, progress=False)
    assert done.summary["final_accuracy"] > least and not done.summary["concerns"]


def with_gradient(samples):
    return torch.from_numpy(samples).requires_grad_()


@pytest.mark.parametrize(
    "given",
    [
        with_gradient, torch.from_numpy, pd.DataFrame, np.ma.masked_array, np.asfortranarray,
        lambda samples: samples.astype(np.float16), lambda samples: samples.tolist(),
    ],
)  # fmt: skip
def test_arrays_of_every_kind_are_taken_as_they_are(given):
    samples = np.random.default_rng(0).integers(0, 99, (12, 8)).astype(np.float32)
    np.testing.assert_array_equal(made(given(samples)).train.read(slice(None)), samples)


@pytest.mark.parametrize(
    ("samples", "labels", "sentence"),
    [
        (np.ma.masked_less(drawn(4), 60), [0, 1] * 6, "Some training samples are masked; fill them in"),
        (drawn(4), np.ma.masked_equal([0, 1] * 6, 0), "Some training labels are masked"),
        (torch.zeros(12, 4, dtype=torch.bfloat16), [0, 1] * 6, "no array"),
        (drawn(4), np.eye(2)[[0, 1] * 6], r"labels \(12, 2\); give one each \(not one-hot\)"),
        (drawn(4), np.array(["a", 1] * 6, dtype=object), "give integers or texts"),
        (drawn(4), [None, "b"] * 6, "give integers or texts"),
        (drawn(4), [0.5, 1] * 6, "give integers or texts"),
    ],
)
def test_arrays_that_would_be_taken_for_others_are_refused(samples, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        Dataset.from_arrays(samples, labels, drawn(4), [0, 1] * 6)


def test_texts_and_columns_of_labels_are_labels():
    samples = drawn(4)
    dataset = Dataset.from_arrays(samples, ["cat", "ant"] * 6, samples[:2], ["ant", "cat"])
    assert dataset.class_names == ("ant", "cat") and dataset.test.labels.tolist() == [0, 1]
    assert Dataset.from_arrays(samples, np.arange(12)[:, None] % 2, samples[:2], [[0], [1]]).class_names == ("0", "1")
    with pytest.raises(InputError, match="Some labels are texts and some integers"):
        Dataset.from_arrays(samples, ["cat", "ant"] * 6, samples[:2], [0, 1])
    names = [Dataset.from_arrays(samples, [a, "ant"] * 6, samples[:2], ["ant", a]).fingerprint for a in ("cat", "cow")]
    assert names[0] != names[1]


def test_a_spec_takes_channels_last_too():
    samples = drawn(3, 8, 9, dtype=np.uint8)
    spec = made(samples).spec
    again = made(samples.transpose(0, 2, 3, 1), spec=spec)
    np.testing.assert_array_equal(again.train.read(slice(None)), samples)
