"""The egress guard: the addresses to which the hub itself may connect. Only the dialled address
counts.

A name is resolved once for a connection. The guard judges its addresses, and one that passes is
dialled, with the host's name in the request and in TLS. The socket's own address is judged again
just before dialling, since literal addresses skip the resolver. Only public unicast addresses are
allowed, and networks that the operator allows. All others are refused: private, loopback,
link-local, shared, multicast, reserved, and such addresses inside IPv6 (mapped, compatible, NAT64,
6to4, Teredo, ISATAP).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

import structlog

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 2048
#: This machine itself.
LOOPBACK: Sequence[Network] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
#: The same message for a name that does not exist and for one whose addresses are refused: callers
#: must not learn which names exist in the hub's network.
NOWHERE = "the name has no address that the hub may connect to"

#: Prefixes whose last 32 bits are an IPv4 address.
_EMBEDDED = [
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")
]
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
#: Networks that the standard library does not list as non-global.
_EXTRA: Sequence[Network] = [
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
        "fec0::/10", "100::/64", "2001:db8::/32", "2001::/23", "3fff::/20", "5f00::/16",
        "64:ff9b:1::/48",
    )
]  # fmt: skip


_log = structlog.get_logger(__name__)


class AddressRefused(OSError):
    """An address that the hub must not connect to. The message gives the reason, for callers.

    It does not name the address: callers must not learn which internal address a name has.
    """


class UrlRefused(ValueError):
    """A URL that the hub must not connect to; the message gives the reason."""


class EgressGuard:
    """Judges URLs and addresses. ``allowed`` are networks that are allowed besides the public
    ones."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def check_url(self, url: str) -> SplitResult:
        """The parts of a URL that the hub may post to. Raises UrlRefused.

        It judges without a look-up: a name may still lead to a refused address. The scheme must be
        https, or http if the operator allows any networks; dialling then judges the address.
        """
        if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise UrlRefused("must be a URL of at most 2048 plain characters")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise UrlRefused("is no URL") from exc
        if parts.scheme not in ("https", "http"):
            raise UrlRefused("must be https")
        if not parts.hostname or port == 0 or "%" in parts.netloc or "\\" in url:
            raise UrlRefused("names no host")
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise UrlRefused("must not contain a user")
        if parts.fragment:
            raise UrlRefused("must not contain a fragment")
        if parts.scheme == "http" and not self._allowed:
            raise UrlRefused("must be https")
        literal = _parse_literal(parts.hostname)
        if literal is not None:
            try:
                self.check(literal, secure=parts.scheme == "https")
            except AddressRefused as exc:
                raise UrlRefused(str(exc)) from exc
        return parts

    def check(self, address: Address, *, secure: bool) -> None:
        """Raise AddressRefused unless the address may be dialled, with TLS or without."""
        if any(address.version == n.version and address in n for n in self._allowed):
            return
        if not secure:
            raise AddressRefused("without TLS, only networks that the operator allows")
        for seen in (address, *_embedded_addresses(address)):
            if not _is_public(seen):
                raise AddressRefused("it is not a public address")


def dial_guarded(
    guard: EgressGuard, host: str, port: int, *, secure: bool, seconds: float
) -> socket.socket:
    """Connect to one of a name's allowed addresses, blocking.

    ``seconds`` is how long one address may take, and stays the socket's time limit. Raises
    AddressRefused if all addresses are refused, OSError if none of the allowed ones answers.
    """
    problem: OSError = AddressRefused("the name has no address")
    for family, kind, proto, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            guard.check(address_of(str(place[0])), secure=secure)
        except AddressRefused as exc:
            problem = exc
            continue
        made = socket.socket(family, kind, proto)
        try:
            made.settimeout(seconds)
            made.connect(place)
        except OSError as exc:
            made.close()
            problem = exc
            continue
        return made
    raise problem


def address_of(text: str) -> Address:
    """Parse an address as the system prints it. Raises AddressRefused if it is not an address."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError as exc:
        raise AddressRefused("no address") from exc


def _parse_literal(host: str) -> Address | None:
    """The address that a host denotes, in any spelling a resolver accepts; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _embedded_addresses(address: Address) -> Iterator[Address]:
    """The IPv4 addresses that an IPv6 address embeds."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    packed = address.packed
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        yield ipaddress.IPv4Address(packed[2:6])
    if address in _TEREDO:
        yield ipaddress.IPv4Address(packed[4:8])
        yield ipaddress.IPv4Address(bytes(b ^ 0xFF for b in packed[12:]))
    if any(address in network for network in _EMBEDDED):
        yield ipaddress.IPv4Address(packed[12:])
    if packed[8:12] in (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"):  # ISATAP
        yield ipaddress.IPv4Address(packed[12:])


def _is_public(address: Address) -> bool:
    """Whether an address is a public unicast address."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address in _SIX_TO_FOUR or address in _EMBEDDED[0]
    ):
        return True  # the embedded address decides
    if any(address.version == n.version and address in n for n in _EXTRA):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
        and not address.is_link_local
        and not address.is_private
    )
