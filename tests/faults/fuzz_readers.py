"""Feeds the readers of files that people hand in with random inputs: `python tests/faults/fuzz_readers.py [INPUTS]`."""

import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from test_checkpoint_fuzz import fuzz as spoilt_states
from test_fuzz import (
    calibration_inputs,
    read_or_refused,
    read_whatever,
    refused_or_read,
    run_inputs,
    table_inputs,
    trace_inputs,
    yaml_inputs,
)


def main(inputs: int) -> None:
    """Runs each fuzz; an input that is neither read nor refused with a sentence ends it with a traceback."""
    logging.disable()
    often = settings(max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    with tempfile.TemporaryDirectory() as folder:

        @often
        @given(content=yaml_inputs())
        def sweep_files(content: bytes) -> None:
            refused_or_read(Path(folder) / "any.yml", content)

        @often
        @given(run=run_inputs(), table=table_inputs())
        def run_folders(run: bytes, table: bytes) -> None:
            read_whatever(Path(folder) / "10_run", run, table)

        @often
        @given(content=trace_inputs())
        def power_traces(content: bytes) -> None:
            read_or_refused(Path(folder) / "any.csv", content)

        @often
        @given(content=calibration_inputs())
        def calibrations(content: bytes) -> None:
            read_or_refused(Path(folder) / "any.json", content)

        for fuzz, what in (
            (power_traces, "power traces"),
            (calibrations, "calibrations"),
            (partial(spoilt_states, inputs), "states of checkpoints"),
            (sweep_files, "sweep files"),
            (run_folders, "run folders (run.json and five tables)"),
        ):
            start = time.monotonic()
            fuzz()
            sys.stdout.write(f"{inputs:,} {what}: none unhandled, {time.monotonic() - start:.0f} s\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
