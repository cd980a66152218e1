"""CIFAR-100 from its original Python pickles, which are read without running anything that stands in them."""

from __future__ import annotations

import io
import logging
import pickletools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mirolib.base.errors import InputError
from mirolib.data.dataset import Dataset, DatasetSpec, Preset
from mirolib.data.files import find_folder, read_file

logger = logging.getLogger(__name__)

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
        "small": Preset("small-cnn", tasks=6, epochs=60, batch_size=32, lr=0.1, stream_size=450, episodic_size=150,
                        swap_ratio=1.0, classes=30, per_class=100, test_per_class=20),
        "paper": Preset("preact-resnet32", tasks=10, epochs=70, batch_size=128, lr=2.0, weight_decay=1e-5,
                        milestones=(49, 63), gamma=0.2, stream_size=5000, episodic_size=2000, swap_ratio=1.0),
    },
    source="https://www.cs.toronto.edu/~kriz/cifar.html, the Python version, 50,000 + 10,000 images of 32x32",
    licence="none stated; given for research, cite the technical report",
    citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, technical report, "
    "University of Toronto",
)  # fmt: skip

_CLASSES = 100
_WHERE = (
    "Get https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz and unpack it to "
    "cifar-100-python/train, cifar-100-python/test and cifar-100-python/meta."
)
_RESTORE = "unpack the archive anew."
_MOST_BYTES = 1 << 29
"""Largest file that is read; the original `train` has 155 MB."""


def load(root: Path) -> Dataset:
    """The images of `train` and `test` under their fine labels; fewer images or classes will do.

    Returns:
        Samples `(3, 32, 32) uint8`; classes that have no image at all are left out.

    Raises:
        InputError: If a file is missing, damaged or holds anything but arrays, lists and texts, or a class has
            training images only or test images only.
    """
    folder = find_folder(root, ("cifar-100-python",), _WHERE)
    names = _class_names(folder / "meta")
    train, train_labels = _images(folder / "train")
    test, test_labels = _images(folder / "test")
    present = np.union1d(train_labels, test_labels)
    for part, labels in (("train", train_labels), ("test", test_labels)):
        missing = np.setdiff1d(present, labels)
        if len(missing):
            raise InputError(
                f"{folder / part} has no image of class {names[missing[0]]}, which the other file has; {_RESTORE}"
            )
    logger.info(
        "cifar100: %d of %d classes, %d training and %d test images", len(present), _CLASSES, len(train), len(test)
    )
    return Dataset.from_arrays(
        train, train_labels, test, test_labels, spec=CIFAR100, class_names=[names[label] for label in present]
    )


def _class_names(path: Path) -> list[str]:
    """The names of the fine labels in `meta`."""
    names = _content(path).get("fine_label_names")
    if not isinstance(names, list) or len(names) != _CLASSES or not all(type(name) is str for name in names):
        raise InputError(f"{path} does not hold {_CLASSES} fine_label_names; {_RESTORE}")
    return names


