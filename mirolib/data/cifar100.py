"""CIFAR-100 from its original Python pickles, which can call or import nothing here."""

import contextlib
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.fetch import ARCHIVES
from mirolib.data.files import check_classes, read_file

CIFAR100 = DatasetSpec(
    name="cifar100",
    sample_shape=(3, 32, 32),
    sample_dtype="uint8",
    scale=255.0,
    mean=(0.50708, 0.48655, 0.44092),
    std=(0.26733, 0.25644, 0.27615),
    crop_padding=4,
    flip=True,
    presets={
        "small": Preset("cnn", tasks=6, epochs=32, batch_size=32, lr=0.05, stream_size=450, episodic_size=150,
                        swap_ratio=1.0, classes=30, per_class=100, test_per_class=20),
        "medium": Preset("cnn-wide", tasks=10, epochs=3.25, batch_size=32, lr=0.05, stream_size=2700,
                         episodic_size=2700, swap_ratio=1.0, per_class=300, test_per_class=100),
        "paper": Preset("preact-resnet32", tasks=10, epochs=70, batch_size=128, lr=2.0, weight_decay=1e-5,
                        epoch_of="buffers", loss="bce", schedule="milestones", milestones=(49, 63), gamma=0.2,
                        stream_size=5000, episodic_size=2000, swap_ratio=1.0),
    },
    source="https://www.cs.toronto.edu/~kriz/cifar.html, the Python version, 50,000 + 10,000 images of 32x32",
    licence="none stated; given for research, cite the technical report",
    citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, technical report, "
    "University of Toronto",
)  # fmt: skip

_CLASSES = 100
_ARCHIVE = ARCHIVES["cifar100"]
_RESTORE = "unpack the archive anew."
_MOST_BYTES = 1 << 29  # the original train has 155 MB
_MOST_STEPS = 1_000_000  # the original train has 200,000; each takes a few hundred bytes at most, texts aside
_SMALL_STEP = 1 / 5  # of a small number, or something once more: no more than its place
_MOST_TUPLES = 1_000  # hashing a key of many tuples in each other would exhaust the stack; an array takes three


def load(root: Path) -> Dataset:
    """Samples `(3, 32, 32) uint8` of `train` and `test` under their fine labels; fewer images or classes will do.

    There is an `InputError` if a file is missing, damaged or holds anything but arrays, lists and texts, or a class has
    training images only or test images only.
    """
    folder = _ARCHIVE.find(root)
    names = _content(folder / "meta").get("fine_label_names")
    names = names if isinstance(names, list | tuple) else []
    names = [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]
    if len(names) != _CLASSES or not all(type(name) is str for name in names):
        raise InputError(f"{folder / 'meta'} does not hold {_CLASSES} fine_label_names; {_RESTORE}")
    train, train_labels = _images(folder / "train")
    test, test_labels = _images(folder / "test")
    present = {int(label): names[label] for label in np.union1d(train_labels, test_labels)}
    check_classes(folder, present, _CLASSES, train_labels, test_labels)
    parts = train, train_labels, test, test_labels
    return Dataset.from_arrays(*parts, spec=CIFAR100, class_names=list(present.values()))


