import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image
from safetensors.torch import load, save
from torch import nn

from mirolib import Batch, BiC, Dataset, DatasetSpec, ExperienceReplay, InputError, Learner, Preset, TaskStream
from mirolib.data.images import decoded
from mirolib.learning import trained
from mirolib.learning.bic import BiasLayer
from mirolib.learning.trained import TrainedModel

NAMES = ("ape", "bee", "cow", "dog")
KINDS = {
    "cnn": ((8, 8), "images"), "cnn1d": ((24, 3), "windows"), "mlp-bn": ((9,), "table"),
    "resnet18": ((16, 16, 3), "channels-last"), "cnn-wide": ((3, 12, 12), "images"),
    "linear": ((2, 30), "channels-first"),
}  # fmt: skip


def taught(model="cnn", method=None, own=None):
    """A learner that has seen a little of each of two tasks, and its data in the user's layout."""
    shape, layout = KINDS[model]
    samples = np.random.default_rng(0).random((40, *shape)) * 200
    samples = samples.astype(np.uint8 if "s-last" in layout or layout == "images" else np.float32)
    labels = np.arange(40) % 4
    dataset = Dataset.from_arrays(samples, labels, samples, labels, layout=layout, class_names=NAMES)
    learner = Learner(dataset.spec, replace(dataset.spec.preset(), model=model), method=method, model=own)
    for task in TaskStream(dataset, 2):
        learner.grow(task.classes, task.dataset_labels)
        learner.step(Batch(task.train.read(slice(0, 8)), task.train.labels[:8], np.empty(0, int)))
    if isinstance(learner.method, BiC):
        learner.method._layer = BiasLayer(2, 4, 0.6, -0.4)
    return learner, samples


@pytest.mark.parametrize("method", [ExperienceReplay, BiC])
@pytest.mark.parametrize("model", KINDS)
def test_what_is_read_back_predicts_just_what_the_learner_does(model, method):
    learner, samples = taught(model, method())
    for one in (TrainedModel.of(learner, NAMES), TrainedModel.read(TrainedModel.of(learner, NAMES).content())):
        names = np.array(NAMES)[learner.predict(samples)]
        assert one.predict(samples).tolist() == names.tolist()
        scores = learner.classify(learner.features(trained.taken(samples, learner.spec))).numpy()
        np.testing.assert_array_equal(one.scores(samples), scores)
        likely = one.probabilities(samples)
        assert likely.idxmax(axis=1).tolist() == names.tolist() and np.allclose(likely.sum(axis=1), 1)
        plain = one.backbone.to(memory_format=torch.contiguous_format)
        one._layout = torch.contiguous_format
        np.testing.assert_allclose(one.scores(samples), scores, atol=1e-5)
        assert plain is one.backbone


def test_it_is_a_copy():
    learner, samples = taught()
    model = TrainedModel.of(learner, NAMES)
    before = model.scores(samples)
    learner.step(Batch(trained.taken(samples[:8], learner.spec), np.zeros(8, int), np.empty(0, int)))
    np.testing.assert_array_equal(model.scores(samples), before)
    with pytest.raises(InputError, match=r"float64|float32, but this model takes"):
        model.predict(samples / 255)


def photo(color):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "JPEG")
    return file.getvalue()


def test_encoded_images_are_bytes_or_paths(tmp_path):
    preset = Preset("cnn", 1, 1, 4, 0.1, 4, 4, 0.0)
    spec = DatasetSpec("photos", (3, 16, 16), "jpeg", {"small": preset}, 255.0)
    learner = Learner(spec, preset)
    learner.grow((0, 1), (1, 0))
    photos = [photo("red"), photo("blue"), photo("green")]
    for number, content in enumerate(photos):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    model = TrainedModel.read(TrainedModel.of(learner, ["a", "b"]).content())
    names = np.array(["a", "b"])[learner.predict(photos)].tolist()
    assert model.predict(photos).tolist() == names
    assert model.predict(sorted(tmp_path.iterdir())).tolist() == names
    for wrong, sentence in (
        ([3], "Sample 0 is int; give encoded images as bytes"),
        (["no.jpg"], "no.jpg can't be read: No such file"),
        ([b"none"], "can't be decoded"),
        (photos[0], "give an array"),
    ):
        with pytest.raises(InputError, match=sentence):
            model.predict(wrong)
    export_and_compare(model, tmp_path, decoded(photos, (16, 16)).numpy(), photos)


class Tiny(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten())

    def forward(self, x):
        return self.layers(x)


