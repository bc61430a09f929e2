"""Where the embedded servers live, and as whom they run."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# A socket's path has at most 104 bytes on macOS, 108 on Linux, the closing NUL among them.
LONGEST_SOCKET_PATH = 100
SHORT_PLACE = Path("/tmp")  # noqa: S108 - the directory made here is private, and checked to be


class ServiceError(RuntimeError):
    """An embedded server cannot run; the message tells the operator why."""


def wheel_directory(package: str) -> Path:
    """The directory of an installed package, found without importing it. Raises ``ServiceError``."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServiceError(f"The package {package!r} is not installed. Run: make install")
    return Path(spec.origin).parent


def socket_directory(data_dir: Path, server: str) -> Path:
    """Where ``server`` puts its socket: in its own directory, or in a short one if that is too long."""
    directory = data_dir.resolve() / server
    if len(os.fsencode(directory / ".s.PGSQL.5432.lock")) <= LONGEST_SOCKET_PATH:
        return directory
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]
    return SHORT_PLACE / f"weir-{os.geteuid()}-{digest}-{server}"


def make_private(directory: Path, account: pwd.struct_passwd | None = None) -> None:
    """Make ``directory`` with mode 0700, owned by ``account`` or the current user.

    Raises ``ServiceError`` if it exists and belongs to somebody else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = account.pw_uid if account else os.geteuid()
    found = directory.lstat()
    if found.st_uid != owner and os.geteuid() == 0 and found.st_uid == 0:
        os.chown(directory, owner, account.pw_gid if account else -1)
        found = directory.lstat()
    if found.st_uid != owner or directory.is_symlink():
        raise ServiceError(
            f"{directory} belongs to user {_name(found.st_uid)}. Run as that user, or choose another "
            "data directory with WEIR_DATA_DIR."
        )
    directory.chmod(0o700)


def postgres_account(home: Path) -> pwd.struct_passwd | None:
    """The user PostgreSQL runs as: None for the current one; another if that is root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    if home.exists() and home.stat().st_uid != 0:
        owner = home.stat().st_uid
        try:
            return pwd.getpwuid(owner)
        except KeyError:
            raise ServiceError(f"{home} belongs to user {owner}, who has no account here.") from None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceError("PostgreSQL does not run as root. Run Weir as an ordinary user.")


def run_as(
    account: pwd.struct_passwd | None, command: Sequence[str | Path], reach: Sequence[Path]
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` as ``account``, for whom the paths in ``reach`` must be reachable.

    A directory under a closed one (``/root``, a private temporary directory) is reached by keeping
    the one capability that passes through it, never by opening the directory to others.
    Raises ``ServiceError`` if there is no way.
    """
    words = [os.fspath(word) for word in command]
    identity: pwd.struct_passwd | None = None
    if account is not None:
        blocked = next((path for path in reach if not _reachable(path, account)), None)
        if blocked is None:
            identity = account
        elif setpriv := shutil.which("setpriv"):
            words = [
                setpriv,
                f"--reuid={account.pw_uid}",
                f"--regid={account.pw_gid}",
                "--clear-groups",
                "--inh-caps=+dac_override",
                "--ambient-caps=+dac_override",
                *words,
            ]
        else:
            raise ServiceError(
                f"PostgreSQL does not run as root, and the user {account.pw_name} cannot reach {blocked}. "
                "Run Weir as an ordinary user, or move it out of the closed directory."
            )
    # Files, not pipes: the server inherits the descriptors and would keep a pipe open for ever.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        code = subprocess.call(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=identity.pw_uid if identity else None,
            group=identity.pw_gid if identity else None,
            extra_groups=[] if identity else None,
        )
        output.seek(0)
        return subprocess.CompletedProcess(words, code, output.read())


def _reachable(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether ``account`` may pass through every directory above ``path``."""
    for parent in path.parents:
        status = parent.stat()
        if status.st_uid == account.pw_uid:
            bit = 0o100
        elif status.st_gid == account.pw_gid:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return False
    return True


def _name(uid: int) -> str:
    """The name of a user, or the number of one without an account."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
