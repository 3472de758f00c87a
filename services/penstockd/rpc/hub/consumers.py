"""Consumers and their credentials."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.empty_pb2 import Empty

from penstock.hub.v1 import access_pb2 as api
from penstockd.auth.credentials import StoredCredential
from penstockd.commands.access.create_consumer import create_consumer
from penstockd.commands.access.delete_consumer import delete_consumer
from penstockd.commands.access.get_consumer import get_consumer
from penstockd.commands.access.issue_credential import issue_credential
from penstockd.commands.access.list_consumers import list_consumers
from penstockd.commands.access.list_credentials import list_credentials
from penstockd.commands.access.revoke_credential import revoke_credential
from penstockd.commands.access.rotate_credential import rotate_credential
from penstockd.commands.access.update_consumer import FIELDS, update_consumer
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange
from penstockd.rpc.hub.access_messages import consumer_message, consumer_of, mask_of, terms_of
from penstockd.rpc.hub.messages import duration_of, routes_of, time_of, timestamp

_SERVICE = api.DESCRIPTOR.services_by_name["Consumers"]


def routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListConsumers": _list,
            "GetConsumer": _get,
            "CreateConsumer": _create,
            "UpdateConsumer": _update,
            "DeleteConsumer": _delete,
            "ListCredentials": _list_credentials,
            "IssueCredential": _issue,
            "RotateCredential": _rotate,
            "RevokeCredential": _revoke,
        },
    )


async def _list(request: api.ListConsumersRequest, exchange: Exchange) -> api.ListConsumersResponse:
    found, token, revision = await list_consumers(
        exchange.hub, exchange.call, request.page_size, request.page_token
    )
    messages = [consumer_message(c, revision) for c in found]
    return api.ListConsumersResponse(consumers=messages, next_page_token=token)


async def _get(request: api.GetConsumerRequest, exchange: Exchange) -> api.Consumer:
    name = request.consumer_id
    return consumer_message(*await get_consumer(exchange.hub, exchange.call, name))


async def _create(request: api.CreateConsumerRequest, exchange: Exchange) -> api.Consumer:
    created = await create_consumer(
        exchange.hub, exchange.call, consumer_of(request.consumer), terms_of(request)
    )
    return consumer_message(*created)


async def _update(request: api.UpdateConsumerRequest, exchange: Exchange) -> api.Consumer:
    updated = await update_consumer(
        exchange.hub,
        exchange.call,
        consumer_of(request.consumer),
        mask_of(request.update_mask, request.consumer, FIELDS),
        terms_of(request),
    )
    return consumer_message(*updated)


async def _delete(request: api.DeleteConsumerRequest, exchange: Exchange) -> Empty:
    await delete_consumer(exchange.hub, exchange.call, request.consumer_id, terms_of(request))
    return Empty()


async def _list_credentials(
    request: api.ListCredentialsRequest, exchange: Exchange
) -> api.ListCredentialsResponse:
    found, token = await list_credentials(
        exchange.hub, exchange.call, request.consumer_id, request.page_size, request.page_token
    )
    messages = [_credential(c) for c in found]
    return api.ListCredentialsResponse(credentials=messages, next_page_token=token)


async def _issue(request: api.IssueCredentialRequest, exchange: Exchange) -> api.IssuedCredential:
    issued, secret = await issue_credential(
        exchange.hub,
        exchange.call,
        request.consumer_id,
        api.Credential.Kind.Name(request.kind).lower() if request.kind in (1, 2) else "",
        time_of(request, "expire_time"),
        terms_of(request),
    )
    return api.IssuedCredential(credential=_credential(issued), secret=secret)


async def _rotate(request: api.RotateCredentialRequest, exchange: Exchange) -> api.IssuedCredential:
    issued, secret = await rotate_credential(
        exchange.hub,
        exchange.call,
        request.consumer_id,
        request.credential_id,
        duration_of(request, "overlap", timedelta()),
        time_of(request, "expire_time"),
        terms_of(request),
    )
    return api.IssuedCredential(credential=_credential(issued), secret=secret)


async def _revoke(request: api.RevokeCredentialRequest, exchange: Exchange) -> api.Credential:
    return _credential(
        await revoke_credential(
            exchange.hub,
            exchange.call,
            request.consumer_id,
            request.credential_id,
            terms_of(request),
        )
    )


def _credential(stored: StoredCredential) -> api.Credential:
    return api.Credential(
        credential_id=stored.credential_id,
        consumer_id=stored.consumer_id,
        kind=stored.kind.upper(),
        prefix=stored.prefix,
        create_time=timestamp(stored.create_time),
        expire_time=timestamp(stored.expire_time),
        last_use_time=timestamp(stored.last_use_time),
        revoked=stored.revoked,
    )
