"""Profiles: credentials that a user keeps under names, in a file that only the user can read."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from penstock.client.cli.failures import Failure

#: The keys of a profile; all of them are arguments of ``Client``.
MEMBERS = (
    "url",
    "client_id",
    "client_secret",
    "api_key",
    "token",
    "ca_file",
    "client_cert",
    "client_key",
)


@dataclass(slots=True)
class Profiles:
    """The content of the file: profiles by name, and the name of the current one, if any."""

    profiles: dict[str, dict[str, str]] = field(default_factory=dict)
    current: str = ""

    def get(self, name: str) -> dict[str, str]:
        """A profile. Raises Failure if there is none of this name."""
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise Failure(f"unknown profile '{name}'; there are: {known} (penstock login)")
        return self.profiles[name]


def profiles_file() -> Path:
    """The file of the profiles, in the user's configuration folder."""
    return Path(typer.get_app_dir("penstock")) / "profiles.json"


def read_profiles() -> Profiles:
    """The user's profiles; empty if there is no file.

    Raises Failure if the file is damaged, or if other users can read it.
    """
    path = profiles_file()
    try:
        with path.open(encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise Failure(f"other users can read {path}: run chmod 600 on it")
            found = json.load(file)
    except FileNotFoundError:
        return Profiles()
    except ValueError as error:
        raise Failure(f"{path} is damaged: {error}") from None
    try:
        profiles = {
            str(name): {member: str(entry[member]) for member in MEMBERS if member in entry}
            for name, entry in found["profiles"].items()
        }
        return Profiles(profiles, str(found["current"]))
    except (AttributeError, KeyError, TypeError):
        raise Failure(f"{path} is damaged: it holds no profiles") from None


@contextmanager
def change_profiles() -> Iterator[Profiles]:
    """The user's profiles, which are stored as the block leaves them, unless it raises.

    Other commands that change them wait meanwhile. Raises Failure as ``read_profiles`` does.
    """
    folder = profiles_file().parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _hold_folder(folder):
        profiles = read_profiles()
        yield profiles
        _write_profiles(profiles)


@contextmanager
def _hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. Windows has no such lock: there the last one wins."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_profiles(profiles: Profiles) -> None:
    """Replace the file as a whole; only the user can read it. The caller holds the folder."""
    path = profiles_file()
    for left in path.parent.glob(f"{path.name}.*.part"):  # by a process that was killed
        left.unlink(missing_ok=True)
    document = {"current": profiles.current, "profiles": profiles.profiles}
    descriptor, part = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