def _images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, 3, 32, 32) uint8` and fine labels `(n,) int64` of a part."""
    content = _content(path)
    data, labels = content.get("data"), content.get("fine_labels")
    # one row may be named over and over, each time in a few bytes
    if isinstance(data, list | tuple) and len(data) * 3072 <= path.stat().st_size:
        with contextlib.suppress(TypeError, ValueError):  # where they hold anything but small numbers
            rows = [bytes(row) for row in data if isinstance(row, list | tuple) and len(row) == 3072]
            data = np.frombuffer(b"".join(rows), np.uint8).reshape(len(data), 3072)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,) or len(data) == 0:
        raise InputError(f"{path} does not hold data as rows of 3072 uint8; {_RESTORE}")
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list | tuple) or len(labels) != len(data):
        raise InputError(f"{path} does not hold one of fine_labels for each of its {len(data)} images; {_RESTORE}")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:  # the type itself, since a truth value is an int too
            shown = label if type(label) is int and abs(label) < 1 << 63 else type(label).__name__
            raise InputError(f"{path} gives image {position} the label {shown}, not one of 0 to 99; {_RESTORE}")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _content(path: Path) -> dict[str, Any]:
    pickled = read_file(path, _MOST_BYTES, _ARCHIVE.advice)
    try:
        content = read_pickle(pickled)
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dictionary")
        # as text another key, that holds itself often, could take for ever
        named = [one for one in content.items() if isinstance(one[0], str | bytes)]
        arrays = [value.array if isinstance(value, _Array) else value for _, value in named]
        return dict(zip([k.decode("latin-1") if isinstance(k, bytes) else k for k, _ in named], arrays, strict=True))
    except Exception as error:  # pickle's documentation names some kinds for damage, and says that there are others
        why = error if isinstance(error, pickle.UnpicklingError) else "it is cut short or damaged"
        raise InputError(f"{path} can't be read ({why}); {_RESTORE}") from error


def read_pickle(pickled: bytes) -> Any:
    """What a pickle of protocol 0 to 5 holds, if that is data and no code; each array of integers as a value's `array`.

    Raises:
        pickle.UnpicklingError: If the pickle holds anything else; where it is damaged, also many another error.
    """
    steps, tuples, made = 0.0, 0, False
    # walked through first: pickle makes room for what a pickle claims to hold, pickletools reads what is there
    for number, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        name = opcode.name
        steps += _SMALL_STEP if name == "BININT1" or "GET" in name else 1
        # those that a part of an array is made of are no more, since it takes none in each other
        tuples += name.startswith("TUPLE") - (made and name == "REDUCE")
        made = name.startswith("TUPLE") or (made and ("PUT" in name or name == "MEMOIZE"))
        if steps > _MOST_STEPS or tuples > _MOST_TUPLES or ("PUT" in name and int(argument or 0) > number):
            raise pickle.UnpicklingError("it would take far more room than its data")
    return _Unpickler(pickled).load()


class _Unpickler(pickle.Unpickler):
    """Finds nothing by the names in a pickle but what stands in for the parts of an array."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled), encoding="latin-1")
        self._left = len(pickled)

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module} {name}"[:80].replace("._core.", ".core.")
        stand_ins = {
            "numpy dtype": _Type,
            "numpy ndarray": "ndarray",  # is handed to _reconstruct, and can't be called
            "numpy.core.multiarray _reconstruct": _Array,
            "numpy.core.numeric _frombuffer": _Array,
            "numpy.core.multiarray scalar": lambda kind, raw: int(_Array(raw, kind).array),
            "_codecs encode": self._encode,  # how Python 3 writes bytes for Python 2
            "__builtin__ bytes": self._encode,
        }
        if wanted not in stand_ins:
            raise pickle.UnpicklingError(f"it wants to call {wanted!r}, which is no array")
        return stand_ins[wanted]

    def _encode(self, text: str = "", encoding: str = "latin-1") -> bytes:
        # one text may be named over and over, each time in a few bytes
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it would take far more room than its data")
        return text.encode(encoding)  # which knows encodings of text alone, and so can't unpack anything


class _Part:
    """A part of an array."""

    def __new__(cls, *given: object) -> Any:
        if any(isinstance(inner, tuple) for one in given if isinstance(one, tuple) for inner in one):
            raise pickle.UnpicklingError("it holds tuples in each other")
        return super().__new__(cls)


class _Type(_Part):
    """An array's element type: NumPy's own would take any state that a pickle gives it, and trust it."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"):
            raise pickle.UnpicklingError("it holds an array of something other than integers")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class _Array(_Part):
    """An array, whole in protocol 5, else empty until its state comes: NumPy's own would make room for any shape."""

    def __init__(self, raw: Any, kind: Any, shape: Any = (), order: object = "C") -> None:
        self._state = (0, shape, kind, order == "F", raw)

    def __setstate__(self, state: Any) -> None:
        self._state = state

    @property
    def array(self) -> np.ndarray:
        # made when it is asked for: a pickle may give one text to any number of arrays
        _, shape, kind, fortran, raw = self._state
        content = raw.encode("latin-1") if isinstance(raw, str) else raw
        return np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")
