from dataclasses import replace

import pytest
import torch
from samples import make_dataset
from torch import nn

from mirolib import InputError, Learner, RunSettings, run_experiment
from mirolib.learning.models import MODELS, ExpandingHead, build_model, feature_dim


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "dim", "count"),
    [
        ("linear", (3, 32, 32), 3072, 0),
        ("mlp", (45,), 256, 45 * 256 + 256 + 256 * 256 + 256),
        # 3x3 convolutions with bias: 1→16, 16→32; hidden layer 32·4·4→64
        ("small-cnn", (1, 8, 8), 64, 160 + 4_640 + 32_832),
        # He et al.'s CIFAR ResNet-32 has 464,154 with 10 classes, 650 of them in the classifier, when its shortcuts are
        # free of parameters; the 1x1 projections add 16·32 + 32·64. Norms before instead of behind the convolutions
        # cover 160 + 304 + 608 + 64 instead of 16 + 160 + 320 + 640 channels: both 1,136.
        ("preact-resnet32", (3, 32, 32), 64, 464_154 - 650 + 512 + 2_048),
        # torchvision's 11,689,512 less its classifier (513,000), its 7x7 stem (9,408) replaced by a 3x3 one (1,728)
        ("resnet18", (3, 32, 32), 512, 11_689_512 - 513_000 - 9_408 + 1_728),
        ("resnet18", (3, 64, 64), 512, 11_689_512 - 513_000 - 9_408 + 1_728),
        ("resnet18", (3, 224, 224), 512, 11_689_512 - 513_000),
        # one channel instead of three: a third of the stem, 7·7·64 or 3·3·64, is left
        ("resnet18", (1, 224, 224), 512, 11_176_512 - 2 * 3_136),
        ("resnet18", (1, 125, 45), 512, 11_689_512 - 513_000 - 9_408 + 576),
        ("resnet18", (1, 100, 100), 512, 11_689_512 - 513_000 - 9_408 + 576),
        ("preact-resnet32", (1, 32, 32), 64, 464_154 - 650 + 512 + 2_048 - 2 * 9 * 16),
        ("small-cnn", (1, 100, 100), 64, 160 + 4_640 + 18_496 + 65_600),
        # 45→64 over 7, 64→128 over 5, 128→64 over 3, no biases; norms of two numbers a channel
        ("cnn1d", (1, 125, 45), 64, 20_160 + 40_960 + 24_576 + 2 * (64 + 128 + 64)),
    ],
)
def test_features_and_parameter_counts(name, shape, dim, count):
    model = build_model(name, shape, seed=0)
    assert feature_dim(model, shape) == dim
    assert parameters(model) == count


def test_resnet18s_stem_goes_by_the_image_size():
    for side, kernel, left in ((64, 3, 64), (224, 7, 56)):
        model = build_model("resnet18", (3, side, side), 0)
        assert model.conv1.kernel_size == (kernel, kernel)
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        assert stem(torch.zeros(1, 3, side, side)).shape == (1, 64, left, left)


def test_the_1d_network_runs_over_time_and_mixes_sensors_only_as_channels():
    model = build_model("cnn1d", (1, 20, 3), 0).eval()
    first = model[1]
    assert isinstance(first, nn.Conv1d) and first.weight.shape == (64, 3, 7)
    x = torch.randn(2, 1, 20, 3)
    expected = torch.stack([  # step 10 sees steps 7 to 13 of each sensor
        torch.stack([(x[n, 0, 7:14].T * first.weight[k]).sum() for k in range(64)]) for n in range(2)
    ])  # fmt: skip
    torch.testing.assert_close(model[:2](x)[:, :, 10], expected, rtol=1e-4, atol=1e-5)
    shifted = torch.zeros(1, 1, 60, 3)
    shifted[:, :, 20:40] = x[:1]
    torch.testing.assert_close(model(shifted), model(shifted.roll(5, dims=2)), rtol=1e-4, atol=1e-5)


