"""Launching a notebook headless: parameters checked first, then papermill, then the run's own word for how it ended."""

import ast
import contextlib
import io
import json
import logging
import os
import re
import signal
import tempfile
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import pandas as pd
import psutil
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mirolib.base.errors import InputError, Interrupted, RunError, StorageError
from mirolib.data import LOADERS, dataset_spec, locate, own
from mirolib.energy import named
from mirolib.experiment.settings import RunSettings
from mirolib.experiment.study import check_study
from mirolib.workbench.folder import LAUNCHED, RunFolder, claim, new_run_id, owned, refuse_changes, run_path
from mirolib.workbench.kernels import kernel_options, kernels_of, last_words
from mirolib.workbench.run import PROJECT, load_asked, load_run

_PATHS = {"data", "energy"}  # parameters that may name a file or folder
_FILES = 128
_INTERRUPT_S = 10.0
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}  # as they stand in JSON

logger = logging.getLogger(__name__)

NOTEBOOKS = PROJECT / "notebooks"


@dataclass(frozen=True)
class Launched:
    """A notebook that was run: where the executed `notebook` lies, and `run`, its row of `load_runs`."""

    notebook: Path
    run: pd.Series


def notebook_path(name: str) -> Path:
    """The notebook of the repository with a name such as `10_run`; an `InputError` if there is none."""
    known = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    stem = str(name).removesuffix(".ipynb")
    if stem not in known:
        raise InputError(f"There is no notebook {name!r:.200}; choose one of {', '.join(known)}, without its folder.")
    return known[stem]


def declared_parameters(notebook: str) -> dict[str, str]:
    """The parameters of a notebook with the type each is annotated with; an `InputError` if there is none."""
    from papermill import inspect_notebook

    found = inspect_notebook(str(notebook_path(notebook)))
    return {name: entry["inferred_type_name"] for name, entry in found.items()}


def check_parameters(
    notebook: str, parameters: dict[str, Any], declared: dict[str, str] | None = None
) -> dict[str, Any]:
    """Checks parameters, or texts that stand for them, against names and annotated types of a notebook's parameters.

    A notebook that takes all parameters of `RunSettings`, as `10_run` does, also has its ranges and names checked, as
    far as they need no data. For many checks in a row, what it has `declared` may be given.

    Returns:
        The values in the types the notebook declares; the user's own data by name and absolute place, see
        `mirolib.data.locate`.

    Raises:
        InputError: If a name is unknown, or a value has another type or is out of range.
    """
    checked, declared = {}, declared or declared_parameters(notebook)
    for name, value in parameters.items():
        if name not in declared:
            raise InputError(f"Notebook {notebook} has no parameter {name!r}; it takes {', '.join(declared)}.")
        checked[name] = _converted(name, value, declared[name])
    if checked.get("checkpoint_minutes", 0) < 0:
        raise InputError(f"checkpoint_minutes is {checked['checkpoint_minutes']}; choose 0 (after each epoch) or more.")
    # the kernel works in the notebooks' folder, the caller in another
    if isinstance(checked.get("dataset"), str):
        name, place = locate(checked["dataset"], str(checked.get("data", "")))
        if own.is_one(place):
            checked |= {"dataset": name, "data": place} if "data" in declared else {"dataset": place}
    if isinstance(checked.get("datasets"), list):
        checked["datasets"] = [place if own.is_one(place := locate(name)[1]) else name for name in checked["datasets"]]
    settings = {field.name for field in fields(RunSettings)}
    # a notebook with only some of them gives them another meaning
    if settings <= set(declared):
        run = RunSettings(**{name: value for name, value in checked.items() if name in settings})
        # `RunSettings` leaves these open, since objects can take their place
        if run.dataset in LOADERS or not own.is_one(run.data):
            dataset_spec(run.dataset).preset(run.preset)
        if run.energy != "auto" and not run.energy.endswith(".csv"):
            named(run.energy).close()
    _check_studied(notebook, checked)
    return checked


