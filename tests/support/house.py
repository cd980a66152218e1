"""Measures the tree of the library: `python tests/support/house.py` prints each bar of docs/architecture.md."""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (
    ("base",), ("data", "energy"), ("memory",), ("learning", "records"), ("controller",), ("experiment",),
    ("workbench",), ("viz",), ("widgets", "paper"), ("__init__",), ("__main__",),
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}


def modules(package: str = "mirolib") -> dict[str, Path]:
    """Files of a package by their dotted names; a package's face under `<package>.__init__`."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}


def imports(name: str, known: dict[str, Path]) -> Iterator[str]:
    """Modules of `known` that one imports, wherever in the file: lazily, relatively, and for types alone too."""
    for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            wanted = [f"{module}.{alias.name}" for alias in node.names]
            wanted = [one if {one, f"{one}.__init__"} & known.keys() else module for one in wanted]
        else:
            continue
        yield from (found for one in wanted for found in (one, f"{one}.__init__") if found in known)


def graph(package: str = "mirolib") -> dict[str, set[str]]:
    """What each module imports."""
    known = modules(package)
    return {name: set(imports(name, known)) - {name} for name in known}


def room(module: str) -> str:
    """The entry at the top of the library that a module lies in."""
    return module.split(".")[1]


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports; empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def climbing(arrows: dict[str, set[str]]) -> list[str]:
    """Imports that do not lead to a lower layer, and imports of a package's own face."""
    found = []
    for name, targets in arrows.items():
        for target in targets:
            own = room(name) == room(target)
            if (own and target.count(".") == 2 and target.endswith("__init__")) or (
                not own and FLOOR[room(target)] >= FLOOR[room(name)]
            ):
                found.append(f"{name} imports {target}")
    return found


def functions() -> dict[str, int]:
    """Lines of each function, decorators and docstring included."""
    found = {}
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{name}:{node.name}:{node.lineno}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    return found


def comments() -> int:
    """Lines with a comment, without those that only talk to a linter or formatter."""
    found = 0
    for file in modules().values():
        for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
            marks = ("# noqa", "# type:", "# fmt:", "# pragma", "# ruff:")
            found += token.type == tokenize.COMMENT and not token.string.startswith(marks)
    return found


def bars() -> dict[str, tuple[float, float]]:
    """Each measure with its bar."""
    arrows, lines = graph(), {name: len(file.read_text().splitlines()) for name, file in modules().items()}
    total = sum(lines.values()) + sum(len(file.read_text().splitlines()) for file in (ROOT / "mirolib").rglob("*.pyi"))
    tops = {room(name) for name in arrows}
    return {
        # those of sensors (17,455), streams (+350), the Lab (+300) and two methods (+137) allow 18,242
        "lines of the library, stubs too (at most)": (total, 18295),
        "entries at the top (at most)": (len(tops), 14),
        "layers (at most)": (len(LAYERS), 11),
        "imports that do not lead down (at most)": (len(climbing(arrows)), 0),
        "modules in a circle of imports (at most)": (len(circle(arrows)), 0),
        "lines of the longest file (at most)": (max(lines.values()), 400),
        "lines of the longest function (at most)": (max(functions().values()), 55),
        "why-comments, % of lines (at least)": (round(100 * comments() / total, 2), 2.5),
    }


def report() -> str:
    """Bars and tree as docs/architecture.md shows them."""
    rows = [f"| {bar} | {measured:,} | {limit:,} |" for bar, (measured, limit) in bars().items()]
    tree: dict[str, list[str]] = {}
    for file in modules().values():
        if file.name != "__init__.py" and file.parent.name != "mirolib":
            tree.setdefault(str(file.relative_to(ROOT / "mirolib").parent), []).append(file.stem)
    lines = [f"{folder + '/':17}{' '.join(files)}" for folder, files in tree.items()]
    return "\n".join(["| measure | found | bar |", "|---|---|---|", *rows, "", "```", *lines, "```"]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(report())
    for problem in [*climbing(graph()), *circle(graph()), *circle(graph("benchmarks"))]:
        sys.stdout.write(problem + "\n")
