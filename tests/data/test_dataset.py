import numpy as np
import pytest
from sklearn.datasets import load_digits

from mirolib import Dataset, InputError, available_datasets, load_dataset
from mirolib.learning.learner import Learner


def arrays(n=12, shape=(1, 4, 4), classes=3):
    samples = np.arange(n * int(np.prod(shape)), dtype=np.uint8).reshape(n, *shape)
    return samples, np.arange(n) % classes


def made(samples, labels, **options):
    """A data set that is tested on its first three samples."""
    return Dataset.from_arrays(samples, labels, samples[:3], labels[:3], **options)


def test_digits_are_scikit_learns_in_a_fixed_stratified_split():
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.test)) == (1400, 397)
    together = np.concatenate([digits.train.data, digits.test.data])[:, 0]
    bundled = load_digits().images.astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, bundled))
    for split in (digits.train, digits.test):
        counts = np.bincount(split.labels)
        assert len(counts) == 10 and counts.max() - counts.min() <= 8
    assert digits.fingerprint == load_dataset("digits").fingerprint


def test_own_arrays_in_three_lines():
    samples, labels = arrays()
    dataset = Dataset.from_arrays(samples, labels, samples[:3], labels[:3])
    learner = Learner(dataset.spec, dataset.spec.preset())
    learner.grow((0, 1, 2))
    assert learner.predict(samples).shape == (12,)


def test_labels_of_any_value_become_classes_in_sorted_order():
    samples, labels = arrays()
    dataset = made(samples, labels * 10 - 7)
    assert dataset.class_names == ("-7", "3", "13")
    np.testing.assert_array_equal(dataset.train.labels, labels)


def test_greyscale_images_get_a_channel_and_floats_stay_floats():
    samples, labels = arrays(shape=(4, 4))
    dataset = made(samples.astype(np.float64), labels, layout="images")
    assert dataset.spec.sample_shape == (1, 4, 4) and dataset.spec.sample_dtype == "float32"


def test_feature_vectors_get_a_model_that_takes_them():
    dataset = made(*arrays(shape=(5,)))
    assert Learner(dataset.spec, dataset.spec.preset()).head.feature_dim == 256


def test_another_pixel_is_another_fingerprint():
    samples, labels = arrays()
    changed = samples.copy()
    changed[3, 0, 0, 0] += 1  # which is no test sample
    assert made(samples, labels).fingerprint != made(changed, labels).fingerprint


def bad(change):
    samples, labels = arrays()
    parts = {"a": samples, "b": labels, "c": samples[:3], "d": labels[:3]}
    parts.update(change(**parts))
    return parts.values()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a, b, c, d: {"b": b.astype(float)}, "give integers or texts"),
        (lambda a, b, c, d: {"b": b[:-1]}, "give one each"),
        (lambda a, b, c, d: {"a": a[:0], "b": b[:0]}, "n > 0"),
        (lambda a, b, c, d: {"c": c[:, :, :3]}, "make them agree"),
        (lambda a, b, c, d: {"d": d + 9}, r"Labels \[9, 10, 11\] occur in test alone"),
        (lambda a, b, c, d: {"c": c[:2], "d": d[:2]}, r"Labels \[2\] occur in training alone"),
        (lambda a, b, c, d: {"a": np.where(a == 3, np.nan, a), "c": c * 1.0}, "row 0"),
        (lambda a, b, c, d: {"a": [[1, 2], [3]], "b": [0, 1]}, "ragged"),
        (lambda a, b, c, d: {"a": a * 1j, "c": c * 1j}, "real numbers"),
        (lambda a, b, c, d: {"a": a.astype(str), "c": c.astype(str)}, "real numbers"),
    ],
)
def test_bad_arrays_are_refused_with_a_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence):
        Dataset.from_arrays(*bad(change))


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="choose one of digits"):
        load_dataset("mnist")
    with pytest.raises(InputError, match="no preset 'huge'; choose one of small"):
        load_dataset("digits").spec.preset("huge")
    assert made(*arrays(), class_names=np.array(["a", "b", "c"]))
    with pytest.raises(InputError, match="make them agree"):
        made(*arrays(), spec=load_dataset("digits").spec)
    with pytest.raises(InputError, match="2 class names"):
        made(*arrays(), class_names=["a", "b"])


def test_only_data_sets_that_are_there_are_named(tmp_path):
    assert available_datasets(tmp_path) == ["digits"]
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "meta").touch()
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    assert available_datasets(tmp_path) == ["digits", "cifar100", "imagenet1k"]


def test_a_part_is_balanced_spread_and_always_the_same():
    labels = np.repeat(np.arange(4), 10)
    samples = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    whole = Dataset.from_arrays(samples, labels, samples[::5], labels[::5])
    part = whole.subset(per_class=4, test_per_class=1, classes=3)
    assert part.train.read(slice(None)).ravel().tolist() == [0, 3, 6, 9, 10, 13, 16, 19, 20, 23, 26, 29]
    assert part.test.labels.tolist() == [0, 1, 2] and part.class_names == ("0", "1", "2")
    assert whole.subset() is whole and part.fingerprint == whole.subset(4, 1, 3).fingerprint != whole.fingerprint
