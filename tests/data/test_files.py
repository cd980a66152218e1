import logging
import os
import pickle
import re
import shutil
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media import full_disk
from pictures import encoded
from PIL import Image
from subsets import MUTANTS, fuzz, real

from mirolib import DatasetSpec, InputError, TaskStream, load_dataset
from mirolib.data import LOADERS, cifar100, dsads, tiny_imagenet
from mirolib.data.cifar100 import read_pickle
from mirolib.data.files import cached_samples, stamp_of
from mirolib.learning.models import MODELS

NAMES = ("cifar100", "tiny-imagenet", "dsads")


# Small sets of the original layouts


def py2_pickle(data, fine_labels, names):
    """A pickle as Python 2 wrote CIFAR's: texts and array content as byte strings."""

    def text(value):
        value = value.encode() if isinstance(value, str) else value
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def numbers(values):
        return (
            b"](" + b"".join(b"K" + bytes([v]) if 0 <= v < 256 else b"J" + struct.pack("<i", v) for v in values) + b"e"
        )

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text("b") + b"\x87R"
        b"(K\x01" + b"".join(b"M" + struct.pack("<H", n) for n in data.shape) + b"\x86cnumpy\ndtype\n" + text("u1")
        + b"\x89\x88\x87R(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text(data.tobytes()) + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(map(text, names)) + b"e"
    parts = (text("filenames"), listed, text("fine_labels"), numbers(fine_labels), text("data"), array)
    return b"\x80\x02}q\x00(" + b"".join(parts) + b"u."


