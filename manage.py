#!/usr/bin/env python
"""The command line of Weir. ``manage.py up`` runs everything; ``manage.py help`` lists the rest."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path

# Nothing is started for these: they touch neither PostgreSQL nor Redis, or (up) start them themselves.
WITHOUT_SERVICES = frozenset(
    {
        "help",
        "version",
        "bench",
        "check",
        "collectstatic",
        "diffsettings",
        "findstatic",
        "makemigrations",
        "simulator",
        "smollm2",
        "startapp",
        "up",
    }
)


# These work as the owner of the tables, whatever DATABASE_ROLE says.
AS_OWNER = frozenset({"flush", "migrate", "shots", "sqlflush"})


def option(arguments: list[str], name: str) -> str | None:
    """The value of a long option, given as two words or one; None if absent."""
    for position, word in enumerate(arguments):
        if word == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def needs_services(arguments: list[str]) -> bool:
    """Whether the command in ``arguments`` works with the database or Redis."""
    if not arguments or arguments[0].startswith("-") or {"--help", "-h", "--version"} & set(arguments):
        return False
    return arguments[0] not in WITHOUT_SERVICES


def main() -> None:
    """Start the embedded services if the command needs them and none are named, then run it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - said in words before an import fails
        sys.exit("Weir needs Python 3.11 or newer. Run: make install")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
    arguments = sys.argv[1:]
    if arguments[:1] == ["up"] and (chosen := option(arguments, "--data-dir")):
        os.environ["WEIR_DATA_DIR"] = str(Path(chosen).expanduser().resolve())
    if set(arguments[:1]) & AS_OWNER:
        os.environ["DATABASE_ROLE"] = ""
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Weir's packages are not installed in this Python. Run: make install, then make run")

    # With DEBUG off the settings demand a DATABASE_URL, so that no deployment runs on a laptop's database.
    debug = os.environ.get("DEBUG", "true").lower() in {"true", "on", "ok", "y", "yes", "1"}
    if debug and needs_services(arguments):
        from gateway import embedded

        data_dir = Path(os.environ.get("WEIR_DATA_DIR") or Path(__file__).resolve().parent / "var")
        try:
            services = embedded.ensure_environment(data_dir)
        except embedded.ServiceError as error:
            sys.exit(f"{error}")
        if services is not None:
            atexit.register(services.release)
            # The default ends the process without its exit handlers, and the servers would stay.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