def test_a_backbone_of_ones_own_is_given_again():
    learner, samples = taught(own=Tiny())
    content = TrainedModel.of(learner, NAMES).content()
    for own in (Tiny(), lambda shape: Tiny()):
        names = TrainedModel.read(content, own).predict(samples).tolist()
        assert names == np.array(NAMES)[learner.predict(samples)].tolist()
    for own, sentence in (
        (None, "The model was one's own; give it as model="),
        (Tiny(7), "size mismatch|does not lead"),
        ("cnn", "does not lead|size mismatch|Missing key"),
        (nn.Flatten(), "does not lead|Unexpected key"),
        ("nonsense", "no model 'nonsense'"),
        (lambda shape: 3, "give a torch.nn.Module"),
    ):
        with pytest.raises(InputError, match=sentence):
            TrainedModel.read(content, own)


def test_a_name_that_nobody_knows_here_asks_for_the_model(monkeypatch):
    monkeypatch.setitem(trained.MODELS, "tiny", lambda shape: Tiny())
    learner, samples = taught()
    learner = Learner(learner.spec, replace(learner.settings, model="tiny"))
    learner.grow((0, 1, 2, 3))
    content = TrainedModel.of(learner, NAMES).content()
    expected = np.array(NAMES)[learner.predict(samples)].tolist()
    assert TrainedModel.read(content).predict(samples).tolist() == expected
    monkeypatch.delitem(trained.MODELS, "tiny")
    with pytest.raises(InputError, match="model 'tiny' is none of the library's; give it as model="):
        TrainedModel.read(content)
    assert TrainedModel.read(content, Tiny()).predict(samples).tolist() == expected


def test_a_classifier_of_another_kind_is_refused():
    class Nearest(ExperienceReplay):
        def classifier(self, head):
            return nn.Sequential(head, nn.Softmax(1))

    with pytest.raises(InputError, match="holds linear classifiers; this is a Sequential"):
        TrainedModel.of(taught(method=Nearest())[0], NAMES).content()


CONTENT = TrainedModel.of(taught("linear")[0], NAMES).content()


def spoilt(**changes):
    header = json.loads(json.loads(CONTENT[8 : 8 + int.from_bytes(CONTENT[:8], "little")])["__metadata__"]["miro"])
    return save(load(CONTENT), {"miro": json.dumps(header | changes)})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (spoilt(format=2), "It has format 2; this version reads 1"),
        (spoilt(class_names=["a"]), "does not lead from 60 features to 1 classes"),
        (spoilt(class_names="abcd"), "class_names"),
        (spoilt(sample_shape=[1, 45, 2]), "does not lead from 90 features"),
        (spoilt(sample_shape=[1, 1 << 20, 1 << 20], mean=[0.0], std=[1.0]), "which are too large"),
        (spoilt(model="cnn1d"), "does not lead|Missing key"),
        (spoilt(mean=[float("nan")]), "not finite|mean|means"),
        (spoilt(scale=0), "the scale is not above 0"),
        (spoilt(scale=None), "scale"),
        (save({"a": torch.zeros(3)}), "no model that can be used"),
        (save({"a": torch.zeros(3)}, {"miro": "{"}), "no model that can be used"),
        (b"", "no model that can be used"),
        (CONTENT[:-4], "no model that can be used"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_a_sentence(content, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        TrainedModel.read(content)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@example(0, b"\xff" * 8)
@given(st.integers(0, len(CONTENT) - 1), st.binary(max_size=30))
def test_foreign_bytes_are_read_or_get_a_sentence(at, junk):
    try:
        TrainedModel.read(CONTENT[:at] + junk + CONTENT[at + len(junk) :])
    except InputError as error:
        assert "\n" not in str(error)


def export_and_compare(model, tmp_path, raw, samples):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.export(tmp_path / "model.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list(model.class_names)
    assert [one.name for one in session.get_inputs() + session.get_outputs()] == ["samples", "scores"]
    for rows in (slice(0, 1), slice(None)):
        scores = session.run(None, {"samples": raw[rows]})[0]
        np.testing.assert_allclose(scores, model.scores(samples)[rows], atol=1e-4)
        np.testing.assert_array_equal(scores.argmax(axis=1), model.scores(samples)[rows].argmax(axis=1))


@pytest.mark.parametrize("method", [ExperienceReplay, BiC])
@pytest.mark.parametrize("model", ["cnn", "cnn1d", "mlp-bn", "resnet18"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's exporter and the packages it takes
def test_onnx_gives_the_same_scores_for_raw_samples(tmp_path, model, method):
    learner, samples = taught(model, method())
    export_and_compare(TrainedModel.of(learner, NAMES), tmp_path, trained.taken(samples, learner.spec), samples)


def test_export_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'onnx and onnxscript: pip install "mirolib\[onnx\]"'):
        TrainedModel.of(taught()[0], NAMES).export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
