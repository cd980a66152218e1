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
    """Writes lines until jtop falls silent; the last one says why."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever jtop prints must not mix with the lines

    def say(**line: object) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    try:
        with importlib.import_module("jtop").jtop(interval=float(sys.argv[-1])) as service:
            while service.ok():
                say(time_s=time.monotonic(), interval_s=service.interval, rails=rails_w(service.power))
        say(ended="the jtop service fell silent")
    except Exception as error:
        say(ended=" ".join(f"{type(error).__name__}: {error}".split()))


if __name__ == "__main__":
    main()
