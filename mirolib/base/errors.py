"""Errors a user is meant to read: one sentence that says what to change."""


class _Sentence(BaseException):
    """What a notebook shows by its sentence alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """IPython's hook for what a cell shows when this error ends it."""
        return [f"{type(self).__name__}: {self}"]


class MiroError(_Sentence, Exception):
    """Base of the errors below."""


class Interrupted(_Sentence, KeyboardInterrupt):
    """The user has stopped what went on; says what is kept and how to go on."""


class InputError(MiroError, ValueError):
    """A parameter, array or file given by the user cannot be used as it is."""


class StorageError(MiroError, RuntimeError):
    """The storage tier could not read or write: full or unwritable disk, another data set's store."""


class RunError(MiroError, RuntimeError):
    """A launched run did not finish."""


class CorruptRecordError(StorageError):
    """A stored sample does not match its checksum (torn or flipped bytes)."""


def brief(error: BaseException) -> str:
    """What an error says, on one line and without its full stop, to be told within another sentence."""
    return f"{' '.join(str(error).split()).rstrip('.') or repr(error):.300}"
