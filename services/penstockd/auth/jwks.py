"""Key sets of external issuers (RFC 7517): fetched over the network, read defensively, cached.

A key set is fetched when a token first needs it, again every REFRESH seconds while in use, and at
once for an unknown key id, but at most every RETRY seconds. An issuer may be down for KEEP seconds;
after that its keys may no longer be valid, and its tokens are refused.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

import jwt
import orjson
import structlog

from penstockd.egress import LOOPBACK, EgressGuard, Network, UrlRefused, dial_guarded

MAX_BYTES = 64 * 1024
#: Seconds for connecting, and between two pieces of the reply.
TIMEOUT = 3.0
#: Seconds for fetching a key set in all.
DEADLINE = 6.0
REFRESH = 300.0
RETRY = 10.0
KEEP = 3600.0

#: The algorithms for tokens of external issuers, by kind of key; all are asymmetric.
ALGORITHMS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
KNOWN_ALGORITHMS = frozenset(a for some in ALGORITHMS.values() for a in some)
_RSA_BITS = range(2048, 8193)
_PUBLIC_EXPONENTS = range(3, 2**33)

_log = structlog.get_logger(__name__)


class JwksUnavailable(Exception):
    """The key set could not be obtained; the message gives the reason, for the log."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms for which it may be used."""

    material: Any
    algorithms: frozenset[str]


class Origins:
    """Where key sets may come from: the public internet by https, and what the operator adds.

    That is ``allowed`` networks by https, and with ``loopback`` this machine, also by http.
    """

    def __init__(self, allowed: Sequence[Network] = (), *, loopback: bool = False) -> None:
        self._loopback = loopback
        self.guard = EgressGuard((*allowed, *LOOPBACK) if loopback else allowed)

    def check_url(self, url: str) -> SplitResult:
        """Check a key set's URL and return its parts. Raises UrlRefused.

        A name may still resolve to a refused address: that is checked when it is dialled.
        """
        parts = self.guard.check_url(url)
        near = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme != "https" and not (self._loopback and near):
            raise UrlRefused("must be https")
        return parts


def read_jwks(data: bytes, algorithms: Sequence[str]) -> dict[str, Key]:
    """The usable keys of a key set by id. Raises JwksUnavailable if the data is not a key set.

    Leaves out keys of other kinds or uses, without an id, with a repeated id, too weak, or with a
    private half.
    """
    try:
        listed = orjson.loads(data)["keys"]
        ids = [k.get("kid") for k in listed]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise JwksUnavailable("the reply is not a key set") from exc
    found = {}
    for jwk in listed:
        key_id = jwk.get("kid")
        if isinstance(key_id, str) and ids.count(key_id) == 1:
            key = _read_key(jwk, frozenset(algorithms))
            if key is not None:
                found[key_id] = key
    return found


def _read_key(jwk: Mapping[str, Any], wanted: frozenset[str]) -> Key | None:
    kind = (str(jwk.get("kty")), str(jwk.get("crv", "")))
    usable = wanted.intersection(ALGORITHMS.get(kind, ()))
    if "alg" in jwk:
        usable &= {str(jwk["alg"])}
    operations = jwk.get("key_ops", ["verify"])
    if not usable or jwk.get("use", "sig") != "sig" or "d" in jwk or "verify" not in operations:
        return None
    try:
        algorithm: Any = jwt.get_algorithm_by_name(min(usable))
        material = algorithm.from_jwk(dict(jwk))
        if kind[0] == "RSA":
            exponent = material.public_numbers().e
            if material.key_size not in _RSA_BITS or exponent not in _PUBLIC_EXPONENTS:
                return None
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return Key(material, usable)


def fetch_keys(url: str, origins: Origins) -> bytes:
    """The reply to a GET, blocking. No proxy, no redirects, at most MAX_BYTES.

    Raises JwksUnavailable.
    """
    deadline = time.monotonic() + DEADLINE
    try:
        parts = origins.check_url(url)
        connection = _Connection(parts, origins.guard)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"accept": "application/json", "user-agent": "penstock"}
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise JwksUnavailable(f"the issuer answered {reply.status}")
            return _read_body(reply, deadline)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise JwksUnavailable(f"{type(exc).__name__}: {exc}") from exc


class _Connection(http.client.HTTPConnection):
    """A connection to an address that the guard has passed, with the host's name in TLS."""

    def __init__(self, parts: SplitResult, guard: EgressGuard) -> None:
        assert parts.hostname is not None, "check_url saw it"
        self._secure, self._guard = parts.scheme == "https", guard
        super().__init__(parts.hostname, parts.port or (443 if self._secure else 80), TIMEOUT)

    def connect(self) -> None:
        """Dial; called by http.client. Raises OSError, including AddressRefused."""
        made = dial_guarded(self._guard, self.host, self.port, secure=self._secure, seconds=TIMEOUT)
        if self._secure:
            try:
                made = ssl.create_default_context().wrap_socket(made, server_hostname=self.host)
            except BaseException:
                made.close()
                raise
        self.sock = made


def _read_body(reply: http.client.HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while piece := reply.read1(16 * 1024):
        body += piece
        if len(body) > MAX_BYTES:
            raise JwksUnavailable(f"the reply is longer than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise JwksUnavailable("the reply is too slow")
    return bytes(body)


class KeySource:
    """The key set of one issuer. ``changed`` is called when a different set was loaded."""

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        pool: ThreadPoolExecutor,
        *,
        origins: Origins,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._algorithms, self._pool = url, tuple(algorithms), pool
        self._origins, self._changed, self._clock = origins, changed, clock
        self._keys: dict[str, Key] = {}
        self._raw = b""
        self._fetched = self._asked = -KEEP - RETRY
        self.fetching: asyncio.Task[None] | None = None

    @property
    def good(self) -> bool:
        """Whether the keys are recent enough to trust. Starts a background fetch of old ones."""
        age = self._clock() - self._fetched
        if age > REFRESH:
            self._start()
        return age <= KEEP

    async def key(self, key_id: str) -> Key | None:
        """The key with an id, fetched if necessary; None if the issuer has none."""
        if not self.good or key_id not in self._keys:
            self._start()
            if self.fetching is not None:
                await asyncio.shield(self.fetching)
        return self._keys.get(key_id) if self.good else None

    def close(self) -> None:
        """Stop fetching."""
        if self.fetching is not None:
            self.fetching.cancel()

    def _start(self) -> None:
        """Start fetching the keys, unless a fetch is under way or began within RETRY seconds."""
        if self.fetching is None and self._clock() - self._asked >= RETRY:
            self._asked = self._clock()
            self.fetching = asyncio.create_task(self._fetch())
            self.fetching.add_done_callback(self._end_fetch)

    def _end_fetch(self, task: asyncio.Task[None]) -> None:
        self.fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("jwks_failed", url=self._url, exc_info=error)

    async def _fetch(self) -> None:
        asked, loop = self._clock(), asyncio.get_running_loop()
        try:
            # The deadline also covers the name look-up, which has no timeout of its own.
            async with asyncio.timeout(DEADLINE + 1):
                data = await loop.run_in_executor(self._pool, fetch_keys, self._url, self._origins)
            keys = read_jwks(data, self._algorithms)
        except (JwksUnavailable, TimeoutError) as exc:
            _log.warning("jwks_unavailable", url=self._url, error=str(exc))
            return
        if data != self._raw:
            _log.info("jwks_loaded", url=self._url, keys=sorted(keys))
            self._keys, self._raw = keys, data
            self._changed()
        self._fetched = asked
