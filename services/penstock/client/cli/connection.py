"""Which hub a command calls, and as which consumer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penstock.client.cli import options
from penstock.client.cli.demo import demo_consumers, demo_file, read_demo
from penstock.client.cli.failures import Failure
from penstock.client.hosts import is_loopback

if TYPE_CHECKING:
    from penstock.client.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"

_FILES = ("ca_file", "client_cert", "client_key")
_CREDENTIALS = ("client_id", "client_secret", "api_key", "token")


@dataclass(frozen=True, slots=True)
class Caller:
    """The hub to call, and the credentials: the arguments of ``Client`` except ``url`` and
    ``source``."""

    url: str
    #: Where the credentials come from, for people.
    source: str
    arguments: dict[str, Any]
    #: Whether they are a profile's, which go to other machines by https only.
    stored: bool = False


def connect_client(scope: str = "") -> Client:
    """A client for the hub and the caller that the options, the environment or the current profile
    name.

    Raises Failure if none of them names a caller: nobody is an administrator by default.
    """
    return open_client(find_caller(), scope)


def open_client(caller: Caller, scope: str = "") -> Client:
    """A client of a caller. Raises Failure if the caller's arguments do not fit together, or would
    send a stored secret in the clear."""
    from penstock.client.client import Client

    if caller.stored:
        check_profile_url(caller.url)
    try:
        return Client(caller.url, scope=scope, **caller.arguments)
    except ValueError as error:
        raise Failure(str(error)) from None


def find_caller() -> Caller:
    """The caller that the first of these names; raises Failure if none does.

    The options ``--as`` and ``--profile``; credentials in the environment; PENSTOCK_AS and
    PENSTOCK_PROFILE; the current profile. ``--url`` and PENSTOCK_URL name the hub for credentials
    of the environment. Stored credentials go only to their own hub: that of the profile, or of the
    demo on this machine.
    """
    consumer, profile = options.given_option("consumer"), options.given_option("profile")
    if not consumer and not profile:
        if any(options.read_variable(name) for name in _CREDENTIALS):
            return _from_environment()
        consumer, profile = options.read_variable("consumer"), options.read_variable("profile")
    if consumer and profile:
        raise Failure("give either --as, for a consumer of the demo here, or --profile")
    if consumer:
        return _from_demo(consumer)
    from penstock.client.cli.profiles import read_profiles

    profiles = read_profiles()
    if name := profile or profiles.current:
        return _from_profile(name, profiles.get(name))
    raise Failure(_list_choices())


def hub_url() -> str:
    """The hub's address, also for commands that need no credentials."""
    try:
        return find_caller().url
    except Failure:
        return (
            options.given_option("url")
            or options.read_variable("url")
            or _demo_url()
            or DEFAULT_URL
        )


def certificate_files() -> dict[str, str]:
    """The certificates that the options or the environment name."""
    return {name: options.given_option(name) or options.read_variable(name) for name in _FILES}


def _from_environment() -> Caller:
    found = {name: options.read_variable(name) for name in _CREDENTIALS}
    arguments = {name: value for name, value in found.items() if value} | certificate_files()
    url = options.given_option("url") or options.read_variable("url") or _demo_url() or DEFAULT_URL
    return Caller(url, "the environment", arguments)


def _from_demo(consumer: str) -> Caller:
    demo = read_demo()
    if not demo:
        raise Failure(f"--as is for the demo, and there is no {demo_file()}: see penstock login")
    known = demo["consumers"]
    entry = known.get(consumer)
    if not isinstance(entry, dict) or not {"client_id", "client_secret"} <= entry.keys():
        names = ", ".join(sorted(known))
        raise Failure(f"{demo_file()} has no consumer '{consumer}'; it has {names}")
    arguments = {name: str(entry[name]) for name in ("client_id", "client_secret")}
    own = str(demo.get("url") or DEFAULT_URL)
    url = options.given_option("url") or options.read_variable("url") or own
    if not _is_same_hub(url, own) and not _is_local(url):
        raise Failure(
            f"the credentials in {demo_file()} are for {own} and this machine, not for {url}"
        )
    return Caller(url, str(demo_file()), arguments | certificate_files())


def _from_profile(name: str, profile: dict[str, str]) -> Caller:
    arguments = {k: v for k, v in profile.items() if k in (*_CREDENTIALS, *_FILES)}
    arguments |= {k: v for k, v in certificate_files().items() if v}
    own = profile.get("url") or DEFAULT_URL
    url = options.given_option("url") or own
    if not _is_same_hub(url, own):
        raise Failure(
            f"the profile {name} is for {own}, and its secret goes nowhere else: log in at {url},"
            " or use another profile"
        )
    return Caller(own, f"the profile {name}", arguments, stored=True)


def check_profile_url(url: str) -> None:
    """Raise Failure if a stored secret would go to another machine in the clear."""
    if _split_url(url)[0] == "http" and not _is_local(url):
        raise Failure(f"a profile's secret goes to other machines by https only, not to {url}")


def _is_same_hub(one: str, other: str) -> bool:
    return _split_url(one) == _split_url(other)


def _is_local(url: str) -> bool:
    _, host, port = _split_url(url)
    return is_loopback(f"[{host}]:{port}" if ":" in host else host)


def _split_url(url: str) -> tuple[str, str, str]:
    """The scheme, host and port of a URL; the text itself if it is a socket or not a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return "", "", url
    return parts.scheme, parts.hostname or "", str(port)


def _list_choices() -> str:
    """The remedy for a command without a caller."""
    if names := demo_consumers():
        return (
            f"say who calls: --as {', '.join(names[:-1])} or {names[-1]}; "
            f"penstock login --as {names[-1]} makes it the default"
        )
    return (
        "say who calls: run penstock login --client-id ID --url https://… once, or set "
        "PENSTOCK_CLIENT_ID and PENSTOCK_CLIENT_SECRET, PENSTOCK_API_KEY or PENSTOCK_TOKEN"
    )


def _demo_url() -> str:
    return str(read_demo().get("url") or "")
