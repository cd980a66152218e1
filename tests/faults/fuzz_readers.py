"""Feeds the readers of files that people hand in with random inputs: `python tests/faults/fuzz_readers.py [INPUTS]`."""

import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))  # where pytest finds it by itself

from test_checkpoint_fuzz import fuzz as spoilt_states
from test_fuzz import READERS, fuzz


def main(inputs: int) -> None:
    """Runs each fuzz; an input that is neither read nor refused with a sentence ends it with a traceback."""
    logging.disable()
    for what in (*READERS, "states of checkpoints"):
        if what.endswith("drawn"):
            continue  # takes long, and the readers are what people hand files to
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            fuzz(what, inputs, Path(folder)) if what in READERS else spoilt_states(inputs)
        sys.stdout.write(f"{inputs:,} {what}: none unhandled, {time.monotonic() - start:.0f} s\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
