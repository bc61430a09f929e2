"""uvicorn under cProfile, for ``manage.py bench --profile``.

Run as ``python -m gateway.bench.profiled FILE UVICORN-OPTIONS``: it serves like uvicorn. From SIGUSR1 on it
profiles the event loop's thread, and when told to end writes the profile to FILE. Times are the clock's, so they
mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import signal
import sys
from pathlib import Path

import uvicorn

_PACKAGE = re.compile(r".*/(?:site-packages|python\d[.\d]*)/")


def main() -> None:
    """Serve, then write the profile."""
    file = sys.argv.pop(1)
    # uvicorn ends with the signal that ended it, which by default ends the process at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    profile = cProfile.Profile()
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    try:
        uvicorn.main(standalone_mode=False)
    finally:
        profile.disable()
        profile.dump_stats(file)


def top(file: Path, root: Path, requests: int, count: int = 25) -> list[str]:
    """The ``count`` functions with the most time of their own, in microseconds a request.

    ``root`` is cut from the paths, and so is where packages are installed.
    """
    stats = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]  # typeshed leaves it out
    ordered = sorted(stats.items(), key=lambda item: item[1][2], reverse=True)
    together = sum(entry[2] for entry in stats.values()) / requests * 1e6
    lines = [
        f"{together:8.1f}  all functions; the event loop's own C code and other threads are not among them"
    ]
    lines.append(f"{'own us':>8}  {'with callees':>12}  {'calls':>7}  function, by time of its own")
    for (path, line, name), (_, calls, own, whole, _) in ordered[:count]:
        place = _PACKAGE.sub("", path.removeprefix(f"{root}/"))
        where = name if path == "~" else f"{place}:{line} {name}"
        lines.append(
            f"{own / requests * 1e6:8.1f}  {whole / requests * 1e6:12.1f}  {calls / requests:7.1f}  {where}"
        )
    return lines


if __name__ == "__main__":
    main()