@pytest.fixture
def cifar(tmp_path):
    """Three classes, two training images and one test image each."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, labels in (("train", [4, 4, 7, 7, 99, 99]), ("test", [99, 4, 7])):
        data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        (folder / part).write_bytes(py2_pickle(data, labels, [f"{k}.png" for k in labels]))
    meta = {"fine_label_names": [f"class {label}" for label in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


@pytest.fixture
def tiny(tmp_path):
    """Two classes, three training images and one test image each."""
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    wnids = ("n00000002", "n00000001")
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "words.txt").write_text("n00000001\tcat, tom\nn00000002\tdog\nn00000003\towl\n")
    (folder / "val" / "val_annotations.txt").write_text(
        "v0.JPEG\tn00000001\t0\t0\t9\t9\nv1.JPEG\tn00000002\t0\t0\t9\t9\n"
    )
    for number, wnid in enumerate(wnids):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        for image in range(3):
            (folder / "train" / wnid / "images" / f"{wnid}_{image}.JPEG").write_bytes(encoded(seed=10 * number + image))
        (folder / "val" / "images" / f"v{number}.JPEG").write_bytes(encoded(seed=100 + number))
    return folder


def segment(seed):
    rows = np.random.default_rng(seed).normal(seed, 1, (125, 45))
    return "".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in rows)


@pytest.fixture
def sports(tmp_path):
    """Two activities of one person, five segments each."""
    folder = tmp_path / "data"
    for activity in ("a01", "a19"):
        (folder / activity / "p3").mkdir(parents=True)
        for number in range(1, 6):
            (folder / activity / "p3" / f"s{number:02d}.txt").write_text(segment(number))
    return folder


# The real subsets


@real
@pytest.mark.parametrize("name", NAMES)
def test_subsets_are_read_fast_and_warm_faster(subset, name):
    start = time.perf_counter()
    dataset = load_dataset(name, root=subset(name), preset="paper")
    cold = time.perf_counter()
    assert dataset.fingerprint == load_dataset(name, root=subset(name), preset="paper").fingerprint
    assert cold - start < 30 and time.perf_counter() - cold < 3


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("digits", 0.001),
        pytest.param("cifar100", 0.003, marks=real),
        pytest.param("tiny-imagenet", 0.01, marks=real),
        pytest.param("urbansound8k", 0.005, marks=real),
    ],
)
def test_statistics_of_the_spec_are_those_of_the_training_samples(request, name, within):
    root = None if name == "digits" else request.getfixturevalue("subset")(name)
    dataset = load_dataset(name, root=root, preset="" if name == "digits" else "paper")
    every = 5 if name == "tiny-imagenet" else 1  # which would take half a gigabyte
    scaled = dataset.train.data[::every] / np.float32(dataset.spec.scale)
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), dataset.spec.mean, atol=within)
    np.testing.assert_allclose(scaled.std(axis=(0, 2, 3)), dataset.spec.std, atol=within)


def check_counts(dataset, train, test, classes=100):
    """All classes have the same number of samples."""
    assert len(dataset.class_names) == classes
    for part, count in ((dataset.train, train), (dataset.test, test)):
        assert np.bincount(part.labels).tolist() == [count] * classes


@real
def test_cifar100_holds_the_published_pixels(subset):
    dataset = load_dataset("cifar100", root=subset("cifar100"), preset="paper")
    check_counts(dataset, 100, 20)
    train = dataset.train.data
    assert train.shape[1:] == (3, 32, 32) and train.dtype == np.uint8
    assert train[0].ravel()[:3].tolist() == [255, 255, 255] and train[0].ravel()[-3:].tolist() == [10, 59, 79]
    assert train[1].ravel()[:3].tolist() == [255, 253, 253] and train[1].ravel()[-3:].tolist() == [253, 253, 255]
    assert dataset.train.labels[:2].tolist() == [19, 29]
    names = dataset.class_names
    assert (names[0], names[19], names[29], names[99]) == ("apple", "cattle", "dinosaur", "worm")


@real
def test_tiny_imagenet_holds_what_its_files_say(subset):
    dataset = load_dataset("tiny-imagenet", root=subset("tiny-imagenet"), preset="paper")
    check_counts(dataset, 100, 20)
    assert dataset.class_names[:3] == ("Egyptian cat", "rocking chair", "bullfrog")
    folder = subset("tiny-imagenet") / "tiny-imagenet-200"
    first = np.asarray(Image.open(folder / "train/n02124075/images/n02124075_0.JPEG").convert("RGB"))
    np.testing.assert_array_equal(dataset.train.data[0], first.transpose(2, 0, 1))
    line = (folder / "val/val_annotations.txt").read_text().splitlines()[7].split("\t")
    tested = np.asarray(Image.open(folder / "val/images" / line[0]).convert("RGB"))
    np.testing.assert_array_equal(dataset.test.data[7], tested.transpose(2, 0, 1))
    assert (folder / "wnids.txt").read_text().split()[dataset.test.labels[7]] == line[1]


@real
def test_dsads_is_split_by_segment_and_standardised(subset):
    dataset = load_dataset("dsads", root=subset("dsads"), preset="paper")
    check_counts(dataset, 96, 24, 19)
    assert dataset.class_names[0] == "sitting" and dataset.class_names[18] == "playing basketball"
    assert dataset.train.data.shape[1:] == (1, 125, 45) and dataset.train.data.dtype == np.float32
    np.testing.assert_allclose(dataset.train.data.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(dataset.train.data.std(axis=(0, 1, 2)), 1, atol=1e-4)
    raw = np.loadtxt(subset("dsads") / "data/a01/p1/s01.txt", delimiter=",")
    assert raw[0, 0] == 8.1305
    third = np.loadtxt(subset("dsads") / "data/a01/p1/s09.txt", delimiter=",")
    scale = (raw[3] - raw[1]) / (dataset.train.data[0, 0, 3] - dataset.train.data[0, 0, 1])
    np.testing.assert_allclose((third[3] - third[1]) / scale, dataset.test.data[0, 0, 3] - dataset.test.data[0, 0, 1],
                               rtol=0.02, atol=1e-3)  # fmt: skip


@real
@pytest.mark.parametrize("name", NAMES)
def test_small_presets_fit_the_subsets(subset, name):
    dataset = load_dataset(name, root=subset(name))
    preset = dataset.spec.preset()
    check_counts(dataset, preset.per_class, preset.test_per_class, len(dataset.class_names))
    assert preset.stream_size <= TaskStream(dataset, preset.tasks).most_samples()[0]


@pytest.mark.parametrize("name", NAMES)
def test_presets_name_models_there_are(name):
    presets = LOADERS[name][0].presets
    assert list(presets) in (["small", "paper"], ["small", "medium", "paper"])
    assert all(preset.model in MODELS for preset in presets.values())


# Parts of a set


def test_some_classes_of_cifar100_will_do(cifar, caplog):
    with caplog.at_level(logging.INFO):
        dataset = load_dataset("cifar100", root=cifar.parent, preset="paper")
    assert dataset.class_names == ("class 4", "class 7", "class 99")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2] and dataset.test.labels.tolist() == [2, 0, 1]
    assert "3 of 100 classes, 6 training and 3 test samples" in caplog.text
    assert load_dataset("cifar100", root=cifar, preset="paper").fingerprint == dataset.fingerprint


def test_cifar100_pickled_by_python_3_is_read_as_well(cifar):
    before = load_dataset("cifar100", root=cifar.parent)
    content = pickle.loads((cifar / "test").read_bytes(), encoding="bytes")
    data, labels = content[b"data"], content[b"fine_labels"]
    readonly = data.copy()
    readonly.flags.writeable = False
    rows = data.tolist()
    meta = pickle.loads((cifar / "meta").read_bytes())
    for protocol in range(6):
        for pixels in (data, readonly, np.asfortranarray(data), rows, tuple(map(tuple, rows))):
            (cifar / "test").write_bytes(pickle.dumps({**content, b"data": pixels}, protocol=protocol))
            assert load_dataset("cifar100", root=cifar.parent).fingerprint == before.fingerprint
        for numbers in (np.array(labels), list(np.array(labels)), tuple(labels), tuple(np.array(labels, np.uint8))):
            (cifar / "test").write_bytes(pickle.dumps({"data": data, "fine_labels": numbers}, protocol=protocol))
            assert load_dataset("cifar100", root=cifar.parent).fingerprint == before.fingerprint
        names = [name.encode() for name in meta["fine_label_names"]]
        (cifar / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=protocol))
        assert load_dataset("cifar100", root=cifar.parent).class_names == before.class_names


def test_modules_of_numpy_1_and_2_are_the_same(cifar):
    content = pickle.loads((cifar / "test").read_bytes(), encoding="bytes")
    content[b"data"] = rows(3)  # in which no byte looks like the begin of a frame
    (cifar / "test").write_bytes(pickle.dumps(content, protocol=2))
    before = load_dataset("cifar100", root=cifar.parent).fingerprint
    content[b"fine_labels"] = list(np.array(content[b"fine_labels"]))
    for protocol in (0, 2):  # which have no lengths of names or frames
        pickled = pickle.dumps(content, protocol=protocol).replace(b"numpy._core.", b"numpy.core.")
        for core in (b"numpy.core.", b"numpy._core."):
            (cifar / "test").write_bytes(pickled.replace(b"numpy.core.", core))
            assert load_dataset("cifar100", root=cifar.parent).fingerprint == before
    by_1 = pickle.dumps(content, protocol=5).replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
    by_1 = by_1.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    (cifar / "test").write_bytes(re.sub(rb"\x95.{8}", b"", by_1, flags=re.S))
    assert load_dataset("cifar100", root=cifar.parent).fingerprint == before


def test_labels_of_numpy_may_be_as_many_as_in_the_full_set():
    for protocol in (2, 5):
        labels = list(np.arange(60_000) % 100)
        assert read_pickle(pickle.dumps(labels, protocol=protocol)) == labels


def test_some_classes_of_tiny_imagenet_will_do(tiny, caplog):
    shutil.rmtree(tiny / "train" / "n00000002")
    (tiny / "train" / "n00000001" / "images" / "n00000001_1.JPEG").unlink()
    (tiny / "train" / "n00000001" / "images" / "._n00000001_0.JPEG").write_bytes(b"left by another system")
    with (tiny / "val" / "val_annotations.txt").open("a") as annotations:
        annotations.write("v9.JPEG\tn00000001\t0\t0\t9\t9\n")
    with caplog.at_level(logging.INFO):
        dataset = load_dataset("tiny-imagenet", root=tiny.parent, preset="paper")
    assert dataset.class_names == ("cat",) and (len(dataset.train), len(dataset.test)) == (2, 1)
    assert "1 of 2 classes, 2 training and 1 test samples" in caplog.text and "1 images of" in caplog.text


def sort_val(tiny, inner):
    """Puts the images of val into folders of their classes; the annotations go."""
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split()[:2]
        (tiny / "val" / wnid / inner).mkdir(parents=True)
        (tiny / "val" / "images" / name).rename(tiny / "val" / wnid / inner / name)
    (tiny / "val" / "images").rmdir()
    (tiny / "val" / "val_annotations.txt").unlink()


def flatten_val(tiny):
    for path in (tiny / "val" / "images").iterdir():
        path.rename(tiny / "val" / path.name)
    (tiny / "val" / "images").rmdir()


def flatten_train(tiny):
    for path in tiny.glob("train/*/images/*"):
        path.rename(path.parents[1] / path.name)
    for path in tiny.glob("train/*"):
        (path / "images").rmdir()
        (path / f"{path.name}_boxes.txt").touch()


@pytest.mark.parametrize(
    "change", [lambda t: sort_val(t, "images"), lambda t: sort_val(t, ""), flatten_val, flatten_train, lambda t: None]
)
def test_tiny_imagenet_is_read_as_others_sort_it(tiny, change):
    before = load_dataset("tiny-imagenet", root=tiny.parent)
    change(tiny)
    for folder in (
        *tiny.glob("train/*/images"),
        *tiny.glob("train/*"),
        *tiny.glob("val/*/images"),
        *tiny.glob("val/*/"),
    ):
        if folder.is_dir():
            (folder / ".ipynb_checkpoints").mkdir()
            (folder / ".ipynb_checkpoints" / "a.JPEG").touch()
            (folder / "._a.JPEG").touch()
    (tiny / "train" / ".ipynb_checkpoints").mkdir()
    after = load_dataset("tiny-imagenet", root=tiny.parent)
    np.testing.assert_array_equal(after.train.data, before.train.data)
    order, expected = (np.argsort(found.test.labels) for found in (after, before))
    np.testing.assert_array_equal(after.test.data[order], before.test.data[expected])
    assert after.test.labels[order].tolist() == before.test.labels[expected].tolist() == [0, 1]


def test_grey_and_cmyk_images_become_rgb(tiny):
    images = tiny / "train" / "n00000002" / "images"
    (images / "n00000002_0.JPEG").write_bytes(encoded(mode="L"))
    (images / "n00000002_1.JPEG").write_bytes(encoded(mode="CMYK"))
    (images / "n00000002_2.JPEG").write_bytes(encoded())
    grey, cmyk, rgb = load_dataset("tiny-imagenet", root=tiny.parent).train.data[:3].astype(int)
    assert (grey == grey[0]).all() and np.abs(grey[0] - rgb.mean(axis=0)).mean() < 25
    assert np.abs(cmyk - rgb).mean() < 10


def test_some_activities_people_and_segments_will_do(sports, caplog):
    (sports / "a19" / "p3" / "s05.txt").unlink()
    with caplog.at_level(logging.INFO):
        dataset = load_dataset("dsads", root=sports.parent, preset="paper")
    assert dataset.class_names == ("sitting", "playing basketball")
    assert (np.bincount(dataset.train.labels).tolist(), np.bincount(dataset.test.labels).tolist()) == ([4, 3], [1, 1])
    assert "2 of 19 classes, 7 training and 2 test samples" in caplog.text
    assert load_dataset("dsads", root=sports, preset="paper").fingerprint == dataset.fingerprint


def test_dsads_is_found_below_a_folder_that_is_called_data(tmp_path, sports):
    root = tmp_path / "root" / "data"
    root.mkdir(parents=True)
    sports.rename(root / "dsads")
    assert len(load_dataset("dsads", root=root).train) == 8


# The cache


def test_a_changed_image_is_decoded_anew_and_the_old_cache_goes(tiny):
    before = load_dataset("tiny-imagenet", root=tiny.parent)
    cache = tiny.parent / "cache"
    (kept,) = cache.iterdir()
    changed = kept.stat().st_mtime_ns
    assert load_dataset("tiny-imagenet", root=tiny.parent).fingerprint == before.fingerprint
    assert kept.stat().st_mtime_ns == changed
    (tiny / "train" / "n00000001" / "images" / "n00000001_1.JPEG").write_bytes(encoded(seed=77))
    assert load_dataset("tiny-imagenet", root=tiny.parent).fingerprint != before.fingerprint
    assert len(list(cache.iterdir())) == 1 and not kept.exists()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40], lambda b: b"", lambda b: b"PK\3\4" + b[4:]])
def test_a_damaged_cache_is_made_anew(sports, damage):
    before = load_dataset("dsads", root=sports.parent)
    (kept,) = (sports.parent / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert load_dataset("dsads", root=sports.parent).fingerprint == before.fingerprint and kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_named(tiny, sports, monkeypatch):
    cache = tiny.parent / "cache"
    cache.write_text("in the way")
    for name in ("tiny-imagenet", "dsads"):
        with pytest.raises(InputError, match=f"The cache {cache} can't be written"):
            load_dataset(name, root=tiny.parent)
    cache.unlink()
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match=r"cache can't be written \(No space left on device\); make .* free space"):
        load_dataset("dsads", root=tiny.parent)
    assert not any(cache.iterdir())


def test_the_cache_may_lie_elsewhere(tiny, sports, tmp_path, monkeypatch):
    before = load_dataset("tiny-imagenet", root=tiny.parent).fingerprint
    shutil.rmtree(tiny.parent / "cache")
    shutil.copytree(tiny, tmp_path / "other" / "tiny", symlinks=True)
    shutil.rmtree(tmp_path / "other" / "tiny" / "train" / "n00000002")
    monkeypatch.setenv("MIRO_CACHE", str(tmp_path / "fast"))
    for root in (tiny.parent, tmp_path / "other"):
        load_dataset("tiny-imagenet", root=root)
        assert not (root / "cache").exists()
    assert len(list((tmp_path / "fast").rglob("*.npy"))) == 2, "sets of two roots don't make room for each other"
    monkeypatch.setattr(tiny_imagenet, "_image", lambda path: pytest.fail("decoded again"))
    assert load_dataset("tiny-imagenet", root=tiny.parent).fingerprint == before
    (tmp_path / "closed").touch()
    monkeypatch.setenv("MIRO_CACHE", str(tmp_path / "closed"))
    with pytest.raises(InputError, match=f"The cache {tmp_path / 'closed'}.* or name another folder with MIRO_CACHE"):
        load_dataset("dsads", root=tiny.parent)


SPEC = DatasetSpec("own [a-z]*", (2,), "float32", presets=LOADERS["dsads"][0].presets)


def read_number(path):
    if path.stem in ("3", "70", "100"):
        raise InputError(f"{path} is broken.")
    return np.array([int(path.stem), 0.5])


def test_files_that_are_broken_are_left_out_if_asked_for(tmp_path, caplog):
    paths = [tmp_path / f"{number}.txt" for number in range(101)]
    kept = [number for number in range(101) if number not in (3, 70, 100)]
    for _ in range(2):
        with pytest.raises(InputError, match=r"3\.txt is broken"):
            cached_samples(tmp_path, SPEC, stamp_of(1), paths, read_number)
        for read in (read_number, lambda path: pytest.fail("read again")):
            caplog.clear()
            samples, there = cached_samples(tmp_path, SPEC, stamp_of(1), paths, read, skip=True)
            assert np.flatnonzero(there).tolist() == kept == samples[:, 0].tolist() and (samples[:, 1] == 0.5).all()
            assert "3 of 101 files can't be read and are left out" in caplog.text
            assert all(str(paths[number]) in caplog.text for number in (3, 70, 100))
    with pytest.raises(InputError, match=r"3\.txt is broken"):
        cached_samples(tmp_path, SPEC, stamp_of(2), [paths[3], paths[70]], read_number, skip=True)
    samples, there = cached_samples(tmp_path, SPEC, stamp_of(3), paths[4:70], read_number, skip=True)
    assert there.all() and len(samples) == 66
    assert len(cached_samples(tmp_path, SPEC, stamp_of(3), paths[4:70], lambda path: pytest.fail("again"))[0]) == 66


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:-101], lambda b: b[:-1] + b"\1", lambda b: b[:-4] + bytes(4)]
)
def test_a_damaged_note_of_what_was_left_out_is_made_anew(tmp_path, damage):
    paths = [tmp_path / f"{number}.txt" for number in range(101)]
    cached_samples(tmp_path, SPEC, stamp_of(1), paths, read_number, skip=True)
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    cached_samples(tmp_path, SPEC, stamp_of(1), paths, read_number, skip=True)
    assert kept.read_bytes() == whole


def test_a_cache_makes_room_for_its_own_name_alone(tmp_path):
    def made(name, stamp):
        spec = replace(SPEC, name=name or SPEC.name)
        cached_samples(tmp_path, spec, stamp_of(stamp), [tmp_path / "1.txt"], read_number)
        return sorted(path.name[:-21] for path in (tmp_path / "cache").iterdir())

    names = ["", "a", "a*", "a[b]", "ab"]
    assert [len(made(name, 1)) for name in names] == [1, 2, 3, 4, 5]
    for name in names:
        assert made(name, 2) == sorted({SPEC.name, *names} - {""})


# Bad input


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_is_told_with_its_address(tmp_path, name):
    with pytest.raises(InputError, match=r"There is no folder .* Get https?://"):
        load_dataset(name, root=tmp_path)


@pytest.mark.parametrize("gone", ["train", "test", "meta"])
def test_missing_files_of_cifar100_are_named(cifar, gone):
    (cifar / gone).unlink()
    with pytest.raises(InputError, match=f"There is no file {cifar / gone}. Get https"):
        load_dataset("cifar100", root=cifar.parent)
    (cifar / gone).mkdir()
    with pytest.raises(InputError, match=f"There is no file {cifar / gone}"):
        load_dataset("cifar100", root=cifar.parent)


@pytest.mark.parametrize("gone", ["wnids.txt", "words.txt", "val/val_annotations.txt", "train"])
def test_missing_files_of_tiny_imagenet_are_named(tiny, gone):
    shutil.rmtree(tiny / gone) if gone == "train" else (tiny / gone).unlink()
    with pytest.raises(InputError, match=str(tiny / gone)):
        load_dataset("tiny-imagenet", root=tiny.parent)


def rows(count):
    return np.zeros((count, 3072), np.uint8)


ROW = [[[0] * 3072] * 1_000_000] * 2  # the same one again and again


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"data": rows(2), "fine_labels": [4, 100]}, "image 1 the label 100, not one of 0 to 99"),
        ({"data": rows(2), "fine_labels": [-1, 4]}, "image 0 the label -1"),
        ({"data": rows(2), "fine_labels": [4, True]}, "image 1 the label bool"),
        ({"data": rows(2), "fine_labels": [4, 1 << 900]}, "image 1 the label int"),
        ({"data": rows(2), "fine_labels": [4]}, "one of fine_labels for each of its 2 images"),
        ({"data": rows(2), "fine_labels": {}}, "one of fine_labels"),
        ({"data": rows(2), "fine_labels": [np.int64(4), np.float64(4)]}, "other than integers"),
        ({"data": [[0] * 3072, [0] * 3071], "fine_labels": [4, 4]}, "rows of 3072 uint8"),
        ({"data": [[0] * 3071 + [256]], "fine_labels": [4]}, "rows of 3072 uint8"),
        ({"data": [3072], "fine_labels": [4]}, "rows of 3072 uint8"),
        ({"data": ROW, "fine_labels": [4]}, "rows of 3072 uint8"),
        ({"data": rows(0), "fine_labels": []}, "rows of 3072 uint8"),
        ({"data": rows(2)[:, :-1], "fine_labels": [4, 4]}, "rows of 3072 uint8"),
        ({"data": rows(2).astype(np.int16), "fine_labels": [4, 4]}, "rows of 3072 uint8"),
        ({"data": rows(2) / 2.0, "fine_labels": [4, 4]}, "other than integers"),
        ({"data": "text", "fine_labels": [4, 4]}, "rows of 3072 uint8"),
        ({"fine_labels": [4, 4]}, "rows of 3072 uint8"),
        ({}, "rows of 3072 uint8"),
        ([1, 2], "holds no dictionary"),
        ({"data": rows(2), "fine_labels": [4, 7]}, "Class class 99 has no test sample in .*; add some or remove"),
        ({"data": rows(4), "fine_labels": [4, 7, 99, 50]}, "Class class 50 has no training sample in"),
        ({"data": np.array([None]), "fine_labels": [4]}, "other than integers"),
    ],
)
def test_wrong_content_of_cifar100_is_refused(cifar, content, sentence):
    (cifar / "test").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(InputError, match=sentence) as refused:
        load_dataset("cifar100", root=cifar.parent)
    assert str(cifar) in str(refused.value)


def test_truncated_pickles_are_refused(cifar):
    whole = (cifar / "train").read_bytes()
    for length in [*range(0, 300, 7), len(whole) // 2, len(whole) - 1]:
        (cifar / "train").write_bytes(whole[:length])
        with pytest.raises(InputError, match="train can't be read.*unpack the archive anew"):
            load_dataset("cifar100", root=cifar.parent)


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_wants_to_run_code_runs_none(cifar, tmp_path, protocol):
    marker = tmp_path / "marker"
    for attack in (
        Runs(os.system, f"touch {marker}"),
        Runs(eval, f"open({str(marker)!r}, 'w')"),
        Runs(Path.touch, marker),
        Runs(getattr, os, "system"),
    ):
        bad = {"data": rows(1), "fine_labels": [attack]} if attack.call[0] is not getattr else attack
        try:
            content = pickle.dumps(bad, protocol=protocol)
        except TypeError:
            content = b"cos\nsystem\n(Vtouch " + str(marker).encode() + b"\ntR."
        (cifar / "test").write_bytes(content)
        with pytest.raises(InputError, match="test can't be read"):
            load_dataset("cifar100", root=cifar.parent)
        assert not marker.exists()


# each tuple of the one before, noted, and then handed to a part of an array
NESTED = b"\x80\x04cnumpy.core.multiarray\n_reconstruct\nq\x00N\x85q\x01" + b"".join(
    b"0h\x00h\x01\x85q\x01R" for _ in range(200_000)
) + b"}(h\x01h\x01u."  # fmt: skip


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",  # bytes of an exabyte
        b"\x80\x04\x96" + struct.pack("<Q", 1 << 40) + b"x.",  # a byte array of a terabyte
        b"\x80\x02N" + b"r\xff\xff\xff\x7f" * 9 + b"0.",  # the two thousand millionth note
        b"\x80\x02" + b"}" * 1_100_000 + b".",  # many dictionaries
        b"\x80\x02N" + b"\x85" * 300_000 + b"}q\x01" + b"(h\x00h\x00u.",
        # tuples that parts of arrays were to be made of
        NESTED,
        b"\x80\x04](" + b"K\x01" * 40_000_000 + b"e.",
        b"\x80\x02}(N" + b"\x85" * 300_000 + b"Nu.",  # a key of many shells
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftR.",  # an array of an exabyte
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nU\x01bR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\nU\x02u1\x85RU\x01xtb.",
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x03\x00\x00\x00zip\x86R.",
        b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
        b"\x80\x02](cnumpy\ndtype\nU\x02u1\x85R}b.",
        b"\x80\x02e.",
        b"\x80\x02(0.",
        b"\x80\x02]]0.",
        b"\x80\x02.",
        b"I" + b"9" * 5_000_000 + b"\n.",
        b"L" + b"9" * 5_000_000 + b"L\n.",
        # one text of a megabyte, encoded again and again
        b"\x80\x02(c_codecs\nencode\nq\x00X\x00\x00\x10\x00"
        + b"x" * (1 << 20)
        + b"X\x06\x00\x00\x00latin1\x86q\x01R"
        + b"h\x00h\x01R" * 4_000
        + b"l.",
        b"S'\\N'\n.",
        b"c\\N\n\\x\n)R.",
        b"",
    ],
)
def test_hostile_pickles_cost_neither_time_nor_memory(hostile, tmp_path):
    (tmp_path / "train").write_bytes(hostile)
    tracemalloc.start()
    try:
        start = time.perf_counter()
        with pytest.raises(InputError, match="can't be read"):
            cifar100._content(tmp_path / "train")
        assert time.perf_counter() - start < 30 and tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()


def test_data_come_out_of_a_pickle_as_they_went_in():
    content = {
        "a": [1, -2, 1 << 80, None, True, "ü", b"\xff", b""],
        b"b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        3: {},
    }
    shared = [0]
    content["twice"] = [shared, shared]
    for protocol in range(6):
        assert read_pickle(pickle.dumps(content, protocol=protocol)) == content
        for dtype in ("u1", "<i4", ">u2", "i8"):
            for order in "CF":
                array = np.arange(6).astype(dtype).reshape(2, 3, order=order)
                found = read_pickle(pickle.dumps(array, protocol=protocol))
                np.testing.assert_array_equal(found.array, array)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda b: b[: len(b) // 2], "cut short or no JPEG"),
        (lambda b: b[:1], "cut short or no JPEG"),
        (lambda b: b"", "cut short or no JPEG"),
        (lambda b: b"\x89PNG" + b, "cut short or no JPEG"),
        (lambda b: encoded(kind="PNG"), "cut short or no JPEG"),
        (lambda b: b + bytes(1 << 20), "are the most to expect"),
        (lambda b: re.sub(rb"(\xff\xc0...)....", rb"\1" + b"\xff\xdc" * 2, b, count=1, flags=re.S), "no JPEG"),  # huge
        (lambda b: encoded(1, 1), "is 1x1 pixels where images have 64x64"),
        (lambda b: encoded(64, 63), "is 64x63 pixels"),
    ],
)
def test_damaged_images_are_named(tiny, damage, sentence):
    path = tiny / "train" / "n00000001" / "images" / "n00000001_2.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=sentence) as refused:
        load_dataset("tiny-imagenet", root=tiny.parent)
    assert str(path) in str(refused.value) and not any((tiny.parent / "cache").iterdir())


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("wnids.txt", "n00000001\n../../etc\n", "'../../etc' for class 2"),
        ("wnids.txt", "", "no folder of a class in wnids.txt"),
        ("val/val_annotations.txt", "v0.JPEG\n", "no image and WordNet id in entry 1"),
        ("val/val_annotations.txt", "", "Class n00000002 has no test sample in"),
        ("val/val_annotations.txt", "v0.JPEG n00000001\n../x.JPEG n00000002\n", "n00000002 has no test sample in"),
    ],
)
def test_damaged_lists_of_tiny_imagenet_are_named(tiny, file, text, sentence):
    (tiny / file).write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_dataset("tiny-imagenet", root=tiny.parent)


def test_a_class_of_tiny_imagenet_without_images_is_named(tiny):
    for path in (tiny / "train" / "n00000001" / "images").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="Class n00000001 has no training sample in .*; add some or remove"):
        load_dataset("tiny-imagenet", root=tiny.parent)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda t: t[: t.rindex("\n", 0, -1) + 1], r"s02\.txt has 124 lines of 45 numbers, not 125 of 45"),
        (lambda t: t + t, r"s02\.txt has 250 lines"),
        (lambda t: "", r"s02\.txt does not hold numbers separated by commas .*'nothing'"),
        (lambda t: t.replace("\n", ",1\n", 1), "columns changed from 46 to 45 at row 2"),
        (lambda t: t.replace("\n", ",1\n"), "has 125 lines of 46 numbers"),
        (lambda t: t.replace("\n", ",1\n", 1)[::-1].replace(",", "", 1)[::-1], "columns changed from 46 to 45"),
        (lambda t: t.rsplit(",", 1)[0] + ",nan\n", r"s02\.txt, line 125, has a number that is not finite"),
        (lambda t: "nan" + t[t.index(",") :], r"s02\.txt, line 1, has a number that is not finite"),
        (lambda t: "-inf" + t[t.index(",") :], "line 1, has a number that is not finite"),
        (lambda t: "1e39" + t[t.index(",") :], "line 1, has a number that is not finite"),
        (lambda t: "1" * 9000 + t, "line 1, has a number that is not finite"),
        (lambda t: "1.x" + t[t.index(",") :], "convert string '1.x'"),
        (lambda t: "#" + t, "convert string '#"),
        (lambda t: "1.0\0" + t[t.index(",") :], "convert string '1.0\\\\x00'"),
        (lambda t: t[t.index(",") :], "convert string ''"),
        (lambda t: t + " " * (1 << 20), "are the most to expect"),
    ],
)
def test_damaged_segments_are_named(sports, damage, sentence):
    path = sports / "a01" / "p3" / "s02.txt"
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=sentence) as refused:
        load_dataset("dsads", root=sports.parent)
    assert str(path) in str(refused.value)


def test_segments_with_other_line_ends_are_the_same(sports):
    before = load_dataset("dsads", root=sports.parent).fingerprint
    path = sports / "a01" / "p3" / "s02.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert load_dataset("dsads", root=sports.parent).fingerprint == before


def test_an_activity_without_segments_is_named(sports):
    (sports / "a07").mkdir()
    with pytest.raises(InputError, match="a07 has no training sample in .*, which takes three segments"):
        load_dataset("dsads", root=sports.parent)
    (sports / "a07").rmdir()
    for number in (3, 4, 5):
        (sports / "a19" / "p3" / f"s{number:02d}.txt").unlink()
    with pytest.raises(InputError, match="a19 has no test sample in .*, which takes three segments"):
        load_dataset("dsads", root=sports.parent)


# Mutants of real files: they load or are refused with a sentence, whatever was changed


def few_of_cifar100(root, folder):
    """The first images of the real files, in pickles of the same form."""
    folder.mkdir()
    shutil.copy(root / "cifar-100-python" / "meta", folder)
    for part in ("train", "test"):
        content = pickle.loads((root / "cifar-100-python" / part).read_bytes(), encoding="bytes")
        chosen = np.flatnonzero(np.array(content[b"fine_labels"]) < 2)[:4]
        labels, names = ([content[key][k] for k in chosen] for key in (b"fine_labels", b"filenames"))
        (folder / part).write_bytes(py2_pickle(content[b"data"][chosen], labels, names))


@real
def test_mutants_of_cifar100_are_read_or_refused(subset, tmp_path):
    folder, whole = tmp_path / "cifar-100-python", tmp_path / "whole" / "cifar-100-python"
    few_of_cifar100(subset("cifar100"), folder)
    fuzz(lambda _: cifar100.load(tmp_path), tmp_path, [folder / "train", folder / "meta", folder / "test"])
    shutil.copytree(subset("cifar100") / "cifar-100-python", whole)
    shutil.copy(whole / "test", whole / "train")
    fuzz(lambda _: cifar100.load(whole), whole, [whole / "test"], min(MUTANTS // 20, 50))


@real
def test_mutants_of_tiny_imagenet_are_read_or_refused(subset, tmp_path):
    source, folder = subset("tiny-imagenet") / "tiny-imagenet-200", tmp_path / "tiny-imagenet-200"
    lines = (source / "val" / "val_annotations.txt").read_text().splitlines()
    wnids = (source / "wnids.txt").read_text().split()[:2]
    chosen = [next(line for line in lines if line.split("\t")[1] == wnid) for wnid in wnids]
    images = [f"val/images/{line.split()[0]}" for line in chosen]
    images += [f"train/{wnid}/images/{wnid}_{k}.JPEG" for wnid in wnids for k in range(2)]
    for name in ("words.txt", *images):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, folder / name)
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(chosen) + "\n")
    lists = ("wnids.txt", "words.txt", "val/val_annotations.txt")
    fuzz(lambda _: tiny_imagenet.load(tmp_path), tmp_path, [folder / name for name in (*images, *lists)])


@real
def test_mutants_of_dsads_are_read_or_refused(subset, tmp_path):
    folder = tmp_path / "data" / "a01" / "p1"
    folder.mkdir(parents=True)
    paths = [folder / f"s{number:02d}.txt" for number in range(1, 13, 4)]
    for path in paths:
        shutil.copy(subset("dsads") / path.relative_to(tmp_path), path)
    fuzz(lambda _: dsads.load(tmp_path), tmp_path, paths)
