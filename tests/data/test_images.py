"""Encoded images: from files through storage, memory and transform."""

import io
import logging
import shutil
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded
from PIL import Image
from stores import flip
from subsets import real
from torchvision.transforms import v2

from mirolib import (
    CorruptRecordError,
    Fingerprint,
    InputError,
    MemoryConfig,
    RunSettings,
    Storage,
    TaskStream,
    load_dataset,
    run_experiment,
)
from mirolib.data.imagenet1k import IMAGENET1K
from mirolib.data.images import cut, decoded, listed
from mirolib.data.stream import make_ids
from mirolib.learning.inputs import Transform
from mirolib.memory.buffers import OBJECT_BYTES, SampleArray


def objects(encoded_images):
    """Encoded images as an array of objects."""
    samples = np.empty(len(encoded_images), dtype=object)
    samples[:] = encoded_images
    return samples


def write_images(root: Path, classes=4, per_class=12, test=3) -> Path:
    """A small data set in ILSVRC layout; class `c` is of one colour, with sizes that vary."""
    for part, count in (("train", per_class), ("val", test)):
        for label in range(classes):
            folder = root / "imagenet" / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for k in range(count):
                colour = (60 * label, 255 - 60 * label, 20 * k)
                (folder / f"n{label:08d}_{k}.JPEG").write_bytes(encoded(50 + label, 30 + 5 * k, colour=colour))
    return root


@pytest.fixture
def images(tmp_path, monkeypatch):
    small = replace(IMAGENET1K.presets["small"], classes=0, per_class=0, test_per_class=0, tasks=2, model="cnn",
                    epochs=2, batch_size=8, stream_size=10, episodic_size=8)  # fmt: skip
    spec = replace(IMAGENET1K, sample_shape=(3, 32, 32), presets={"small": small})
    monkeypatch.setattr("mirolib.data.imagenet1k.IMAGENET1K", spec)
    monkeypatch.setattr("mirolib.data.LOADERS", {"imagenet1k": (spec, import_module("mirolib.data.imagenet1k").load)})
    return write_images(tmp_path)


def test_images_are_listed_and_read_when_asked_for(images, caplog):
    caplog.set_level(logging.INFO)
    dataset = load_dataset("imagenet1k", root=images)
    assert (len(dataset.train), len(dataset.test), len(dataset.class_names)) == (48, 12, 4)
    assert "4 of 1000 classes, 48 training and 12 test samples" in caplog.text
    file = images / "imagenet" / "train" / "n00000002" / "n00000002_1.JPEG"
    position = np.flatnonzero(dataset.train.labels == 2)[1]
    assert dataset.train.read(np.array([position]))[0] == file.read_bytes()
    sizes = [path.stat().st_size for path in (images / "imagenet" / "train").rglob("*.JPEG")]
    assert dataset.train.mean_bytes == int(np.mean(sizes))
    again = load_dataset("imagenet1k", root=images).fingerprint
    file.unlink()
    assert again == dataset.fingerprint != load_dataset("imagenet1k", root=images).fingerprint
    with pytest.raises(InputError, match="n00000002_1.JPEG can't be read"):
        dataset.train.read(np.array([position]))


def test_a_missing_or_empty_part_is_said(images, tmp_path):
    with pytest.raises(InputError, match="no folder imagenet in .* terms must be accepted"):
        load_dataset("imagenet1k", root=tmp_path / "elsewhere")
    for file in (images / "imagenet" / "val" / "n00000001").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="Class n00000001 has no test sample"):
        load_dataset("imagenet1k", root=images)


def test_without_val_every_tenth_image_is_the_test_set(images):
    shutil.rmtree(images / "imagenet" / "val")
    dataset = load_dataset("imagenet1k", root=images)
    assert (len(dataset.train), len(dataset.test)) == (44, 4)
    assert not set(dataset.train.rows) & set(dataset.test.rows)


LEFT_BEHIND = ("{}/.ipynb_checkpoints/x.JPEG", "{}/__MACOSX/x.JPEG", "{}/__pycache__/x.JPEG", "{}/n00000001/._x.JPEG",
               "{}/n00000001/.ipynb_checkpoints/x.JPEG", "{}/.DS_Store", "{}/n00000001/Thumbs.db")  # fmt: skip


