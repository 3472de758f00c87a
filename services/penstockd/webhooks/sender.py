"""One attempt: a POST behind the egress guard, strictly bounded in time and bytes."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import aiohttp
from yarl import URL

from penstockd.egress import AddressRefused, EgressGuard
from penstockd.webhooks.dialing import Resolver, guarded_socket
from penstockd.webhooks.model import Reason
from penstockd.webhooks.replies import Reply

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
#: The most bytes of a reply's body that are read from the network.
READ_BYTES = 64 * 1024
#: The most of these that are stored.
KEPT_BYTES = 1024
_KEPT_HEAD = 4096


class _Response(aiohttp.ClientResponse):
    """Remembers the peer's address: the connection is gone once the reply is read."""

    peer = ""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        transport = connection.transport
        place = transport.get_extra_info("peername") if transport is not None else None
        self.peer = (
            f"[{place[0]}]:{place[1]}" if place and ":" in place[0] else _format_place(place)
        )
        return await super().start(connection)


def _format_place(place: Any) -> str:
    return f"{place[0]}:{place[1]}" if place else ""


class Sender:
    """Posts messages over kept-alive connections.

    ``tls`` is for receivers with their own CA. Names are resolved once for each connection; proxies
    are not used, and redirects are not followed.
    """

    def __init__(
        self,
        guard: EgressGuard,
        *,
        tls: ssl.SSLContext | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._guard = guard
        self._timeout = aiohttp.ClientTimeout(
            total=total_seconds, connect=connect_seconds, sock_connect=connect_seconds
        )
        context = tls or ssl.create_default_context()
        self._sessions = {True: self._session(context), False: self._session(None)}

    def _session(self, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
        secure = tls is not None
        connector = aiohttp.TCPConnector(
            resolver=Resolver(self._guard, secure=secure),
            socket_factory=guarded_socket(self._guard, secure=secure),
            use_dns_cache=False,
            ssl=tls if tls is not None else True,
            limit=0,
            force_close=False,
            keepalive_timeout=20,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            response_class=_Response,
            skip_auto_headers=("accept-encoding", "accept"),
            headers={"user-agent": "Penstock-Webhooks/1"},
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post once. Every failure is returned as a Reply with a reason."""
        start = time.perf_counter()
        session = self._sessions[url[:6].lower() == "https:"]
        try:
            async with session.post(
                URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response:
                kept = await _read_body(response)
                assert isinstance(response, _Response), "the session makes no others"
                return _make_reply(response, kept, time.perf_counter() - start)
        except Exception as exc:  # a receiver may do anything: nothing may end the dispatcher
            reason, text = _explain_failure(exc)
            # The time of a look-up would reveal whether a resolver near the hub knows the name.
            refused = reason is Reason.ADDRESS_REFUSED
            latency = 0.0 if refused else time.perf_counter() - start
            return Reply(latency, reason=reason.value, head=text)

    async def close(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of the body. A longer body is cut off by closing the connection."""
    taken, kept = 0, b""
    while taken < READ_BYTES:
        piece = await response.content.read(READ_BYTES - taken)
        if not piece:
            return kept
        taken += len(piece)
        kept += piece[: KEPT_BYTES - len(kept)]
    if not response.content.at_eof():
        response.close()
    return kept


def _make_reply(response: _Response, body: bytes, latency: float) -> Reply:
    lines = [f"HTTP/{response.version.major}.{response.version.minor} "
             f"{response.status} {response.reason or ''}"] if response.version else []  # fmt: skip
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    reason = ""
    if response.status == 410:
        reason = Reason.GONE.value
    elif 300 <= response.status < 400:
        reason = Reason.REDIRECT.value
    elif not 200 <= response.status < 300:
        reason = Reason.STATUS.value
    return Reply(
        latency,
        response.status,
        reason,
        "\n".join(lines)[:_KEPT_HEAD].replace("\0", ""),
        body,
        response.peer,
        retry_after(response.headers.get("retry-after"), datetime.now(UTC)) if reason else None,
    )


def retry_after(text: str | None, at: datetime) -> timedelta | None:
    """The delay of a Retry-After header (RFC 9110, 10.2.3), seen from a time; None if invalid."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return timedelta(seconds=min(int(text.strip()[:9]), 86400))
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year or an offset beyond what Python can hold
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(when - at, timedelta())


def _explain_failure(error: BaseException) -> tuple[Reason, str]:
    """The reason of a failure, and a text about it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AddressRefused):
            return Reason.ADDRESS_REFUSED, str(seen)
        seen = getattr(seen, "os_error", None) or seen.__cause__ or seen.__context__
    match error:
        case aiohttp.ConnectionTimeoutError():
            return Reason.CONNECT_TIMEOUT, "no connection in time"
        case TimeoutError() | asyncio.TimeoutError():
            return Reason.TIMEOUT, "no complete reply in time"
        case aiohttp.ClientSSLError() | ssl.SSLError() | aiohttp.ServerFingerprintMismatch():
            return Reason.TLS_FAILED, str(error)[:300]
        case aiohttp.ClientConnectorError():
            return Reason.CONNECTION_FAILED, str(error.os_error.strerror or error.os_error)[:300]
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return Reason.REPLY_BROKEN, str(error)[:300]
        case aiohttp.InvalidURL() | UnicodeError() | ValueError():
            return Reason.ADDRESS_REFUSED, "the URL cannot be posted to"
    return Reason.CONNECTION_FAILED, (str(error) or type(error).__name__)[:300]
