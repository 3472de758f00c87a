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
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.access_messages import consumer_message, consumer_of, mask_of, terms_of
from penstockd.rpc.hub.messages import duration_of, time_of, timestamp
from penstockd.rpc.routes import routes_of

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


async def _list(request: api.ListConsumersRequest, call: ServedCall) -> api.ListConsumersResponse:
    found, token, revision = await list_consumers(
        call.hub, call, request.page_size, request.page_token
    )
    messages = [consumer_message(c, revision) for c in found]
    return api.ListConsumersResponse(consumers=messages, next_page_token=token)


async def _get(request: api.GetConsumerRequest, call: ServedCall) -> api.Consumer:
    name = request.consumer_id
    return consumer_message(*await get_consumer(call.hub, call, name))


async def _create(request: api.CreateConsumerRequest, call: ServedCall) -> api.Consumer:
    created = await create_consumer(
        call.hub, call, consumer_of(request.consumer), terms_of(request)
    )
    return consumer_message(*created)


async def _update(request: api.UpdateConsumerRequest, call: ServedCall) -> api.Consumer:
    updated = await update_consumer(
        call.hub,
        call,
        consumer_of(request.consumer),
        mask_of(request.update_mask, request.consumer, FIELDS),
        terms_of(request),
    )
    return consumer_message(*updated)


async def _delete(request: api.DeleteConsumerRequest, call: ServedCall) -> Empty:
    await delete_consumer(call.hub, call, request.consumer_id, terms_of(request))
    return Empty()


async def _list_credentials(
    request: api.ListCredentialsRequest, call: ServedCall
) -> api.ListCredentialsResponse:
    found, token = await list_credentials(
        call.hub, call, request.consumer_id, request.page_size, request.page_token
    )
    messages = [_credential(c) for c in found]
    return api.ListCredentialsResponse(credentials=messages, next_page_token=token)


async def _issue(request: api.IssueCredentialRequest, call: ServedCall) -> api.IssuedCredential:
    issued, secret = await issue_credential(
        call.hub,
        call,
        request.consumer_id,
        api.Credential.Kind.Name(request.kind).lower() if request.kind in (1, 2) else "",
        time_of(request, "expire_time"),
        terms_of(request),
    )
    return api.IssuedCredential(credential=_credential(issued), secret=secret)


async def _rotate(request: api.RotateCredentialRequest, call: ServedCall) -> api.IssuedCredential:
    issued, secret = await rotate_credential(
        call.hub,
        call,
        request.consumer_id,
        request.credential_id,
        duration_of(request, "overlap", timedelta()),
        time_of(request, "expire_time"),
        terms_of(request),
    )
    return api.IssuedCredential(credential=_credential(issued), secret=secret)


async def _revoke(request: api.RevokeCredentialRequest, call: ServedCall) -> api.Credential:
    return _credential(
        await revoke_credential(
            call.hub,
            call,
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