def test_what_systems_leave_behind_is_no_class_and_no_image(images):
    before = load_dataset("imagenet1k", root=images)
    for name in (name.format(part) for part in ("train", "val") for name in LEFT_BEHIND):
        path = images / "imagenet" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    after = load_dataset("imagenet1k", root=images)
    assert after.fingerprint == before.fingerprint and after.class_names == before.class_names


def flattened(folder: Path) -> dict[str, str]:
    """Puts the images of val into val itself, as Kaggle has them; gives the class of each."""
    class_of = {}
    for number, path in enumerate(sorted((folder / "val").glob("*/*"), key=lambda path: path.name[::-1]), start=1):
        class_of[f"ILSVRC2012_val_{number:08d}"] = path.parent.name
        path.rename(folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return class_of


def of_class(dataset, label):
    return sorted(dataset.test.read(np.flatnonzero(dataset.test.labels == label)))


@pytest.mark.parametrize("above", [-1, 0, 3])
def test_kaggles_flat_val_gets_its_classes_from_the_table(images, above):
    before, folder = load_dataset("imagenet1k", root=images), images / "ILSVRC" / "Data" / "CLS-LOC"
    expected = [of_class(before, label) for label in range(4)]
    folder.parent.mkdir(parents=True)
    (images / "imagenet").rename(folder)
    class_of = flattened(folder)
    place = folder / "val" if above < 0 else [folder, *folder.parents][above]
    rows = [f"{name},{wnid} 1 2 3 4 n00000003 5 6 7 8" for name, wnid in class_of.items()]
    table = place / "LOC_val_solution.csv"
    table.write_text("\n".join(["ImageId,PredictionString", "ILSVRC2012_val_00000099,n00000001 1 2 3 4", *rows[::-1]]))
    (folder / "val" / "ILSVRC2012_val_00000098.JPEG").write_bytes(encoded())  # in no row
    dataset = load_dataset("imagenet1k", root=images)
    assert dataset.class_names == before.class_names and (len(dataset.train), len(dataset.test)) == (48, 12)
    assert [of_class(dataset, label) for label in range(4)] == expected
    table.write_text(table.read_text().replace("n00000000 1 2", "n00000002 1 2", 1))
    assert load_dataset("imagenet1k", root=images).fingerprint != dataset.fingerprint, "another class"
    table.write_bytes(b"ImageId,PredictionString\n\xff\n")
    with pytest.raises(InputError, match="no test sample"):
        load_dataset("imagenet1k", root=images)


def test_a_flat_val_without_its_table_is_said_and_not_used(images, caplog):
    flattened(images / "imagenet")
    dataset = load_dataset("imagenet1k", root=images)
    assert (len(dataset.train), len(dataset.test)) == (44, 4)
    assert "No LOC_val_solution.csv is there for" in caplog.text
    caplog.clear()
    shutil.rmtree(images / "imagenet" / "val")
    assert load_dataset("imagenet1k", root=images).fingerprint == dataset.fingerprint and not caplog.text


def test_an_empty_image_is_named(images):
    path = images / "imagenet" / "train" / "n00000002" / "n00000002_1.JPEG"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=f"The image {path} is empty; replace or remove it"):
        load_dataset("imagenet1k", root=images)


def test_an_image_that_cannot_be_decoded_is_named_wherever_it_has_been(images, tmp_path):
    path = images / "imagenet" / "train" / "n00000001" / "n00000001_3.JPEG"
    whole = encoded(300, 300)
    path.write_bytes(whole[:2000])
    path.with_name("n00000001_2.JPEG").write_bytes(whole[:1999] + b"x")  # of the same length
    stream = TaskStream(load_dataset("imagenet1k", root=images), num_tasks=2)
    files = stream.dataset.train.data
    row = files.paths().index(path)
    data = files[np.array([row])]
    store, ids = (
        Storage(tmp_path / "store", Fingerprint.of(stream)),
        make_ids(np.zeros(1, dtype=int), np.zeros(1, dtype=int)),
    )
    store.put(ids, data)
    kept = store.read(ids)
    store.close()
    with pytest.raises(InputError, match=f"The image {path} can't be decoded .*; replace its file"):
        Transform(IMAGENET1K, torch.device("cpu"), 0).train(kept)
    path.unlink()
    with pytest.raises(InputError, match="An image of 2000 bytes can't be decoded"):
        decoded(kept, (32, 32))
    with pytest.raises(InputError, match=r"An image of 8 bytes can't be decoded \(it is none\)"):
        cut(b"no image", (32, 32))


