"""The model that a run leaves: backbone, classifier, preprocessing and class names, in a file of numbers and names.

The file is a safetensors file: weights, and the rest as JSON in its header. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mirolib.base.errors import InputError, brief
from mirolib.base.files import write_atomic
from mirolib.base.state import loaded
from mirolib.data import DatasetSpec, Preset
from mirolib.learning.inputs import Transform, features_in_batches, layout_of, taken
from mirolib.learning.learner import Learner
from mirolib.learning.models import MODELS, ExpandingHead, build_model, feature_dim

MODEL_FORMAT = 1
_MOST_VALUES = 1 << 26  # of a sample: a file that is forged must not make its reader run out of memory
_CPU = torch.device("cpu")
_OF_SPEC = (  # what preprocessing and checks of samples need
    "name", "sample_shape", "sample_dtype", "scale", "mean", "std", "channel_axis", "layout", "columns", "seconds",
)  # fmt: skip


class _Names(NamedTuple):
    model: str  # empty for a module of the user's own
    method: str
    class_names: tuple[str, ...]


class TrainedModel:
    """What a learner has learnt, to predict with: on the processor, apart from the learner.

    The backbone leads from normalised samples `(n, *sample_shape)` to features `(n, d)`, the classifier from these to
    scores `(n, classes)` in the order of the class names, the method's own corrections included.
    """

    def __init__(self, spec: DatasetSpec, names: _Names, backbone: nn.Module, classifier: nn.Module) -> None:
        """Of its parts; see `of` and `load_model`."""
        self.spec, self._names, self.class_names = spec, names, names.class_names
        self._layout = layout_of(backbone, names.model)
        self.backbone = backbone.to(_CPU).to(memory_format=self._layout).eval()
        self.classifier = classifier.to(_CPU).eval()
        self._transform = Transform(self.spec, _CPU, 0)

    def __repr__(self) -> str:
        what = self._names.model or type(self.backbone).__name__
        return f"TrainedModel({what} on {self.spec.name}, {self._names.method}: {len(self.class_names)} classes)"

    @classmethod
    def of(cls, learner: Learner, class_names: Sequence[str]) -> TrainedModel:
        """A copy of what a learner has learnt; `class_names` are those of the data set in its own order."""
        classes = tuple(str(class_names[label]) for label in learner.dataset_labels)
        names = _Names(learner.model_name, type(learner.method).__name__, classes)
        return cls(learner.spec, names, *copy.deepcopy((learner.backbone, learner.method.classifier(learner.head))))

    def content(self) -> bytes:
        """What its file holds; an `InputError` if the classifier is not linear, or it keeps what is no tensor."""
        if type(self.classifier) not in (ExpandingHead, nn.Linear):
            raise InputError(f"A model's file holds linear classifiers; this is a {type(self.classifier).__name__}.")
        parts = {"backbone": self.backbone, "classifier": self.classifier}
        named = {f"{part}.{name}": v for part, one in parts.items() for name, v in one.state_dict().items()}
        if other := [name for name, value in named.items() if not isinstance(value, Tensor)]:
            raise InputError(f"A model's file holds tensors; {other[0]} is none.")
        tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in named.items()}
        facts = {"format": MODEL_FORMAT} | self._names._asdict() | {name: getattr(self.spec, name) for name in _OF_SPEC}
        return save(tensors, {"miro": json.dumps(facts)})

    @classmethod
    def read(cls, content: bytes, model: nn.Module | Callable[..., nn.Module] | str | None = None) -> TrainedModel:
        """The inverse of `content`; for `model` and the `InputError` see `mirolib.workbench.run.load_model`."""
        try:
            size = int.from_bytes(content[:8], "little")
            header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["miro"])
            if (written := header["format"]) != MODEL_FORMAT:
                raise InputError(f"It has format {written!r:.20}; this version reads {MODEL_FORMAT}")
            names = loaded(_Names, {name: header[name] for name in _Names._fields})
            silent = {"none": Preset(names.model, 1, 1, 1, 1.0, 1, 1, 0.0)}  # which a spec must have
            spec = loaded(DatasetSpec, {name: header[name] for name in _OF_SPEC} | {"presets": silent})
            if math.prod(spec.sample_shape) > _MOST_VALUES:
                raise InputError(f"It is for samples {spec.sample_shape}, which are too large")
            backbone = _backbone(names.model, spec.sample_shape, model)
            head = ExpandingHead(feature_dim(backbone, spec.sample_shape))
            tensors = load(content)
            head.weight, head.bias = (
                nn.Parameter(tensors.pop(f"classifier.{name}").float()) for name in ("weight", "bias")
            )
            if (head.weight.shape, head.bias.shape) != ((n := len(names.class_names), head.feature_dim), (n,)):
                raise InputError(f"Its classifier does not lead from {head.feature_dim} features to {n} classes")
            weights = {name.removeprefix("backbone."): value for name, value in tensors.items()}
            backbone.load_state_dict(weights, assign=model is None)
            if any(value.is_meta for value in (*backbone.parameters(), *backbone.buffers())):
                raise InputError("Its model keeps what its weights don't say; give the model as model=")
            return cls(spec, names, backbone, head)
        except Exception as error:  # of any kind: the model may be the user's own
            raise InputError(f"This is no model that can be used here: {brief(error)}.") from error

    def scores(self, samples: Any) -> np.ndarray:
        """Scores `(n, classes) float32` of samples as the data set has them: an `InputError` else, as of `predict`."""
        features = features_in_batches(self.backbone, self._transform, self._layout, taken(samples, self.spec))
        with torch.no_grad():
            return self.classifier(features).numpy()

    def predict(self, samples: Any) -> np.ndarray:
        """Name of the class of each sample, `(n,)` texts; otherwise as `scores`."""
        return np.array(self.class_names)[self.scores(samples).argmax(axis=1)]

    def probabilities(self, samples: Any) -> pd.DataFrame:
        """Softmax of the scores, a column a class by its name; otherwise as `scores`."""
        return pd.DataFrame(torch.from_numpy(self.scores(samples)).softmax(dim=1).numpy(), columns=self.class_names)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Writes it as ONNX: `samples` as the data set has them (of encoded images the pixels) to `scores`.

        Any number of samples may be given at once; the file's metadata hold `class_names`, a list in JSON. There is an
        `InputError` if the packages for it are missing, or PyTorch can't export the model, and a `StorageError` if the
        file can't be written.
        """
        if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
            raise InputError(f'Export needs {" and ".join(missing)}: pip install "mirolib[onnx]".')
        dtype = torch.float32 if self.spec.sample_dtype == "float32" else torch.uint8
        example = torch.zeros(2, *self.spec.sample_shape, dtype=dtype)
        whole = nn.Sequential(_Normalised(self._transform), *copy.deepcopy((self.backbone, self.classifier))).eval()
        try:
            program = torch.onnx.export(
                whole.to(memory_format=torch.contiguous_format), (example,), input_names=["samples"],
                output_names=["scores"], dynamic_shapes=({0: torch.export.Dim("n")},), dynamo=True, verbose=False,
            )  # fmt: skip
        except Exception as error:  # of any kind: the model may be the user's own
            raise InputError(f"PyTorch can't export this model: {brief(error)}.") from error
        assert program is not None, "given for dynamo"
        program.model.metadata_props["class_names"] = json.dumps(self.class_names)
        write_atomic(Path(path), program.model_proto.SerializeToString())
        return Path(path)


class _Normalised(nn.Module):
    """Preprocessing as a part of a model."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.gain, self.offset = transform.gain, transform.offset

    def forward(self, samples: Tensor) -> Tensor:
        return samples.to(torch.float32) * self.gain + self.offset


def _backbone(name: str, shape: tuple[int, ...], model: nn.Module | Callable[..., nn.Module] | str | None) -> nn.Module:
    """The backbone whose weights are to be filled in: by its name, or a copy of the user's own."""
    if model is None and name not in MODELS:
        what = f"The model {name!r:.99} is none of the library's" if name else "The model was one's own"
        raise InputError(f"{what}; give it as model=")
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    if callable(model):
        return model(shape)
    # made without memory, which only the weights in the file get
    with torch.device("meta" if model is None else "cpu"):
        return build_model(model or name, shape, 0)
