"""What `mirolib.experiment.injectors.disk_competitors` runs: a program of its own that needs nothing but Python.

It writes a file, syncs each piece, drops it from the page cache and reads it back, until its standard input is closed,
as happens when the process that started it is gone.
"""

import os
import select
import sys

FILE_BYTES = 64 << 20
PIECE_BYTES = 1 << 20


def main(path: str) -> None:
    """Works on the file `path` and removes it in the end."""
    piece = os.urandom(PIECE_BYTES)
    try:
        with open(path, "w+b", buffering=0) as file:
            while True:
                file.seek(0)
                for _ in range(FILE_BYTES // PIECE_BYTES):
                    file.write(piece)
                    os.fdatasync(file.fileno())
                    if select.select([sys.stdin], [], [], 0)[0]:
                        return
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(0)
                while file.read(PIECE_BYTES):
                    pass
    finally:
        os.unlink(path)


if __name__ == "__main__":
    main(sys.argv[1])