@pytest.mark.parametrize("part", ["", "train"])
def test_images_of_own_folders_are_listed(tmp_path, part):
    kinds = {"a.png": "PNG", "b.JPG": "JPEG", "c.webp": "WEBP", "d.bmp": "BMP", "e.jpeg": "JPEG"}
    for name in ("roses", "lilies"):
        (tmp_path / part / name).mkdir(parents=True)
        for file, kind in kinds.items():
            (tmp_path / part / name / file).write_bytes(encoded(40, 30, kind=kind))
        (tmp_path / part / name / "notes.txt").touch()
    found = listed(tmp_path, part, ["roses", "lilies"])
    assert found.labels.tolist() == [0] * 5 + [1] * 5 and found.data.paths()[6] == tmp_path / part / "lilies" / "b.JPG"
    assert decoded(found.read(slice(None)), (16, 16)).shape == (10, 3, 16, 16)
    (tmp_path / part / "empty").mkdir()
    with pytest.raises(InputError, match="no images in the folders of classes"):
        listed(tmp_path, part, ["empty"])


def test_encoded_samples_survive_storage_and_their_damage_is_found(images, tmp_path):
    stream = TaskStream(load_dataset("imagenet1k", root=images), num_tasks=2)
    store = Storage(tmp_path / "store", Fingerprint.of(stream))
    task = stream[0]
    samples = task.train.read(slice(None))
    assert store.put(task.train_ids, samples) == len(samples)
    written = sum(map(len, samples)) + (16 + 32) * len(samples)
    assert store.bytes_written == written
    assert store.put(task.train_ids, samples) == 0 and store.bytes_written == written
    order = np.random.default_rng(0).permutation(len(samples))
    assert store.read(task.train_ids[order]).tolist() == samples[order].tolist()
    flip(store.path, task.train_ids[0], 50)
    with pytest.raises(CorruptRecordError, match="damaged"):
        store.read(task.train_ids[:1])
    assert store.read(task.train_ids[1:]).tolist() == samples[1:].tolist()
    store.close()


def test_buffers_count_the_bytes_they_hold_and_let_go_of_them():
    array = SampleArray(4, (), "object")
    array.append(objects([b"a" * 100, b"b" * 50, b"c" * 10]), make_ids(np.zeros(3, dtype=int), np.arange(3)))
    assert array.allocated_bytes == 4 * (8 + 8 + 8) + 160 + 3 * OBJECT_BYTES
    array.discard(np.array([0]))
    assert array.allocated_bytes == 4 * 24 + 60 + 2 * OBJECT_BYTES
    array.resize(2)
    assert array.allocated_bytes == 2 * 24 + 60 + 2 * OBJECT_BYTES and len(deepcopy(array)) == 2
    assert array._samples.tolist() == [b"c" * 10, b"b" * 50]


def test_a_run_on_encoded_images_learns(images, tmp_path):
    settings = RunSettings(
        "imagenet1k", data=str(images), energy="none", epochs=20, lr=0.02, batch_size=4, controller="whole-budget"
    )
    results = [run_experiment(settings, results=tmp_path / f"results{k}", progress=False) for k in range(2)]
    assert results[0].summary["final_accuracy"] > 0.6, "four colours"
    assert results[0].tasks["average_accuracy"].tolist() == results[1].tasks["average_accuracy"].tolist()


def test_a_budget_in_bytes_is_kept_by_real_lengths(images, tmp_path):
    settings = RunSettings("imagenet1k", data=str(images), energy="none", epochs=2, memory_budget="16kB")
    result = run_experiment(settings, results=tmp_path / "results", progress=False)
    assert 0 < result.tasks["memory_bytes"].max() <= 1.1 * 16_000
    config = result.tasks.iloc[-1]
    assert config["stream_size"] + config["episodic_size"] > 5
    assert MemoryConfig(int(config["stream_size"]), int(config["episodic_size"]))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_images_of_other_colours_become_rgb(mode):
    image = cut(encoded(30, 20, mode), (20, 30))
    assert image.shape == (20, 30, 3)
    if mode == "L":
        assert (np.ptp(image, axis=2) == 0).all()
    if mode == "CMYK":
        found = cut(encoded(30, 20, mode, colour=(255, 0, 0, 0)), (20, 30)).mean(axis=(0, 1))
        assert found[0] < 40 and found[1] > 150, "cyan"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_other_formats_under_the_same_name_are_read(kind):
    assert cut(encoded(30, 20, kind=kind), (16, 24)).shape == (16, 24, 3)


