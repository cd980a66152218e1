"""A user's own data by path: every form gives the same samples, and what can't be used is named."""

import io
import logging
import os
import pickle
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, strategies
from PIL import Image

from mirolib import Dataset, InputError, RunSettings, TaskStream, load_dataset, run_experiment
from mirolib.data import locate
from mirolib.data.arrays import held_out
from mirolib.data.audio import log_mel
from mirolib.data.images import picture
from mirolib.learning.inputs import taken
from mirolib.workbench.run import Run

NAMES = ("ant", "bee", "cat")
LABELS, TEST_LABELS = np.repeat([0, 1, 2], 6), np.repeat([0, 1, 2], 2)
RNG = np.random.default_rng(0)
IMAGES, TEST_IMAGES = (RNG.integers(0, 256, (len(y), 3, 10, 12)).astype(np.uint8) for y in (LABELS, TEST_LABELS))
TABLE, TEST_TABLE = (RNG.normal(size=(len(y), 4)).astype(np.float32) for y in (LABELS, TEST_LABELS))
TEXTS, TEST_TEXTS = np.array(NAMES)[LABELS], np.array(NAMES)[TEST_LABELS]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MIRO_CACHE", str(folder))
    return folder


def png_folder(root: Path, part: str = "train", images=IMAGES, labels=LABELS, suffix="png") -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / part / NAMES[label] / f"{number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(path)
    return root


def frame(values, texts, **more):
    return pd.DataFrame(values, columns=list("abcd")).assign(label=texts, **more)


def npz(root, last=False):
    parts = (IMAGES, TEST_IMAGES) if not last else (IMAGES.transpose(0, 2, 3, 1), TEST_IMAGES.transpose(0, 2, 3, 1))
    np.savez(root / "mine.npz", x_train=parts[0], y_train=TEXTS, x_test=parts[1], y_test=TEST_TEXTS)
    return root / "mine.npz"


def folders(root):
    return png_folder(png_folder(root / "mine"), "val", TEST_IMAGES, TEST_LABELS)


def hugging_face(root):
    kinds = datasets.Features({"image": datasets.Image(), "what": datasets.ClassLabel(names=list(NAMES))})

    def part(images, labels):
        pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
        return datasets.Dataset.from_dict({"image": pictures, "what": labels.tolist()}, features=kinds)

    parts = {"train": part(IMAGES, LABELS), "test": part(TEST_IMAGES, TEST_LABELS)}
    datasets.DatasetDict(parts).save_to_disk(root / "mine")
    return root / "mine"


def function(root):
    (root / "load_it.py").write_text(
        f"import mirolib\n\n\ndef mine():\n    return mirolib.load_dataset({str(npz(root))!r})\n"
    )
    return f"{root / 'load_it.py'}:mine"


@pytest.mark.parametrize("write", [npz, lambda root: npz(root, last=True), folders, hugging_face, function])
def test_images_are_the_same_from_every_form(write, tmp_path):
    wanted = Dataset.from_arrays(IMAGES, LABELS, TEST_IMAGES, TEST_LABELS, class_names=NAMES)
    found = load_dataset(str(write(tmp_path)))
    assert (found.class_names, found.spec.name) == (NAMES, "mine")
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(found, part).read(slice(None)), getattr(wanted, part).read(slice(None)))
        np.testing.assert_array_equal(getattr(found, part).labels, getattr(wanted, part).labels)
    assert found.spec.presets == wanted.spec.presets and found.spec.mean == wanted.spec.mean


def csv(root, sep=",", mark=""):
    both = pd.concat([frame(TABLE, TEXTS, split="train"), frame(TEST_TABLE, TEST_TEXTS, split="Test")])
    (root / "mine.csv").write_text(mark + both.to_csv(index=False, sep=sep))
    return root / "mine.csv"


def parquet(root):
    (root / "mine").mkdir()
    frame(TABLE, TEXTS).to_parquet(root / "mine" / "train.parquet")
    frame(TEST_TABLE, TEST_TEXTS).to_parquet(root / "mine" / "test.parquet")
    return root / "mine"


@pytest.mark.parametrize(
    "write", [csv, lambda root: csv(root, ";", "\ufeff"), parquet, lambda root: f"{csv(root)}?label=label,name=mine"]
)
def test_tables_are_the_same_to_the_last_digit(write, tmp_path):
    found = load_dataset(str(write(tmp_path)))
    np.testing.assert_array_equal(found.train.read(slice(None)), TABLE)
    np.testing.assert_array_equal(found.test.read(slice(None)), TEST_TABLE)
    assert found.class_names == NAMES and found.spec.preset().model == "mlp-bn" and found.spec.name == "mine"


