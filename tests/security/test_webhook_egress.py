"""W2: no connection to an address that is not public, however it is spelled, by webhooks or by
fetches of other issuers' key sets.

All connections go through the ``socket`` module. The tests catch each one at the point where the
event loop makes it, so that not even a refused one can pass unseen.
"""

from __future__ import annotations

import ipaddress
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from penstockd.auth.jwks import JwksUnavailable, Origins, fetch_keys
from penstockd.egress import AddressRefused, EgressGuard, UrlRefused, address_of
from penstockd.webhooks.sender import Sender
from webhook_rig import LOOPBACK, Receiver, receiving

HOSTS = [
    # Plain addresses, in each of the forbidden ranges.
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.254", "0.0.0.0", "0.1.2.3", "192.0.0.1",
    "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    # Unusual spellings of IPv4 that resolvers accept.
    "2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1", "017700000001",
    "0x7f.0x0.0x0.0x1", "00000177.1", "3232235777", "0xa9fea9fe", "2852039166", "0", "127.0.0.1.",
    # IPv6, and IPv4 within it.
    "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]",
    "[::127.0.0.1]", "[::7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2002:c0a8:101::1]",
    "[2001:0:7f00:1::1]", "[2001:db8::1]", "[100::1]", "[0:0:0:0:0:ffff:7f00:0001]",
    "[2001:470:1::5efe:7f00:1]", "[::ffff:0:7f00:1]", "[3fff::1]", "[5f00::1]",
    # Names.
    "localhost", "LOCALHOST", "localhost.", "ip6-localhost", "foo.localhost",
]  # fmt: skip
URLS = [
    *(f"https://{host}/" for host in HOSTS),
    *(f"http://{host}:8080/" for host in HOSTS),
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1@example.com/",
    "https://user:password@127.0.0.1/",
    "https://127.0.0.1\\@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",  # full-width digits
    "https://127。0。0。1/",
    "https://ⓛocalhost/",
    "https://[fe80::1%25eth0]/",
    "https://127.0.0.1%00.example.com/",
    "https://127.0.0.1%2f@example.com/",
    "https:///127.0.0.1/",
    "https://",
    "https://127.0.0.1:0/",
    "https://example.com:99999/",
    "https://exa mple.com/",
    "https://example.com/#x",
    "https://example.com/\r\nhost: 127.0.0.1",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_",
    "ftp://127.0.0.1/",
    "unix:///var/run/docker.sock",
    "//127.0.0.1/",
    "data:text/plain,x",
    "http://example.com/",
    "https://" + "a" * 3000 + ".com/",
]


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses to which connections were attempted; none of them succeeds."""
    found: list[str] = []

    async def connect(self: Any, sock: socket.socket, address: tuple[Any, ...]) -> None:
        found.append(str(address[0]))
        raise ConnectionRefusedError("caught")

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", connect)
    yield found


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with Sender(EgressGuard(), connect_seconds=2, total_seconds=3) as made:
        yield made


def public(address: str) -> bool:
    """Whether an address is public, by a list of our own, so that the guard is not compared with
    itself."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return found in ipaddress.ip_network("2000::/3") and found.is_global
    return found.is_global and not found.is_multicast


def test_there_are_enough() -> None:
    assert len(URLS) >= 60


@pytest.mark.parametrize("url", URLS)
async def test_nothing_that_is_not_public_is_dialled(
    sender: Sender, dialled: list[str], url: str
) -> None:
    # A URL that the check at creation accepts is dialled nevertheless: the guard checks it again.
    reply = await sender.post(url, {}, b"{}")
    assert not reply.delivered
    assert all(map(public, dialled)), dialled


@pytest.mark.parametrize("host", [h for h in HOSTS if "localhost" not in h.lower()])
def test_literals_are_refused_when_a_webhook_is_made(host: str) -> None:
    with pytest.raises(UrlRefused):
        EgressGuard().check_url(f"https://{host.rstrip('.')}/")


@pytest.mark.parametrize("url", [u for u in URLS if "://" not in u or "@" in u or "%" in u])
def test_odd_urls_are_refused_when_a_webhook_is_made(url: str) -> None:
    with pytest.raises(UrlRefused):
        EgressGuard().check_url(url)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_the_public_internet_is_open(address: str) -> None:
    EgressGuard().check(address_of(address), secure=True)
    with pytest.raises(AddressRefused):
        EgressGuard().check(address_of(address), secure=False)


