"""Backbones by name and the head that grows with each task.

A backbone maps a batch `(n, *sample_shape) float32` to features `(n, d)`; any `nn.Module` that does so will do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mirolib.base.errors import InputError, brief


class ExpandingHead(nn.Module):
    """A linear layer from features `(n, feature_dim)` to one logit a class; none at first."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.weight = nn.Parameter(torch.empty(0, feature_dim))
        self.bias = nn.Parameter(torch.empty(0))

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Adds so many classes; the weights of those already there stay as they are.

        New rows are drawn like those of `torch.nn.Linear`, uniform within ±1/√d, on the CPU, so that they are the same
        on every device.
        """
        rows = (torch.rand(classes, self.feature_dim + 1, generator=generator) * 2 - 1) * self.feature_dim**-0.5
        rows = rows.to(self.weight)  # its device and type
        # new parameters, since an optimiser's state would not fit one that has grown
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), rows[:, 1:]]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), rows[:, 0]]))

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(n, classes)` of features `(n, d)`."""
        return functional.linear(features, self.weight, self.bias)


class PreActBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016, "Identity mappings in deep residual networks", Fig. 4e)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        # a 1x1 projection where the shape changes, else the sum could not be taken
        same = stride == 1 and channels_in == channels_out
        self.project = None if same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps `(n, channels_in, h, w)` to `(n, channels_out, h/stride, w/stride)`."""
        active = functional.relu(self.norm1(x))
        shortcut = x if self.project is None else self.project(active)
        return shortcut + self.conv2(functional.relu(self.norm2(self.conv1(active))))


def _small_cnn(shape: tuple[int, ...]) -> nn.Module:
    """Two convolutions, three for images from 16x16 on, and a hidden layer."""
    widths = (16, 32) if min(shape[1:]) < 16 else (16, 32, 64)  # a third would leave 2x2 of the digits' 8x8
    layers: list[nn.Module] = []
    for stride, width in zip((1, 2, 2), widths, strict=False):
        layers += [nn.LazyConv2d(width, 3, stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.LazyLinear(64), nn.ReLU())


def _mlp_bn(shape: tuple[int, ...]) -> nn.Module:
    """Two hidden layers of 256 units with batch normalisation, for feature vectors."""
    hidden = (one for _ in range(2) for one in (nn.LazyLinear(256, bias=False), nn.BatchNorm1d(256), nn.ReLU()))
    return nn.Sequential(nn.Flatten(), *hidden)


def _cnn(shape: tuple[int, ...], scale: int = 1) -> nn.Module:
    """3x3 convolutions with 2x2 pooling and batch normalisation, three or, below 16 pixels, two; then the mean."""
    layers: list[nn.Module] = []
    for width in (24, 48) if min(shape[1:]) < 16 else (16, 32, 64):
        layers += [nn.LazyConv2d(scale * width, 3, padding=1, bias=False)]
        # pooled before it is normalised, a quarter of the work there; not where nothing would be left
        layers += [nn.MaxPool2d(2)] if min(shape[1:]) >= 4 else []
        layers += [nn.BatchNorm2d(scale * width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _cnn1d(shape: tuple[int, ...]) -> nn.Module:
    """Three convolutions over time and the mean over time, for sensor windows `(1, time, sensors)`.

    A fully convolutional network (Wang, Yan, Oates 2017, "Time series classification from scratch with deep neural
    networks") of half its width, with kernels of odd length.
    """
    from torchvision.ops import Permute

    # the sensors become channels: (n, 1, time, sensors) to (n, sensors, time)
    layers: list[nn.Module] = [nn.Sequential(nn.Flatten(1, 2), Permute([0, 2, 1]))]
    for width, kernel in ((64, 7), (128, 5), (64, 3)):
        convolution = nn.LazyConv1d(width, kernel, padding=kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())


def _preact_resnet32(shape: tuple[int, ...]) -> nn.Module:
    """Pre-activation ResNet-32 for small images: three stages of five blocks with 16, 32 and 64 channels."""
    layers: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)]
    for before, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [PreActBlock(before, width, stride), *(PreActBlock(width, width, 1) for _ in range(4))]
    return nn.Sequential(*layers, nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _resnet18(shape: tuple[int, ...]) -> nn.Module:
    """Torchvision's ResNet-18 (He et al. 2016, "Deep residual learning for image recognition") for any channel number.

    Images whose shorter side has 112 pixels or more get the original stem, a 7x7 convolution of stride 2 and max
    pooling; smaller ones, spectrograms and sensor windows among them, a 3x3 convolution of stride 1 and no pooling.
    """
    from torchvision.models import resnet18

    model = resnet18(weights=None)
    if min(shape[1:]) < 112:  # the original stem divides the size by four, which leaves too little of small images
        model.conv1 = nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    elif shape[0] != 3:
        model.conv1 = nn.Conv2d(shape[0], 64, 7, 2, 3, bias=False)
    model.fc = nn.Identity()
    return model


MODELS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "linear": lambda shape: nn.Flatten(),  # the samples themselves, for the head to classify
    # two hidden layers of 256 units, for feature vectors
    "mlp": lambda shape: nn.Sequential(nn.Flatten(), nn.LazyLinear(256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
    "mlp-bn": _mlp_bn,
    "small-cnn": _small_cnn,
    "cnn": _cnn,
    "cnn-wide": partial(_cnn, scale=2),
    "cnn1d": _cnn1d,
    "preact-resnet32": _preact_resnet32,
    "resnet18": _resnet18,
}

_FOR_IMAGES = frozenset(MODELS) - {"linear", "mlp", "mlp-bn"}


def build_model(name: str, sample_shape: tuple[int, ...], seed: int) -> nn.Module:
    """Builds a backbone of `MODELS` with weights drawn from `seed`; PyTorch's global generator is left as it was.

    A sample is `(channels, height, width)` for the convolutional ones, `(1, time, sensors)` for `cnn1d`. There is an
    `InputError` if no model has that name, or the model needs images or sensor windows and the samples are none.
    """
    if name not in MODELS:
        raise InputError(f"There is no model {name!r}; choose one of {', '.join(MODELS)}.")
    if len(sample_shape) != 3 and name in _FOR_IMAGES:
        raise InputError(f"Model {name} needs images (channels, height, width); samples are {sample_shape}.")
    if name == "cnn1d" and sample_shape[0] != 1:
        raise InputError(f"Model cnn1d needs sensor windows (1, time, sensors); samples are {sample_shape}.")
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # no device, since weights are drawn on the processor
        torch.default_generator.manual_seed(seed)
        model = MODELS[name](sample_shape)
        feature_dim(model, sample_shape)  # gives lazy layers their shape
    return model


@contextmanager
def evaluating(*parts: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; a model, or parts of one, are left as they were."""
    modes = [(module, module.training) for part in parts for module in part.modules()]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for module, training in modes:  # one by one, since a user's own model may keep some parts frozen
            module.training = training


def norms_of(model: nn.Module) -> list[nn.Module]:
    """The layers that normalise over a batch in training."""
    return [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training]


def feature_dim(backbone: nn.Module, sample_shape: tuple[int, ...]) -> int:
    """Length of a backbone's feature vectors; an `InputError` if it doesn't map `(2, *sample_shape)` to `(2, d)`."""
    if not isinstance(backbone, nn.Module):
        raise InputError(f"The model is {backbone!r:.99}; give a torch.nn.Module, whose weights can be trained.")
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    with evaluating(backbone), torch.no_grad():
        return features_of(backbone, torch.zeros(2, *sample_shape, device=device)).shape[1]


def features_of(backbone: nn.Module, inputs: Tensor) -> Tensor:
    """Features `(n, d)` of inputs `(n, *sample_shape)`.

    There is an `InputError` if the model fails on them, or returns anything else; what it raised is the error's cause.
    """
    shape = tuple(inputs.shape)
    try:
        features = backbone(inputs)
    except Exception as error:  # of any kind: the model may be the user's own
        if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise
        said = f"{type(error).__name__}: {brief(error)}"
        raise InputError(f"The model can't take inputs of shape {shape}: {said}") from error
    if not isinstance(features, Tensor):
        raise InputError(f"The model must return a tensor of features (n, d) but returns {type(features).__name__}.")
    if features.ndim != 2 or len(features) != len(inputs):
        raise InputError(
            f"The model must return features (n, d) but returns {tuple(features.shape)} for {shape}; flatten them."
        )
    if features.dtype != inputs.dtype:
        raise InputError(f"The model returns features of {features.dtype}; convert them to {inputs.dtype}.")
    return features