@pytest.mark.parametrize(
    ("table", "options", "sentence"),
    [
        (frame(TABLE, TEXTS).rename(columns={"label": "kind"}), "", "no column says label, so name the label; say"),
        (frame(TABLE, TEXTS, target=1), "", "label, target may all be the label; say which by"),
        (frame(TABLE, TEXTS), "?label=kind", "no column 'kind'; choose among a, b, c, d, label"),
        (
            frame(TABLE, TEXTS, where="home"),
            "",
            r"18 rows of column 'where' hold no number, such as \['home'\]; .* \?drop=where",
        ),
        (frame(TABLE, TEXTS, split="somewhere"), "", "column split says 'somewhere'; let it say train"),
        (frame(TABLE, [None, *TEXTS[1:]]), "", "1 rows have no label; fill them in"),
        (
            frame([[np.nan] * 4, *TABLE[1:]], TEXTS),
            "",
            r"column 'a' hold no number, such as \[nan\]; mend",
        ),
        (frame(TABLE, TEXTS), "?lable=a", r"The option lable of mine.csv can't be used .* it takes label, group"),
        (frame(TABLE, TEXTS), "?test_share=2", "test_share is 2.0; choose a share between"),
        (frame(TABLE, TEXTS), "?test_share=half", "The option test_share of mine.csv can't be used"),
    ],
)
def test_tables_that_can_not_be_used_say_what_to_change(table, options, sentence, tmp_path):
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError, match=sentence):
        load_dataset(f"{tmp_path}/mine.csv{options}")


def test_columns_go_by_name_and_an_index_that_was_written_along_is_none(tmp_path):
    (tmp_path / "mine").mkdir()
    frame(TABLE, TEXTS).to_csv(tmp_path / "mine" / "train.csv")
    frame(TEST_TABLE, TEST_TEXTS)[["label", "d", "c", "b", "a"]].to_csv(tmp_path / "mine" / "test.csv")
    found = load_dataset(tmp_path / "mine")
    np.testing.assert_array_equal(found.test.read(slice(None)), TEST_TABLE)
    assert found.spec.columns == ("a", "b", "c", "d")
    asked = RunSettings(str(tmp_path / "mine"), controller="fixed", epochs=1, tasks=1, energy="none")
    model = run_experiment(asked, results=tmp_path, progress=False).model
    rows = frame(TEST_TABLE, TEST_TEXTS).drop(columns="label")
    np.testing.assert_array_equal(model.scores(rows[["d", "b", "a", "c"]]), model.scores(TEST_TABLE))
    with pytest.raises(InputError, match="Column 'd' is missing or unknown; give the columns a, b, c, d"):
        model.predict(rows[["a", "b", "c"]])
    frame(TEST_TABLE, TEST_TEXTS, more=1).to_csv(tmp_path / "mine" / "test.csv")
    with pytest.raises(InputError, match="column 'more' is in train or test alone"):
        load_dataset(tmp_path / "mine")


def test_tables_as_they_are_written_in_germany(tmp_path):
    texts = np.where(TEXTS == "ant", "K\u00e4fer", TEXTS)
    (tmp_path / "mine.csv").write_bytes(frame(TABLE, texts).to_csv(index=False, sep=";", decimal=",").encode("latin-1"))
    with pytest.raises(InputError, match=r"18 rows of column 'a' .*\?decimal="):
        load_dataset(tmp_path / "mine.csv")
    found = load_dataset(tmp_path / "mine.csv", decimal=",")
    assert "K\u00e4fer" in found.class_names
    assert {*found.train.data.ravel().tolist()} == {*TABLE.ravel().tolist()}