def test_growing_keeps_the_old_logits():
    head, generator = ExpandingHead(6), torch.Generator().manual_seed(0)
    head.grow(3, generator)
    features = torch.randn(5, 6)
    before, weight, bias = head(features), head.weight.clone(), head.bias.clone()
    head.grow(4, generator)
    assert torch.equal(head.weight[:3], weight) and torch.equal(head.bias[:3], bias)
    torch.testing.assert_close(head(features)[:, :3], before)
    assert head(features).shape == (5, 7)
    assert head.weight.requires_grad and head.weight.abs().max() <= 6**-0.5


@pytest.mark.parametrize("name", [name for name in MODELS if name != "linear"])
def test_every_model_learns_through_all_its_parameters(name):
    model = build_model(name, (1, 16, 16), 0)
    model(torch.randn(4, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: build_model("resnet9000", (3, 32, 32), 0), "choose one of linear, mlp"),
        (lambda: build_model("cnn1d", (3, 32, 32), 0), "needs sensor windows"),
        (lambda: build_model("small-cnn", (45,), 0), "needs images"),
        (lambda: feature_dim(nn.Linear(3, 2), (5,)), "can't take inputs of shape"),
        (lambda: feature_dim(nn.Conv2d(1, 2, 3), (1, 8, 8)), "flatten them"),
    ],
)
def test_bad_models_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


PRESET = make_dataset().spec.preset()


class Odd(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(16, 4), change

    def forward(self, x):
        return self.change(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Odd(lambda x: x.half()), r"features of torch.float16; convert them to torch.float32"),
        (Odd(lambda x: (x, x)), "must return a tensor of features .* but returns tuple"),
        (Odd(lambda x: object()), "but returns object"),
        (Odd(lambda x: x[:1]), r"returns \(1, 4\) for \(2, 1, 4, 4\)"),
        (Odd(lambda x: x.nonsense), "can't take inputs of shape .*AttributeError: 'Tensor' object has no attribute"),
        (lambda x: x.flatten(1), "give a torch.nn.Module"),
    ],
)
def test_odd_features_are_told(model, sentence):
    with pytest.raises(InputError, match=sentence):
        Learner(make_dataset(shape=(1, 4, 4)).spec, PRESET, model=model)


def test_a_vision_transformer_of_another_size_is_told_with_its_cause():
    from torchvision.models.vision_transformer import VisionTransformer

    model = VisionTransformer(image_size=224, patch_size=112, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
    with pytest.raises(InputError, match="can't take inputs of shape") as caught:
        feature_dim(model, (3, 16, 16))
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_frozen_model_stays_frozen_by_name_too(monkeypatch, tmp_path):
    built = []

    def frozen(shape):
        built.append(build_model("cnn", shape, 0).eval().requires_grad_(False))
        return built[-1]

    monkeypatch.setitem(MODELS, "frozen", frozen)
    settings = RunSettings(
        model="frozen", tasks=2, epochs=1, controller="fixed", energy="none", stream_size=20, batch_size=6
    )
    before = build_model("cnn", (1, 4, 4), 0).state_dict()
    run_experiment(settings, dataset=make_dataset(shape=(1, 4, 4)), results=tmp_path, progress=False)
    assert not built[-1].training and before.keys() == built[-1].state_dict().keys()
    fresh = built[-1].state_dict()
    assert all(torch.equal(fresh[name], 0 * fresh[name]) for name in fresh if name.endswith("running_mean"))


def test_one_sample_can_not_be_normalised_over():
    with pytest.raises(InputError, match="normalises over batches, and batch_size is 1; choose 2 or more"):
        Learner(make_dataset(shape=(1, 8, 8)).spec, replace(PRESET, batch_size=1, model="resnet18"))
    Learner(make_dataset(shape=(1, 8, 8)).spec, replace(PRESET, batch_size=1, model="small-cnn"))