def test_tiny_and_damaged_images():
    assert cut(encoded(1, 1), (32, 32)).shape == (32, 32, 3)
    whole = encoded()
    for data in (b"", b"no image", whole[: len(whole) // 2], whole[:20]):
        with pytest.raises(InputError, match="can't be decoded"):
            cut(data, (32, 32))


def test_the_middle_is_torchvisions_resize_and_crop():
    data = encoded(400, 300, kind="PNG")
    picture = v2.functional.pil_to_tensor(Image.open(io.BytesIO(data)))
    theirs = v2.functional.center_crop(v2.functional.resize(picture, [256], antialias=True), [224, 224])
    ours = torch.from_numpy(cut(data, (224, 224)).copy()).permute(2, 0, 1)
    assert (ours.float() - theirs.float()).abs().mean() < 1


@pytest.mark.parametrize("size", [(24, 32), (100, 100), (300, 300)])
@pytest.mark.parametrize("draw", [None, (0.9, 0.5, 0.3, 0.7), (0.1, 0.2, 0.9, 0.4)])
def test_a_jpeg_decoded_at_a_fraction_looks_like_the_whole_one(size, draw):
    jpeg, png = encoded(403, 301, quality=95), encoded(403, 301, kind="PNG")
    ours, whole = (cut(data, size, draw).astype(float) for data in (jpeg, png))
    assert np.abs(ours - whole).mean() < 2


def test_random_windows_have_the_areas_of_torchvisions():
    # A ramp over the width: the window's mean and span say where it lay and how wide it was.
    ramp, file = Image.fromarray(np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 256))), io.BytesIO()
    ramp.save(file, "PNG")
    draws = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
    ours = decoded(objects([file.getvalue()] * 300), (32, 32), draws).float()[:, 0]
    torch.manual_seed(0)
    theirs, image = v2.RandomResizedCrop(32, antialias=True), v2.functional.pil_to_tensor(ramp)
    reference = torch.stack([theirs(image) for _ in range(300)]).float()[:, 0]
    span, expected = ((part[:, :, -1] - part[:, :, 0]).mean(1) / 255 for part in (ours, reference))
    assert span.mean() == pytest.approx(float(expected.mean()), rel=0.05)
    assert span.min() < 0.4 and span.max() > 0.9
    assert ours.mean(dim=(1, 2)).std() == pytest.approx(float(reference.mean(dim=(1, 2)).std()), rel=0.2)


def test_the_transform_mirrors_and_normalises_decoded_images():
    spec = replace(IMAGENET1K, sample_shape=(3, 32, 32))
    samples = objects([encoded(40, 40, colour=(255, 0, 0))] * 40)
    batch = Transform(spec, torch.device("cpu"), 0).train(samples)
    assert batch.shape == (40, 3, 32, 32)
    assert batch[:, 0].mean() == pytest.approx((254 / 255 - 0.485) / 0.229, abs=0.05)
    one = Transform(spec, torch.device("cpu"), 0).train(samples)
    assert torch.equal(one, batch), "the same draws"


@real
def test_real_images_are_read(subset):
    dataset = load_dataset("imagenet1k", root=subset("imagenet1k"), preset="paper")
    assert (len(dataset.class_names), len(dataset.train), len(dataset.test)) == (10, 800, 200)
    assert decoded(dataset.train.read(np.arange(8)), (224, 224)).float().std() > 30
    small = load_dataset("imagenet1k", root=subset("imagenet1k"))
    assert (len(small.train), len(small.test)) == (800, 200)


@real
def test_real_images_of_every_kind_are_decoded(subset):
    root = subset("imagenet1k, one a class")
    with pytest.raises(InputError, match="has no test sample"):  # none of one can be held out
        load_dataset("imagenet1k", root=root)
    files = sorted((root / "imagenet" / "train").rglob("*.JPEG"))
    assert decoded(objects([file.read_bytes() for file in files]), (64, 64)).shape == (100, 3, 64, 64)