def _images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, 3, 32, 32) uint8` and fine labels `(n,) int64` of a part."""
    content = _content(path)
    data, labels = _as_array(content.get("data")), content.get("fine_labels")
    if data is None or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or len(data) == 0:
        raise InputError(f"{path} does not hold data as rows of 3072 uint8; {_RESTORE}")
    if (array := _as_array(labels)) is not None:
        labels = array.tolist()
    if not isinstance(labels, list) or len(labels) != len(data):
        raise InputError(f"{path} does not hold one of fine_labels for each of its {len(data)} images; {_RESTORE}")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:
            shown = label if type(label) is int and abs(label) < 1 << 63 else type(label).__name__
            raise InputError(f"{path} gives image {position} the label {shown}, not one of 0 to 99; {_RESTORE}")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _content(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle file."""
    pickled = read_file(path, _MOST_BYTES, _WHERE)
    try:
        content = read_pickle(pickled)
    except PickleError as error:
        raise InputError(f"{path} can't be read ({error}); {_RESTORE}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no dictionary; {_RESTORE}")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


class PickleError(ValueError):
    """A pickle that is damaged or holds more than arrays, lists, dictionaries, texts and integers."""


class _Name(str):
    """What a pickle names to call, as `module name`; nothing is looked up."""


class _Type:
    """An array's element type, in the making."""

    def __init__(self, code: object, *_: object) -> None:
        """One of NumPy's integer codes."""
        if code not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"):
            raise PickleError("it holds an array of something other than integers")
        self.dtype = np.dtype(str(code))

    def build(self, _version: object, order: object, *_: object) -> None:
        """Takes the order of bytes."""
        self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<")


class _Array:
    """An array, in the making."""

    def __init__(self, *_: object) -> None:
        """An array without content."""
        self.array: np.ndarray | None = None

    def build(self, _version: object, shape: object, kind: object, fortran: object, raw: object) -> None:
        """Takes shape, type and content, of which each must suit the others."""
        content = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not (isinstance(content, bytes) and isinstance(kind, _Type) and isinstance(shape, tuple)):
            raise PickleError("it holds a damaged array")
        if any(type(length) is not int or not 0 <= length <= len(content) for length in shape):
            raise PickleError("it holds an array of impossible shape")
        self.array = np.frombuffer(content, dtype=kind.dtype).reshape(shape, order="F" if fortran else "C")


def _latin(text: object, encoding: object) -> bytes:
    """Bytes that were pickled as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleError("it holds bytes in an unknown encoding")
    return text.encode("latin-1")


def _as_array(value: object) -> np.ndarray | None:
    """The array in a value out of a pickle, if it is one."""
    return value.array if isinstance(value, _Array) else None


_CALLS: dict[str, Callable[..., object]] = {
    "numpy dtype": _Type,
    "numpy.core.multiarray _reconstruct": _Array,
    "numpy._core.multiarray _reconstruct": _Array,
    "_codecs encode": _latin,
}
"""What stands in for each name a pickle may call."""

_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES",
           "BINBYTES8", "SHORT_BINUNICODE", "BINUNICODE"}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS = {"PROTO", "FRAME", "STOP", "MARK", "TUPLE", "EMPTY_LIST", "EMPTY_DICT", "APPEND", "APPENDS", "SETITEM",
           "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE",
           "BUILD"}  # fmt: skip
_STEPS = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_KNOWN = {*_VALUES, *_CONSTANTS, *_TUPLES, *_OTHERS}
_MOST_STEPS = 1_000_000
"""Most steps of a pickle; the original `train` has 200,000. Each takes some 100 bytes at most, texts aside."""


def read_pickle(pickled: bytes) -> Any:
    """What a pickle holds, by a reader of its own that knows data and no code: nothing can be called or imported.

    Memory stays within a small multiple of the pickle's own length, whatever lengths it claims.

    Returns:
        Lists, dictionaries, tuples, texts, bytes, integers, None and truth values as they are; arrays of integers as
        objects with an attribute `array`.

    Raises:
        PickleError: If the pickle is cut short, damaged or holds anything else.
    """
    reader = _Reader()
    try:
        for count, (name, argument) in enumerate(_steps(io.BytesIO(pickled))):
            if count > _MOST_STEPS:
                raise PickleError(f"it has more than {_MOST_STEPS:,} steps")
            reader.step(name, argument)
        (content,) = reader.stack
    except PickleError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError) as error:
        raise PickleError("the pickle is cut short or damaged") from error
    return content


def _steps(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Name and argument of each step up to the last; an argument is read for known steps alone."""
    name = ""
    while name != "STOP":
        opcode = _STEPS[file.read(1)]
        name, argument = opcode.name, None
        if name not in _KNOWN:
            raise PickleError(f"it holds something other than arrays, lists and texts ({name})")
        if name == "GLOBAL":
            argument = " ".join(file.readline().rstrip(b"\n").decode("latin-1") for _ in range(2))
        elif opcode.arg is not None:
            argument = opcode.arg.reader(file)
        yield name, argument


class _Reader:
    """The stack machine of pickles, as far as data need it (see `pickletools` for what each step does)."""

    def __init__(self) -> None:
        """An empty machine."""
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Takes one step."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name in _TUPLES or name == "TUPLE":
            stack.append(tuple(self._pop(_TUPLES.get(name))))
        elif name in ("APPEND", "APPENDS"):
            self._extend(self._pop(1 if name == "APPEND" else None))
        elif name in ("SETITEM", "SETITEMS"):
            self._update(self._pop(2 if name == "SETITEM" else None))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_Name(argument or " ".join(self._pop(2))))
        elif name in ("REDUCE", "BUILD"):
            self._call(name)

    def _pop(self, count: int | None) -> list[Any]:
        """The topmost `count` values, or those above the last mark."""
        at = self._marks.pop() if count is None else len(self.stack) - count
        if not (self._marks[-1] if self._marks else 0) <= at <= len(self.stack):
            raise PickleError("the pickle is damaged")
        values = self.stack[at:]
        del self.stack[at:]
        return values

    def _extend(self, values: Iterable[Any]) -> None:
        """Adds values to the list on top."""
        if type(self.stack[-1]) is not list:
            raise PickleError("the pickle is damaged")
        self.stack[-1].extend(values)

    def _update(self, values: list[Any]) -> None:
        """Adds keys and values, in turn, to the dictionary on top."""
        if type(self.stack[-1]) is not dict or any(type(key) not in (str, bytes, int) for key in values[::2]):
            raise PickleError("the pickle is damaged")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def _call(self, name: str) -> None:
        """Makes an array or type, or gives one its content."""
        target, arguments = self._pop(2)
        if not isinstance(arguments, tuple):
            raise PickleError("the pickle is damaged")
        if name == "BUILD" and isinstance(target, _Type | _Array):
            target.build(*arguments)
            self.stack.append(target)
        elif name == "REDUCE" and isinstance(target, _Name) and target in _CALLS:
            self.stack.append(_CALLS[target](*arguments))
        else:
            shown = f"{target[:80]!r}" if isinstance(target, _Name) else "an object"
            raise PickleError(f"it wants to call {shown}, which is no array")
