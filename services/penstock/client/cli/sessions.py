"""Who the user is to a hub: login, logout, whoami, profiles, status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from penstock.client.cli import options
from penstock.client.cli.connection import (
    DEFAULT_URL,
    Caller,
    certificate_files,
    check_profile_url,
    find_caller,
    hub_url,
    open_client,
)
from penstock.client.cli.failures import Failure
from penstock.client.cli.printing import print_outcome, print_rows
from penstock.client.cli.profiles import (
    MEMBERS,
    Profiles,
    change_profiles,
    profiles_file,
    read_profiles,
)

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command("login")(log_in)
    app.command("logout")(log_out)
    app.command("whoami")(show_caller)
    app.command("status")(show_status)
    group = typer.Typer(no_args_is_help=True, help="The credentials that this user keeps.")
    group.command("list")(list_profiles)
    group.command("use")(use_profile)
    app.add_typer(group, name="profiles")


def log_in(
    name: Annotated[
        str, typer.Argument(metavar="[PROFILE]", help="Its name; by default the consumer's.")
    ] = "",
    client_id: Annotated[str, typer.Option("--client-id", help="The consumer's id.")] = "",
    api_key: Annotated[
        bool, typer.Option("--api-key", help="Log in with an API key, not with id and secret.")
    ] = False,
) -> None:
    """Keep credentials under a name, and use them from now on.

    The secret is asked for, or read from standard input; it is never an argument. With --as, the
    credentials of a consumer of the demo here are kept. They are stored only if the hub takes them.
    """
    caller = _new_caller(client_id, api_key)
    name = name or caller.arguments.get("client_id") or "default"
    check_profile_url(caller.url)
    with open_client(caller) as client:
        client.datasets()
    profile = {"url": caller.url} | {k: v for k, v in caller.arguments.items() if v}
    with change_profiles() as profiles:
        profiles.profiles[name] = {k: v for k, v in profile.items() if k in MEMBERS}
        profiles.current = name
    said = {"profile": name, "url": caller.url, "file": str(profiles_file())}
    print_outcome(said, f"logged in at {caller.url}; commands use the profile {name} from now on")


def log_out(
    name: Annotated[
        str, typer.Argument(metavar="[PROFILE]", help="By default the current one.")
    ] = "",
) -> None:
    """Remove a profile and its credentials."""
    with change_profiles() as profiles:
        name = name or options.given_option("profile") or profiles.current
        if not name:
            raise Failure("no profile is in use")
        profiles.get(name)
        del profiles.profiles[name]
        profiles.current = "" if profiles.current == name else profiles.current
    print_outcome({"profile": name}, f"the profile {name} is removed")


def show_caller() -> None:
    """Show who calls, which hub, where the credentials come from, and what they allow."""
    caller = find_caller()
    with open_client(caller) as client:
        datasets = client.datasets()
    said = {
        "consumer_id": caller.arguments.get("client_id") or _read_subject(caller) or "",
        "url": caller.url,
        "source": caller.source,
        "datasets": {d.name: list(d.actions) for d in datasets},
    }
    may = ", ".join(d.name for d in datasets) or "no dataset"
    who = said["consumer_id"] or "the holder of an API key"
    print_outcome(said, [f"{who} at {caller.url}, by {caller.source}", f"sees: {may}"])


def show_status() -> None:
    """Show whether the hub lives and is ready, and what is wrong; exits with 1 unless it is ready.

    It needs no credentials.
    """
    from penstock.client.health import read_health

    url = hub_url()
    files: dict[str, Any] = {name: value for name, value in certificate_files().items() if value}
    health = read_health(url, **files)
    said: dict[str, Any] = {"url": url, "live": health.live, "ready": health.ready}
    said["problems"] = list(health.problems)
    state = "ready" if health.ready else "not ready" if health.live else "not reachable"
    print_outcome(said, [f"{url}: {state}", *(f"  {problem}" for problem in health.problems)])
    if not health.ready:
        raise typer.Exit(1)


def list_profiles() -> None:
    """Show the profiles; never their secrets."""
    profiles = read_profiles()
    rows = [_profile_row(profiles, name) for name in sorted(profiles.profiles)]
    print_rows(rows, ["profile", "current", "url", "client_id", "kind"])


def use_profile(name: Name) -> None:
    """Use a profile from now on."""
    with change_profiles() as profiles:
        profiles.get(name)
        profiles.current = name
    print_outcome({"profile": name}, f"commands use the profile {name} from now on")


def _new_caller(client_id: str, api_key: bool) -> Caller:
    if options.given_option("consumer"):
        return find_caller()
    client_id = client_id or options.read_variable("client_id")
    if not client_id and not api_key:
        raise Failure("give --client-id ID, --api-key, or --as for a consumer of the demo here")
    secret = _ask_secret("API key" if api_key else f"client secret of {client_id}")
    credentials = (
        {"api_key": secret} if api_key else {"client_id": client_id, "client_secret": secret}
    )
    url = options.given_option("url") or options.read_variable("url") or DEFAULT_URL
    return Caller(url, "the login", credentials | certificate_files())


def _ask_secret(what: str) -> str:
    """A secret from the terminal, without an echo, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True)).strip()
    if secret := sys.stdin.readline().strip():
        return secret
    raise Failure(f"the {what} is missing: give it on standard input")


def _read_subject(caller: Caller) -> str:
    """The consumer that a token names; "" for an API key."""
    import base64
    import json

    parts = caller.arguments.get("token", "").split(".")
    if len(parts) != 3:
        return ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    except ValueError:
        return ""
    return str(claims.get("sub", "")) if isinstance(claims, dict) else ""


def _profile_row(profiles: Profiles, name: str) -> dict[str, Any]:
    entry = profiles.profiles[name]
    kind = next((k for k in ("api_key", "token", "client_secret") if k in entry), "")
    return {
        "profile": name,
        "current": name == profiles.current,
        "url": entry.get("url", ""),
        "client_id": entry.get("client_id", ""),
        "kind": kind,
    }