def _check_studied(notebook: str, checked: Mapping[str, Any]) -> None:
    """Checks values by the calls of `check_study` in a notebook, as these would once its kernel has started."""
    for cell in json.loads(notebook_path(notebook).read_bytes())["cells"]:
        source = "".join(cell["source"])
        for node in ast.walk(ast.parse(source)) if "check_study(" in source and cell["cell_type"] == "code" else ():
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "check_study":
                kind = {"int": int, "float": float, "str": str, "tuple": tuple}[ast.unparse(node.args[0])]
                values = {str(one.arg): ast.unparse(one.value) for one in node.keywords}
                least = int(values.pop("least", 1))
                check_study(kind, least=least, **{k: checked[v] for k, v in values.items() if v in checked})


@cache
def _type(declared: str) -> TypeAdapter[Any]:
    # evaluated as Python would: the notebook is about to be run anyway
    annotation = eval(declared, {"Optional": Optional, "Union": Union})
    # strict, or 1.0 would pass for an int; JSON and the checks of ranges know no infinities
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _converted(name: str, value: Any, declared: str) -> Any:
    """A value in the declared type, or one that a text stands for; what is declared a text stays one."""
    if isinstance(value, str):
        with contextlib.suppress(ValidationError):
            return _type(declared).validate_json(_PYTHON_WORDS.get(value.strip(), value))
        if re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", value.strip()):  # as Python reads them and JSON doesn't
            with contextlib.suppress(ValueError):  # ValidationError is one
                return _type(declared).validate_python(float(value))
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    try:
        return _type(declared).validate_python(list(value) if isinstance(value, tuple) else value)
    except ValidationError as error:
        raise InputError(f"Parameter {name} is {value!r:.200}; give a value of type {declared}.") from error


