"""The channel to one hub: deadlines, retries, and gRPC's errors turned into PenstockError."""

from __future__ import annotations

import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from penstock.client.auth import AuthInterceptor, Credentials
from penstock.client.errors import PenstockError, from_rpc
from penstock.client.hosts import is_loopback
from penstock.client.retry import BACKOFF
from penstock.client.tls import Tls

#: Large enough for a page of large records; Envoy and the hub have narrower limits of their own.
_MAX_MESSAGE = 64 << 20
#: A socket of a hub on this machine, such as unix:///run/penstock/worker-0.sock.
_SOCKET = "unix:///"


@dataclass(slots=True)
class Metadata:
    """What a call sends beside its replies: headers with the first, trailers at the end."""

    headers: dict[str, str | bytes] = field(default_factory=dict)
    trailers: dict[str, str | bytes] = field(default_factory=dict)


class Link:
    """A gRPC channel with credentials. Its methods take a stub's callable and a request.

    All of them raise PenstockError. A call is repeated only where that does no harm: after
    UNAVAILABLE if it changes nothing, and once after UNAUTHENTICATED (a refused call has done
    nothing) if new credentials can be obtained.
    """

    def __init__(
        self, url: str, credentials: Credentials, *, timeout: float, tls: Tls | None = None
    ) -> None:
        self.credentials = credentials
        self._timeout = timeout
        self._plain = _open_channel(url, tls or Tls())
        self.channel: grpc.Channel = grpc.intercept_channel(
            self._plain, AuthInterceptor(credentials)
        )

    def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        self._plain.close()

    def unary(
        self,
        method: Any,
        request: Any,
        *,
        safe: bool,
        longer: float = 0.0,
        beside: Metadata | None = None,
    ) -> Any:
        """The reply to one request; ``safe`` says that the call changes nothing.

        The time-out covers all attempts together; ``longer`` extends it, in seconds. ``beside``
        collects headers and trailers.
        """
        deadline = time.monotonic() + self._timeout + longer

        def once() -> Any:
            left = max(0.001, deadline - time.monotonic())
            if beside is None:
                return method(request, timeout=left)
            reply, call = method.with_call(request, timeout=left)
            beside.headers = dict(call.initial_metadata() or ())
            beside.trailers = dict(call.trailing_metadata() or ())
            return reply

        return self._attempts(once, safe=safe, deadline=deadline)

    def stream(
        self,
        method: Any,
        request: Any,
        *,
        timeout: float | None,
        beside: Metadata | None = None,
        opened: Callable[[Any], object] | None = None,
    ) -> Generator[Any, None, None]:
        """The replies to one request, as they come.

        The call starts with the first ``next`` and is repeated only before its first reply.
        Closing the iterator early ends the call. ``timeout`` is for the whole stream, in seconds;
        without it a stream may take for ever, but does not hang on a dead connection. ``beside``
        collects headers and trailers. ``opened`` receives each call that is made; another thread
        may call its ``cancel``.
        """
        beside = beside or Metadata()
        deadline = None if timeout is None else time.monotonic() + timeout

        def once() -> tuple[Any, list[Any]]:
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            call = method(request, timeout=left)
            try:
                if opened is not None:
                    opened(call)
                return call, [next(call)]
            except StopIteration:
                return call, []
            except BaseException:
                call.cancel()
                raise

        call, first = self._attempts(once, safe=True, deadline=deadline)
        try:
            beside.headers = dict(call.initial_metadata() or ())
            yield from first
            if first:
                yield from _following_replies(call)
            beside.trailers = dict(call.trailing_metadata() or ())
        finally:
            call.cancel()

    def upload(self, method: Any, requests: Iterable[Any], *, timeout: float | None) -> Any:
        """The reply to a stream of requests, which is never sent twice.

        An error that ``requests`` raises cancels the call, so that the hub does not mistake a part
        for the whole, and is raised here.
        """
        self.credentials.metadata()  # before the first request is drawn
        source = _Source(requests)
        call = method.future(iter(source), timeout=timeout)
        source.start(call.cancel)
        try:
            reply = call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if source.error is not None:
                raise source.error from None
            if isinstance(error, grpc.RpcError):
                raise from_rpc(error) from None
            raise PenstockError("CANCELLED", "the upload was cancelled") from None
        except BaseException:
            call.cancel()
            raise
        if source.error is not None:  # the hub answered before it had read everything
            raise source.error
        return reply

    def _attempts(self, once: Callable[[], Any], *, safe: bool, deadline: float | None) -> Any:
        renewed = False
        pauses = BACKOFF.pauses()
        while True:
            self.credentials.metadata()
            try:
                return once()
            except grpc.RpcError as error:
                failure = from_rpc(error)
            if failure.code == "UNAUTHENTICATED" and not renewed and self.credentials.refused():
                renewed = True
                continue
            # The interrupted call may still be running; repeating it returns its outcome.
            passing = failure.code == "UNAVAILABLE" or failure.reason == "REQUEST_IN_FLIGHT"
            pause = next(pauses) if safe and passing else None
            if pause is None or (deadline is not None and time.monotonic() + pause >= deadline):
                raise failure
            time.sleep(pause)


class _Source:
    """The requests of an upload, consumed by gRPC's thread, with the error that ended them."""

    def __init__(self, requests: Iterable[Any]) -> None:
        self._requests = requests
        self._started = threading.Event()
        self._cancel: Callable[[], Any] = lambda: None
        self.error: BaseException | None = None

    def start(self, cancel: Callable[[], Any]) -> None:
        self._cancel = cancel
        self._started.set()

    def __iter__(self) -> Iterator[Any]:
        self._started.wait()
        try:
            yield from self._requests
        except Exception as error:
            # Only ending the iteration would tell the hub that everything was sent.
            self.error = error
            self._cancel()


def parse_url(url: str) -> str:
    """The hub's base URL without a path. Raises ValueError if it is not http, https or unix."""
    if url.startswith(_SOCKET):
        return url
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{url}' is not the URL of a hub such as http://127.0.0.1:8080")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError(f"'{url}' must be a scheme, a host and a port, and nothing else")
    _ = parts.port  # raises ValueError if it is not a number
    return f"{parts.scheme}://{parts.netloc}"


def _open_channel(url: str, tls: Tls) -> grpc.Channel:
    parts = urllib.parse.urlsplit(url)
    secure = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    target = f"{host}:{parts.port or (443 if secure else 80)}"
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.max_send_message_length", _MAX_MESSAGE),
        # This finds a dead connection within 80 s, even under a silent stream.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # The attempts of BACKOFF are useless if the channel itself waits a second to reconnect.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.primary_user_agent", "penstock-python"),
        ("grpc.enable_http_proxy", int(not is_loopback(parts.netloc))),
    ]
    if secure:
        return grpc.secure_channel(target, tls.credentials(), options)
    if url.startswith(_SOCKET):
        target = url
    return grpc.insecure_channel(target, options)


def _following_replies(call: Any) -> Generator[Any, None, None]:
    """The replies of a call after its first, with errors translated to the client's."""
    while True:
        try:
            reply = next(call)
        except StopIteration:
            return
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        yield reply
