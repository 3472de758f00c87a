"""PostgreSQL refuses to run as root: the system user to run it as, and its access to the files."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import structlog

from penstockd.node.errors import FolderUnusable, ProcessFailed
from penstockd.node.process import Account

NAME = "penstock"
"""The system user that is created when the hub runs as root and has no such user yet."""

_log = structlog.get_logger(__name__)


def find_account(folder: Path) -> Account | None:
    """The account for PostgreSQL: None unless we are root.

    It is the owner of an existing folder, so that data never changes hands, or else the user
    ``penstock``, created if missing. Raises ProcessFailed if the user cannot be created.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists() and (owner := folder.stat().st_uid) != 0:
        try:
            entry = pwd.getpwuid(owner)
        except KeyError:
            raise ProcessFailed(
                f"{folder} belongs to user number {owner}, who does not exist here: "
                "PostgreSQL cannot run as that user. Give the folder to an existing user."
            ) from None
    else:
        entry = _find_entry(NAME)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _find_entry(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        raise ProcessFailed(
            f"PostgreSQL refuses to run as root and there is no user '{name}' to run it: "
            f"create one, or start Penstock as an ordinary user."
        )
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ProcessFailed(f"cannot create the user '{name}': {done.stderr.strip()}") from None


def open_way(path: Path, account: Account) -> None:
    """Let ``account`` pass through the folders above ``path``, where only root may pass.

    Adds the search bit for others (never reading) where it is missing, and logs a warning for
    each folder changed. Raises FolderUnusable if a folder cannot be changed.
    """
    for folder in reversed(path.absolute().parents):
        mode = folder.stat()
        if _is_allowed(mode, account, stat.S_IXUSR):
            continue
        try:
            folder.chmod(stat.S_IMODE(mode.st_mode) | stat.S_IXOTH)
        except OSError as error:
            raise FolderUnusable(
                f"the user '{account.name}', who runs PostgreSQL, cannot pass through {folder}: "
                f"{error.strerror}. Choose another data folder."
            ) from error
        _log.warning("folder_opened_for_passing", folder=str(folder), user=account.name)


def open_tree(tree: Path, account: Account) -> None:
    """Let ``account`` read and run everything in ``tree``: a wheel unpacked under a tight umask."""
    if _is_allowed(tree.stat(), account, stat.S_IRUSR | stat.S_IXUSR) and _is_allowed(
        (tree / "bin" / "postgres").stat(), account, stat.S_IRUSR | stat.S_IXUSR
    ):
        return
    for path in (tree, *tree.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        passing = stat.S_IXOTH if mode & stat.S_IXUSR else 0
        path.chmod(mode | stat.S_IROTH | passing)


def _is_allowed(status: os.stat_result, account: Account, bits: int) -> bool:
    """Whether the owner's ``bits`` hold for ``account``: as owner, group or others."""
    mode = status.st_mode
    if status.st_uid == account.uid:
        return mode & bits == bits
    if status.st_gid == account.gid:
        return mode & (bits >> 3) == bits >> 3
    return mode & (bits >> 6) == bits >> 6
