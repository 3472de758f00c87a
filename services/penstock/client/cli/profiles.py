"""Profiles: credentials that a user keeps under names, in a file that only the user can read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import typer

from penstock.client.cli.failures import Failure

#: What a profile may hold; all of it are arguments of ``Client``.
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


def write_profiles(profiles: Profiles) -> None:
    """Replace the file as a whole; only the user can read it."""
    path = profiles_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    document = {"current": profiles.current, "profiles": profiles.profiles}
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
