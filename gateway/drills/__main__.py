"""The drills as a program of its own, since it chooses the database before Django reads its settings."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from gateway.embedded import ServiceError


def arguments() -> argparse.ArgumentParser:
    """The options, as ``manage.py drill`` passes them on."""
    parser = argparse.ArgumentParser(prog="drill")
    drills = parser.add_subparsers(dest="drill", required=True)
    over = drills.add_parser("never-over")
    over.add_argument("--rounds", type=int, default=1)
    over.add_argument("--clients", type=int, default=200)
    over.add_argument("--only", default="", help="scenarios whose name has this word")
    lost = drills.add_parser("never-lost")
    lost.add_argument("--rounds", type=int, default=1)
    lost.add_argument("--seconds", type=float, default=10.0)
    lost.add_argument("--seed", type=int, default=0)
    sixteen = drills.add_parser("sixteen")
    sixteen.add_argument("--scale", type=float, default=1.0, help="of every time: 0.1 is ten times as fast")
    outages = drills.add_parser("outages")
    outages.add_argument("--redis-seconds", type=float, default=90.0)
    outages.add_argument("--postgres-seconds", type=float, default=60.0)
    lone = drills.add_parser("lone")
    for each in (over, lost, sixteen, outages, lone):
        each.add_argument("--workers", type=int, default=4)
        each.add_argument("--relaxed", action="store_true")
        each.add_argument("--data-dir", type=Path, required=True)
    return parser


def main() -> int:
    """Run one drill; 0 if everything held, 1 if something broke, 2 if the drill itself failed."""
    options = arguments().parse_args()
    # The default would leave every program running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from gateway.drills.ground import DrillError, prepared

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201  # a program's output

    try:
        with prepared(options.data_dir, options.workers, durable=not options.relaxed) as ground:
            from gateway.drills import lone, never_lost, never_over, outages, sixteen
            from gateway.drills.verdict import table

            if options.drill == "never-over":
                rows = never_over.run(ground, options.rounds, options.clients, options.only, say)
            elif options.drill == "sixteen":
                rows = sixteen.run(ground, options.scale, say)
            elif options.drill == "outages":
                rows = outages.run(ground, options.redis_seconds, options.postgres_seconds, say)
            elif options.drill == "lone":
                rows = lone.run(ground, say)
            else:
                rows = never_lost.run(ground, options.rounds, options.seconds, options.seed, say)
            say("\n" + "\n".join(table(rows)))
    except (DrillError, ServiceError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # as above
        return 2
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
