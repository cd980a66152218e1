"""Says what jtop reads, a line of JSON each time; run as a process of its own, since jtop changes the one it is in.

It must import nothing of this package, which would bring all of its memory along.
"""

import importlib
import json
import sys
import time
from collections.abc import Mapping
from typing import Any


def rails_w(power: Mapping[str, Any]) -> dict[str, float]:
    """Power of each rail in watts from jtop's dictionary, where the input rail stands apart, as the total."""
    rails = {name: entry["power"] / 1000 for name, entry in power.get("rail", {}).items()}
    total = power.get("tot", {})
    # Without an input rail the total is the sum of all rails, even of those inside others, and of no use.
    if total.get("name", "ALL") not in {"ALL", *rails}:
        rails[total["name"]] = total["power"] / 1000
    return rails


def main() -> None:
    """Writes lines until jtop falls silent, which ends the process with a reason."""
    interval_s = float(sys.argv[-1])
    out, sys.stdout = sys.stdout, sys.stderr  # whatever jtop prints must not mix with the lines
    try:
        with importlib.import_module("jtop").jtop(interval=interval_s) as service:
            while service.ok():
                instant = time.monotonic()
                line = {"time_s": instant, "interval_s": service.interval, "rails": rails_w(service.power)}
                out.write(json.dumps(line) + "\n")
                out.flush()
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
    sys.exit("the jtop service fell silent")


if __name__ == "__main__":
    main()