def test_a_row_without_a_label_is_no_class(tmp_path):
    kinds = datasets.Features(
        {"x": datasets.List(datasets.Value("float32")), "y": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = {"x": TABLE.tolist(), "y": [-1, *([0, 1] * 9)[1:]]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features=kinds)).save_to_disk(tmp_path / "mine")
    with pytest.raises(InputError, match=r"rows without a label \(-1\)"):
        load_dataset(tmp_path / "mine")


def test_a_function_may_import_its_neighbours_and_its_faults_are_located(tmp_path):
    function(tmp_path)
    (tmp_path / "neighbour.py").write_text("from load_it import mine\n\n\ndef wrong():\n    return 1 / 0\n")
    (tmp_path / "more.py").write_text("from neighbour import mine, wrong\n")
    assert load_dataset(f"{tmp_path}/more.py:mine").spec.name == "mine"
    with pytest.raises(InputError, match=r"ZeroDivisionError: division by zero, in line 5 of .*neighbour.py"):
        load_dataset(f"{tmp_path}/more.py:wrong")
    assert str(tmp_path) not in sys.path


def test_arrays_that_would_be_executed_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(tmp_path / "mine.npz", x_train=np.array([Bomb()], dtype=object), y_train=[0])
    with pytest.raises(InputError, match="damaged or holds objects"):
        load_dataset(tmp_path / "mine.npz")
    (tmp_path / "mine.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="damaged or holds objects"):
        load_dataset(tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", images=IMAGES)
    with pytest.raises(InputError, match="holds images but no x_train; name the arrays"):
        load_dataset(tmp_path / "mine.npz")
    assert not (tmp_path / "executed").exists()


@given(strategies.data())
def test_damaged_files_are_read_or_refused(data):
    with tempfile.TemporaryDirectory() as root:
        place = npz(Path(root)) if data.draw(strategies.booleans()) else parquet(Path(root)) / "train.parquet"
        content = bytearray(place.read_bytes())
        for position in data.draw(strategies.lists(strategies.integers(0, len(content) - 1), max_size=8)):
            content[position] = data.draw(strategies.integers(0, 255))
        place.write_bytes(content[: data.draw(strategies.integers(0, len(content)))])
        with suppress(InputError):
            load_dataset(place)


def test_hidden_files_are_no_samples_and_orientation_and_depth_are_heeded(tmp_path):
    root = folders(tmp_path)
    for litter in (".ipynb_checkpoints/a.png", "ant/._000.png", "ant/.ipynb_checkpoints/b.png", "__MACOSX/c.png"):
        path = root / "train" / litter
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    (root / "train" / "ant" / "notes.txt").write_text("mine")
    (root / "train.csv").write_text("a list that came along")
    assert load_dataset(root).train.labels.tolist() == LABELS.tolist()
    upright = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    upright.rotate(90, expand=True).save(buffer := io.BytesIO(), "PNG", exif=exif)
    np.testing.assert_array_equal(picture(buffer.getvalue(), (3, 20, 30)), np.asarray(upright).transpose(2, 0, 1))
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) << 10
    Image.fromarray(deep).save(buffer := io.BytesIO(), "PNG")
    np.testing.assert_array_equal(picture(buffer.getvalue(), (1, 8, 8))[0], deep >> 8)


def test_a_broken_image_is_named_and_skipped_and_counted_if_asked(tmp_path, caplog, cache):
    root = folders(tmp_path)
    whole = (root / "train" / "bee" / "007.png").read_bytes()
    (root / "train" / "bee" / "007.png").write_bytes(whole[:200])
    (root / "train" / "cat" / "013.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"cat/013.png"):
        load_dataset(root)
    for _ in range(2):  # read anew, then from the cache
        with caplog.at_level(logging.WARNING):
            found = load_dataset(f"{root}?broken=skip")
        assert "bee/007.png" in caplog.text and "cat/013.png" in caplog.text and "2" in caplog.text
        np.testing.assert_array_equal(found.train.read(slice(None)), np.delete(IMAGES, [7, 13], axis=0))
        assert found.train.labels.tolist() == np.delete(LABELS, [7, 13]).tolist()
        caplog.clear()
    (root / "train" / "cat" / "013.png").write_bytes(whole)
    with pytest.raises(InputError, match=r"bee/007.png can't be decoded .* replace it, or leave it out"):
        load_dataset(root)
    (root / "train" / "bee" / "007.png").write_bytes(whole)
    assert len(load_dataset(root).train) == 18


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: (root / "train" / "dog").mkdir(), "class folder .*train/dog holds no file .png"),
        (lambda root: (root / "val" / "ant").rename(root / "val" / "emu"), r"Labels \['emu'\] occur in test alone"),
        (lambda root: soundfile.write(root / "train" / "ant" / "a.wav", np.zeros(9), 8000), "has images and sounds"),
    ],
)
def test_folders_that_can_not_be_used_say_what_to_change(spoil, sentence, tmp_path):
    spoil(root := folders(tmp_path))
    with pytest.raises(InputError, match=sentence):
        load_dataset(root)


