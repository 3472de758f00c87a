"""The client of one hub."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import grpc

from penstock.client.auth import Anonymous, ApiKey, BearerToken, ClientCredentials, Credentials
from penstock.client.dataset import DatasetClient
from penstock.client.link import Link, parse_url
from penstock.client.stubs import known_datasets, load_stubs
from penstock.client.tls import Tls

if TYPE_CHECKING:
    from penstock.client.access import AccessClient
    from penstock.client.change import Page, Position
    from penstock.client.errors import PenstockError
    from penstock.client.feed import Feed
    from penstock.client.plans import PlansClient
    from penstock.client.shapes import ShapesClient
    from penstock.client.subscription import SubscriptionClient


class Client:
    """A connection to one hub. Many threads may use it; close it once.

    ``url`` is the hub's one address, such as "http://127.0.0.1:8080": tokens and gRPC both use it,
    with TLS if it is https. Credentials are ``client_id`` and ``client_secret``, an ``api_key``,
    or a ``token`` obtained elsewhere; pass one of the three, or none. ``scope`` narrows the
    tokens that id and secret are exchanged for, for example "customers:read orders:*". ``timeout``
    is for calls with one reply, retries included, in seconds.

    With https, ``ca_file`` (PEM) holds the authorities that the hub's certificate must come from,
    if not the usual ones; ``client_cert`` and ``client_key`` (PEM; the key may be in the first
    file) are the certificate that the client presents.

    A hub on the same machine can also be called on a worker's socket, such as
    "unix:///srv/penstock/run/worker-0.sock", with a key or token; this bypasses the sidecar
    (limits, access log).

    The constructor calls nothing. It raises ValueError if the arguments do not fit together.
    Every call raises PenstockError.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str = "",
        client_secret: str = "",
        api_key: str = "",
        token: str = "",
        scope: str = "",
        timeout: float = 30.0,
        ca_file: str = "",
        client_cert: str = "",
        client_key: str = "",
    ) -> None:
        self.url = parse_url(url)
        tls = Tls(ca_file, client_cert, client_key)
        if bool(client_id) != bool(client_secret):
            raise ValueError("client_id and client_secret go together")
        given = [c for c in (client_id, api_key, token) if c]
        if len(given) > 1:
            raise ValueError("give one of client_id, api_key and token")
        if scope and not client_id:
            raise ValueError("scope goes with client_id and client_secret")
        self._credentials: Credentials = Anonymous()
        if client_id:
            self._credentials = ClientCredentials(
                self.url, client_id, client_secret, timeout=timeout, scope=scope, tls=tls
            )
        elif api_key:
            self._credentials = ApiKey(api_key)
        elif token:
            self._credentials = BearerToken(token)
        self._link = Link(self.url, self._credentials, timeout=timeout, tls=tls)

    @property
    def channel(self) -> grpc.Channel:
        """The gRPC channel, credentials included, for use with the generated stubs."""
        return self._link.channel

    def dataset(self, name: str) -> DatasetClient:
        """The client of one dataset, such as "customers".

        Raises UnknownDataset if no stubs of it are installed.
        """
        return DatasetClient(self._link, load_stubs(name))

    def call(self, method: Any, request: Any, *, safe: bool) -> Any:
        """The reply of a generated stub's method; ``safe`` says that the call changes nothing."""
        return self._link.unary(method, request, safe=safe)

    def stream(self, method: Any, request: Any) -> Generator[Any, None, None]:
        """The replies of a generated stub's streaming method; closing it early ends the call."""
        return self._link.stream(method, request, timeout=None)

    def datasets(self) -> list[Any]:
        """The datasets and fields that the caller may see (``penstock.hub.v1.Dataset``)."""
        from penstock.hub.v1 import datasets_pb2, datasets_pb2_grpc

        stub = datasets_pb2_grpc.DatasetsStub(self.channel)
        request = datasets_pb2.ListDatasetsRequest()
        return list(self._link.unary(stub.ListDatasets, request, safe=True).datasets)

    def receipt(self, receipt_id: str) -> Any:
        """The receipt of an export (``penstock.hub.v1.Receipt``).

        NOT_FOUND if the caller can see no receipt with this id.
        """
        from penstock.hub.v1 import receipts_pb2, receipts_pb2_grpc

        stub = receipts_pb2_grpc.ReceiptsStub(self.channel)
        request = receipts_pb2.GetReceiptRequest(receipt_id=receipt_id)
        return self._link.unary(stub.GetReceipt, request, safe=True)

    def watch(
        self,
        datasets: Sequence[str] = (),
        *,
        cursor: str | Position = "",
        snapshot: bool = False,
        shapes: Sequence[str] = (),
        operations: str | Sequence[str] = (),
        batch_size: int = 0,
        include_before: bool = False,
        patience: float | None = None,
        on_break: Callable[[PenstockError], object] | None = None,
    ) -> Feed:
        """The changes of several datasets as they are committed, with one cursor.

        Without ``datasets``, covers all that the caller may read. ``shapes`` names at most one
        shape for each dataset. For the rest see ``DatasetClient.watch``.
        """
        from penstock.client import feeds

        asked = feeds.FeedTerms(cursor, snapshot, operations, batch_size, include_before, shapes)
        return feeds.watch_all(self._link, datasets, asked, patience=patience, on_break=on_break)

    def changes(
        self,
        datasets: Sequence[str] = (),
        cursor: str = "",
        *,
        wait: float = 0.0,
        shapes: Sequence[str] = (),
        operations: str | Sequence[str] = (),
        page_size: int = 0,
        include_before: bool = False,
    ) -> Page:
        """The changes of several datasets after a cursor; see ``DatasetClient.changes``."""
        from penstock.client import feeds

        asked = feeds.FeedTerms(cursor, False, operations, page_size, include_before, shapes)
        return feeds.poll_all(self._link, datasets, asked, wait)

    def subscription(self, name: str) -> SubscriptionClient:
        """A feed whose position the hub keeps under a name; see ``SubscriptionClient``."""
        from penstock.client.subscription import SubscriptionClient

        return SubscriptionClient(self._link, name)

    def subscriptions(self) -> list[Any]:
        """All subscriptions of the caller (``penstock.hub.v1.Subscription``), by id."""
        from penstock.client.subscription import list_subscriptions

        return list_subscriptions(self._link)

    @cached_property
    def shapes(self) -> ShapesClient:
        """Saved columns for one receiver: renamed, formatted, computed."""
        from penstock.client.shapes import ShapesClient

        return ShapesClient(self._link)

    @cached_property
    def access(self) -> AccessClient:
        """Administration of access: consumers, credentials, roles, history, explanations."""
        from penstock.client.access import AccessClient

        return AccessClient(self._link)

    @cached_property
    def plans(self) -> PlansClient:
        """Plans: what consumers may use, and the history of that."""
        from penstock.client.plans import PlansClient

        return PlansClient(self._link)

    @staticmethod
    def known_datasets() -> list[str]:
        """The names of the datasets with installed stubs, whatever the hub holds."""
        return known_datasets()

    def access_token(self) -> str:
        """The access token that calls currently carry.

        Raises ValueError if the client has no client id and secret.
        """
        if not isinstance(self._credentials, ClientCredentials):
            raise ValueError("only a client id and secret can be exchanged for a token")
        return self._credentials.token()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