class _LogLines(io.TextIOBase):
    """A file for what a notebook prints, which becomes lines of this module's log."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        for line in filter(None, text.splitlines()):
            logger.info("%s: %s", self._name, line)
        return len(text)


def launch(notebook: str, *, progress: bool = True, resume: bool = False, **parameters: Any) -> Launched:
    """Runs a notebook of the repository with papermill, from any folder; what it prints is logged as it comes.

    The executed notebook lies in the run's folder. The run is done only if its `run.json` says so: a kernel that dies
    leaves a notebook that looks whole. Among the parameters of its cell are `results`, the folder of all results, and
    `run_id`. With `resume` a run that has been stopped goes on from its last checkpoint (one that has finished is
    handed back as it is); the notebook must have such a parameter, and `run_id` be given.

    Raises:
        InputError: If the notebook or a parameter is unknown, a value has another type or is out of range, or the run
            exists already; nothing has then been started.
        StorageError: If the results folder can't be written, or is taken away meanwhile.
        RunError: If the run failed; the sentence is its own.
    """
    return launch_from("", notebook, progress, resume, parameters)


def launch_from(warm: str, notebook: str, progress: bool, resume: bool, parameters: dict[str, Any]) -> Launched:
    """`launch`, in a kernel forked from the process at the address `warm`, unless that is empty."""
    if 0 <= (most := getattr(os, "sysconf", lambda _: -1)("SC_OPEN_MAX")) < _FILES:  # or it ends inside a library
        raise InputError(f"A launch takes {_FILES} open files, and {most} are allowed; raise that with ulimit -n.")
    declared, parameters = declared_parameters(notebook), parameters | ({"resume": True} if resume else {})
    if not {"run_id", "results"} <= set(declared):
        raise InputError(f"Notebook {notebook} has no parameter run_id to be launched with; open it in JupyterLab.")
    if parameters.get("resume") is True and ("resume" not in declared or not parameters.get("run_id")):
        raise InputError(f"To resume a run of {notebook}, name it by run_id; the notebook must take resume.")
    checked = check_parameters(notebook, parameters, declared)
    if resume and (file := run_path(checked.get("results"), notebook, checked["run_id"]) / "run.json").exists():
        # what it was asked for need not be said again
        checked = {name: value for name, value in load_asked(file).items() if name in declared} | checked
    for name in _PATHS & set(checked):  # the kernel works in the notebooks' folder, the caller in another
        place = Path(str(checked[name])).expanduser()
        if checked[name] and place.exists():  # not of what has options, which is absolute already
            checked[name] = str(place.absolute())
        elif place.suffix == ".csv":
            raise InputError(f"There is no file {place}; name one that is there.")
    run_id = checked.get("run_id") or new_run_id(checked.get("seed", 0))
    path = run_path(checked.get("results"), notebook, run_id)
    output, file = path / "notebook.ipynb", path / "run.json"
    if resume and file.exists() and (done := load_run(file))["status"] == "finished":
        refuse_changes(run_id, load_asked(file), checked)
        return Launched(output, pd.Series(done))
    with owned(path, LAUNCHED):  # or two launches of one run would write one notebook
        with owned(path):
            claim(path, resume=resume)
        _execute(notebook, output, checked | {"run_id": run_id, "results": str(path.parents[1])}, progress, warm)
    done = load_run(file)
    if done["status"] != "finished":
        raise RunError(f"{notebook} ended without a finished run in {path}; see {output}.")
    if done.get("concerns"):
        logger.warning("Run %s: %s", run_id, done["concerns"])
    return Launched(output, pd.Series(done))


def _execute(notebook: str, output: Path, parameters: dict[str, Any], progress: bool, warm: str) -> None:
    """Runs a notebook in a kernel of its own, forked from the warm process there, if any."""
    # imported here: papermill and what it needs take longer to import than all else
    import papermill
    from nbclient.exceptions import DeadKernelError

    logger.info("running %s into %s", notebook, output.parent)
    try:
        # sockets of its own, so that launches side by side don't take each other's; their paths may have 107 bytes
        folder = "/tmp" if len(os.fsencode(tempfile.gettempdir())) > 80 and os.path.isdir("/tmp") else None
        with tempfile.TemporaryDirectory(prefix="miro-", dir=folder, ignore_cleanup_errors=True) as sockets:
            try:
                papermill.execute_notebook(
                    # papermill fills in what stands in braces
                    *(str(file).replace("{", "{{").replace("}", "}}") for file in (notebook_path(notebook), output)),
                    parameters=parameters,
                    # not `cwd`, for which papermill moves the whole process, and with it other launches
                    resources={"metadata": {"path": str(NOTEBOOKS)}},
                    progress_bar=progress,
                    stdout_file=_LogLines(parameters["run_id"]),
                    store_widget_state=False,
                    **kernel_options(Path(sockets), warm),
                )
            except DeadKernelError:
                raise
            except RuntimeError as error:  # of jupyter_client, whose own kinds are these; its last line says why
                raise RuntimeError(last_words(Path(sockets)) or str(error)) from error
    except papermill.PapermillExecutionError as error:
        raise _leave(notebook, output, parameters, "failed", f"{error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise _leave(notebook, output, parameters, "failed", "its kernel died, perhaps for want of memory") from error
    except RuntimeError as error:
        raise _leave(notebook, output, parameters, "failed", f"its kernel did not start ({error})") from error
    except KeyboardInterrupt:
        _leave(notebook, output, parameters, "interrupted", "stopped by the user")
        is_kept = (output.parent / "checkpoint").exists()
        how = f"goes on with run_id={output.parent.name} and resume=true" if is_kept else "had not come to a checkpoint"
        text = f"{notebook} was stopped by the user; what it had done is in {output.parent}. It {how}."
        raise Interrupted(text) from None
    except OSError as error:
        try:
            json.loads(output.read_bytes())
        except (ValueError, OSError):  # papermill writes in place, and has left half of it
            with contextlib.suppress(OSError):
                output.unlink(missing_ok=True)
        raise StorageError(
            f"The run in {output.parent} can't be written any more ({error.strerror}); "
            "leave the results folder in place and free space, then run again."
        ) from error


def stop_kernels(others: Set[int] = frozenset()) -> None:
    """Interrupts this process's kernels that are not among `others`, as Ctrl-C would, and kills those that go on."""
    kernels = [child for child in kernels_of() if child.pid not in others]
    for kernel in kernels:
        kernel.send_signal(signal.SIGINT)
    for kernel in psutil.wait_procs(kernels, timeout=_INTERRUPT_S)[1]:
        kernel.kill()


def _leave(notebook: str, output: Path, parameters: dict[str, Any], status: str, sentence: str) -> RunError:
    """The error of a launch; leaves a run that says it too, where the notebook ended before it had made one."""
    with contextlib.suppress(InputError):  # a kernel that has just been stopped may have it still
        if not (output.parent / "run.json").exists():
            folder = RunFolder(notebook, parameters, results=parameters["results"], run_id=output.parent.name)
            folder.end(status, sentence)
    return RunError(f"{notebook} {status}: {sentence} (executed notebook: {output})")
