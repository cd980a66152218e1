"""Faces of packages: names that are imported when they are first used, as the stub beside the face says."""

import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


class Face(ModuleType):
    """The module of a package whose names come from its `__init__.pyi`; importing it imports none of them.

    The stub is what type checkers and editors read; `dir` gives its names alone.
    """

    _places: dict[str, tuple[str, str]]

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        where, what = self._places.get(name, (self.__name__, name))  # by default a module of the package
        if where != self.__name__ and what in dir(import_module(where)):  # and no module itself
            found: object = getattr(import_module(where), what)
        else:
            try:
                found = import_module(f"{where}.{what}")
            except ModuleNotFoundError:
                raise AttributeError(f"{self.__name__} has no {name}; it has {', '.join(self._places)}.") from None
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: object) -> None:
        # a module that has just been imported must not take the place of its function of the same name
        if not (name in self._places and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*self._places, "__doc__", "__name__", "__path__"]


def wear(package: str) -> list[str]:
    """Gives a package its face; the names, for its `__all__`."""
    module = sys.modules[package]
    stub = ast.parse(Path(str(module.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    module._places = {a.asname or a.name: (str(n.module), a.name) for n in imports for a in n.names}  # type: ignore[attr-defined]
    module.__class__ = Face
    return list(module._places)