@pytest.mark.parametrize("address", ["2002:808:808::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_wrapped_public_addresses_are_judged_by_what_is_within(address: str) -> None:
    EgressGuard().check(address_of(address), secure=True)


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
async def test_a_scheme_is_the_same_in_any_case(
    sender: Sender, dialled: list[str], scheme: str
) -> None:
    await sender.post(f"{scheme}://8.8.8.8/", {}, b"{}")
    assert dialled == ["8.8.8.8"]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses to which blocking connections were attempted; none of them succeeds."""
    found: list[str] = []

    def connect(self: socket.socket, address: tuple[Any, ...]) -> None:
        found.append(str(address[0]))
        raise ConnectionRefusedError("caught")

    monkeypatch.setattr(socket.socket, "connect", connect)
    yield found


@pytest.mark.parametrize("url", URLS)
def test_no_key_set_is_fetched_from_what_is_not_public(connected: list[str], url: str) -> None:
    with pytest.raises(JwksUnavailable):
        fetch_keys(url, Origins())
    assert all(map(public, connected)), connected


def test_a_key_set_is_fetched_where_its_name_was_judged(
    connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(host: str, port: int, *_: object, **__: object) -> list[Any]:
        places = ("10.0.0.1", "93.184.216.34", "::1", "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", names)
    with pytest.raises(JwksUnavailable, match="public"):
        fetch_keys("https://login.example.com/keys", Origins())
    assert connected == ["93.184.216.34"]


@pytest.mark.parametrize("place", ["10.1.2.3", "169.254.169.254", "fd12:3456::1"])
async def test_which_address_was_refused_is_not_told(
    sender: Sender, dialled: list[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Otherwise a caller could make the hub look up names and learn addresses of its network."""
    names = Rebinding(place)
    monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", names)
    reply = await sender.post("https://intranet.example.com/", {}, b"{}")
    assert (reply.reason, dialled) == ("ADDRESS_REFUSED", [])
    assert place not in repr(reply)
    assert reply == await sender.post("https://not-there.invalid/", {}, b"{}"), "nor that it exists"
    with pytest.raises(AddressRefused) as refused:
        EgressGuard().check(address_of(place), secure=False)
    assert place not in str(refused.value)


@pytest.mark.parametrize(
    "problem",
    [socket.gaierror(socket.EAI_NONAME, "no name"), socket.gaierror(socket.EAI_AGAIN, "")],
)
async def test_a_name_that_cannot_be_resolved_is_like_an_internal_one(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, problem: OSError
) -> None:
    """Otherwise the reasons of deliveries would reveal which names exist in the hub's network."""

    def absent(*_: object) -> list[Any]:
        raise problem

    replies = []
    for scheme in ("https", "http"):
        for names in (absent, Rebinding("10.1.2.3"), Rebinding("127.0.0.1")):
            monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", names)
            replies.append(await sender.post(f"{scheme}://name.example.com/", {}, b"{}"))
    assert len(set(map(repr, replies))) == 1, replies
    monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", Rebinding("93.184.216.34"))
    assert repr(await sender.post("https://name.example.com/", {}, b"{}")) != repr(replies[0])


class Rebinding:
    """A name that is public at its first lookup, and the loopback from then on."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int, *_: object) -> list[Any]:
        self.asked += 1
        place = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port))]


async def test_a_name_that_rebinds_is_dialled_where_it_was_judged(
    sender: Sender, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Rebinding("93.184.216.34", "127.0.0.1")
    monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", names)
    await sender.post("https://rebinding.example.com/", {}, b"{}")
    assert (dialled, names.asked) == (["93.184.216.34"], 1)
    reply = await sender.post("https://rebinding.example.com/", {}, b"{}")
    assert (reply.reason, dialled, names.asked) == ("ADDRESS_REFUSED", ["93.184.216.34"], 2)


async def test_of_several_addresses_only_public_ones_are_dialled(
    sender: Sender, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(host: str, port: int, *_: object) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port))
            for place in ("10.0.0.1", "93.184.216.34", "127.0.0.1")
        ]

    monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", names)
    await sender.post("https://mixed.example.com/", {}, b"{}")
    assert dialled == ["93.184.216.34"]


async def test_proxy_variables_do_not_count(
    sender: Sender, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    names = Rebinding("93.184.216.34")
    monkeypatch.setattr("penstockd.egress.socket.getaddrinfo", names)
    await sender.post("https://example.com/", {}, b"{}")
    assert dialled == ["93.184.216.34"]


@pytest.fixture
async def local() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


async def test_without_the_guard_the_same_urls_arrive(local: Receiver) -> None:
    """The negative control: the URLs above are reachable where the operator allows the loopback."""
    port = local.url.rpartition(":")[2]
    spellings = ("127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]")
    async with Sender(EgressGuard((*LOOPBACK, ipaddress.ip_network("::ffff:0:0/96")))) as sender:
        for host in spellings:
            reply = await sender.post(f"http://{host}:{port}/{host}", {}, b"{}")
            assert reply.delivered, (host, reply)
    assert len(local.requests) == len(spellings)
    async with Sender(EgressGuard()) as guarded:
        for host in spellings:
            assert not (await guarded.post(f"http://{host}:{port}/", {}, b"{}")).delivered
    assert len(local.requests) == len(spellings)