def test_images_of_several_sizes_become_squares_and_all_grey_ones_stay_grey(tmp_path):
    for label, size in (("a", (30, 20)), ("b", (200, 100))):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("L", size, 40 * number).save(tmp_path / "mine" / label / f"{number}.jpg")
    assert load_dataset(tmp_path / "mine").spec.sample_shape == (1, 64, 64)
    found = load_dataset(tmp_path / "mine", size=16)
    assert found.spec.sample_shape == (1, 16, 16)
    assert sorted({int(value) for value in found.train.data.ravel()}) == [0, 40, 80]


def test_what_is_left_out_or_does_not_apply_is_said(tmp_path, caplog):
    root = folders(tmp_path)
    (root / "train" / "ant" / "a.HEIC").write_bytes(b"")
    (root / "train" / "ant" / "Thumbs.db").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        load_dataset(root)
    assert "files of other kinds are left out: {'.heic': 1}" in caplog.text
    for option in ("seconds=3", "size=100000"):
        with pytest.raises(InputError, match="size is for images, up to 1024 pixels, and seconds are for sounds"):
            load_dataset(f"{root}?{option}")
    (root / "train" / "ant" / "gone.png").symlink_to(root / "nowhere")
    with pytest.raises(InputError, match=r"gone.png can't be decoded"):
        load_dataset(root)
    assert len(load_dataset(f"{root}?broken=skip").train) == 18
    (tmp_path / "what?").mkdir()
    with pytest.raises(InputError, match="has a question mark, with which options begin here; rename it"):
        load_dataset(f"{tmp_path}/what?")
    root.rename(tmp_path / "mine, too")
    assert load_dataset(f"{tmp_path}/mine, too?broken=skip").spec.name == "mine  too"
    with pytest.raises(InputError, match=r"no folder of data sets .*mine.npz; your own data set is given in the place"):
        run_experiment(RunSettings(data=str(npz(tmp_path))), results=tmp_path, progress=False)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_sounds_become_log_mel_images(suffix, tmp_path):
    for label, pitch in (("low", 200), ("high", 4000)):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(4):
            tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(8000) / 16000)
            soundfile.write(tmp_path / "mine" / label / f"{number}.{suffix}", tone, 16000)
    found = load_dataset(f"{tmp_path / 'mine'}?seconds=0.5")
    assert found.spec.sample_shape == (1, 100, 100) and found.class_names == ("high", "low")
    files = [path for path in (tmp_path / "mine").glob("*/*")]
    np.testing.assert_array_equal(taken(files[:1], found.spec)[0], log_mel(files[0], 0.5))
    loudest = found.train.read(slice(None))[:, 0].mean(axis=2).argmax(axis=1)
    assert loudest[found.train.labels == 0].min() > loudest[found.train.labels == 1].max()


@given(strategies.lists(strategies.integers(2, 30), min_size=1, max_size=6), strategies.floats(0.01, 0.99))
def test_a_share_of_each_class_is_held_out_and_never_all(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    held = held_out(labels, range(len(counts)), None, share)
    found = np.bincount(labels[held], minlength=len(counts))
    assert (found == np.clip(np.round(share * np.array(counts)), 1, np.array(counts) - 1)).all()
    assert (held == held_out(labels, range(len(counts)), None, share)).all()


@given(strategies.integers(2, 6), strategies.integers(3, 12), strategies.floats(0.1, 0.5), strategies.integers(0, 99))
def test_no_group_is_parted_by_the_test_that_is_held_out(classes, people, share, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(classes), people), rng.integers(0, classes, 50)])
    groups = np.concatenate([np.tile(np.arange(people), classes), rng.integers(0, people, 50)])
    held = held_out(labels, range(classes), groups, share)
    assert not set(groups[held]) & set(groups[~held])
    assert set(labels[held]) == set(labels[~held]) == set(range(classes))
    assert held.mean() < share + 0.5 * np.bincount(groups).max() / len(groups) + 1e-9 or len(set(groups[held])) == 1


def test_what_can_not_be_held_out_is_said(caplog):
    with pytest.raises(InputError, match="Class bee has too few samples to hold one out"):
        Dataset.from_arrays(TABLE[:7], TEXTS[:7])
    with pytest.raises(InputError, match="Class ant has too few groups to hold one out"):
        Dataset.from_arrays(TABLE, TEXTS, groups=TEXTS)
    with pytest.raises(InputError, match="groups are"):
        Dataset.from_arrays(TABLE, TEXTS, groups=TEXTS[1:])
    with caplog.at_level(logging.WARNING):
        made = Dataset.from_arrays(TABLE, TEXTS, name="mine", groups=np.tile(np.arange(6), 3))
    assert "mine has no test part: 3 of its 18 samples are held out" in caplog.text
    assert len(set(made.test.groups)) == 1 and len(made.train.groups) == 15


def test_a_validation_part_of_its_own_takes_nothing_from_training(tmp_path):
    np.savez(
        tmp_path / "mine.npz",
        x_train=TABLE, y_train=TEXTS, x_test=TEST_TABLE, y_test=TEST_TEXTS, x_val=TEST_TABLE + 9, y_val=TEST_TEXTS,
    )  # fmt: skip
    dataset = load_dataset(tmp_path / "mine.npz")
    stream = TaskStream(dataset, num_tasks=3, seed=1)
    assert stream.most_samples() == (6, 18)
    for task in stream:
        assert len(task.train) == 6 and len(task.validation) == 2
        own = stream.class_order[task.classes[0]]
        np.testing.assert_array_equal(task.validation.read(slice(None)), TEST_TABLE[own == TEST_LABELS] + 9)
        assert (task.validation.labels == task.classes[0]).all() and len(np.unique(task.validation_ids)) == 2
    assert len(dataset.subset(classes=2).validation) == 4
    settings = RunSettings(str(tmp_path / "mine.npz"), epochs=1, tasks=3, energy="none")
    assert run_experiment(settings, results=tmp_path, progress=False).summary["tasks_done"] == 3


def test_names_and_places_hold_in_any_folder(tmp_path, monkeypatch):
    place = npz(tmp_path)
    (tmp_path / "digits" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("mine.npz") == locate("./mine.npz") == locate("mine", str(place)) == ("mine", str(place))
    assert locate("birds", "mine.npz") == ("birds", str(place))
    assert locate("mine.npz?layout=images,name=birds") == ("birds", f"{place}?layout=images,name=birds")
    assert locate("./digits") == ("my-digits", f"{tmp_path}/digits?name=digits")
    assert locate("digits", str(tmp_path)) == ("digits", str(tmp_path)) and locate("nothing") == ("nothing", "")
    assert locate("mine.npz", "/nowhere") == locate("mine.npz")
    function(tmp_path)
    assert locate("load_it:mine") == ("mine", f"{tmp_path}/load_it.py:mine")
    monkeypatch.chdir("/")
    assert locate("mine.npz", str(tmp_path)) == ("mine", str(place))
    for again in (("mine", str(place)), ("my-digits", f"{tmp_path}/digits?name=digits")):
        assert locate(*again) == again


def test_a_model_predicts_from_arrays_and_from_files(tmp_path):
    root = folders(tmp_path)
    asked = RunSettings(str(root), controller="fixed", epochs=1, tasks=1, energy="none")
    model = run_experiment(asked, results=tmp_path, progress=False).model
    files = sorted((root / "val").glob("*/*.png"))
    assert model.predict(files).tolist() == model.predict(TEST_IMAGES).tolist() and {*model.predict(files)} <= {*NAMES}
    with pytest.raises(InputError, match=r"train.csv can't be decoded"):
        (root / "train.csv").write_text("no image")
        model.predict([root / "train.csv"])


def test_a_run_s_settings_lead_back_to_its_data_and_changed_data_are_told(tmp_path):
    place = npz(tmp_path)
    asked = RunSettings(str(place), controller="fixed", epochs=1, tasks=1, energy="none")
    done = run_experiment(asked, results=tmp_path, progress=False)
    assert (done.settings.dataset, done.settings.data) == ("mine", str(place))
    again = run_experiment(done.settings, results=tmp_path, progress=False)
    assert again.summary["final_accuracy"] == done.summary["final_accuracy"]
    fingerprint = load_dataset(place).fingerprint
    np.savez(place, x_train=IMAGES, y_train=TEXTS[::-1], x_test=TEST_IMAGES, y_test=TEST_TEXTS)
    assert load_dataset(place).fingerprint != fingerprint


def test_what_a_stored_run_names_is_never_executed(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"import os\n\nos.mkdir({str(tmp_path / 'executed')!r})\n")
    monkeypatch.chdir(tmp_path)
    for stored in ({"dataset": "evil:load"}, {"dataset": "mine", "data": f"{tmp_path}/evil.py:load"}):
        run = Run(tmp_path, {"controller": "fixed", **stored}, {})
        with pytest.raises(InputError, match="There is no data set"):
            run_experiment(run.settings, results=tmp_path, progress=False)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(InputError, match="can't be made: FileExistsError|returned|no attribute"):
        load_dataset("evil:load")
    assert (tmp_path / "executed").exists()  # what the user asks for by name is
