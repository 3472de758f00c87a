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
from penstockd.rpc.hub.messages import duration_of, make_timestamp, time_of
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Consumers"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListConsumers": _list_consumers,
            "GetConsumer": _get_consumer,
            "CreateConsumer": _create_consumer,
            "UpdateConsumer": _update_consumer,
            "DeleteConsumer": _delete_consumer,
            "ListCredentials": _list_credentials,
            "IssueCredential": _issue_credential,
            "RotateCredential": _rotate_credential,
            "RevokeCredential": _revoke_credential,
        },
    )


async def _list_consumers(
    request: api.ListConsumersRequest, call: ServedCall
) -> api.ListConsumersResponse:
    found, token, revision = await list_consumers(
        call.hub, call, request.page_size, request.page_token
    )
    messages = [consumer_message(c, revision) for c in found]
    return api.ListConsumersResponse(consumers=messages, next_page_token=token)


async def _get_consumer(request: api.GetConsumerRequest, call: ServedCall) -> api.Consumer:
    name = request.consumer_id
    return consumer_message(*await get_consumer(call.hub, call, name))


async def _create_consumer(request: api.CreateConsumerRequest, call: ServedCall) -> api.Consumer:
    created = await create_consumer(
        call.hub, call, *consumer_of(request.consumer), terms_of(request)
    )
    return consumer_message(*created)


async def _update_consumer(request: api.UpdateConsumerRequest, call: ServedCall) -> api.Consumer:
    updated = await update_consumer(
        call.hub,
        call,
        *consumer_of(request.consumer),
        mask_of(request.update_mask, request.consumer, FIELDS),
        terms_of(request),
    )
    return consumer_message(*updated)


async def _delete_consumer(request: api.DeleteConsumerRequest, call: ServedCall) -> Empty:
    await delete_consumer(call.hub, call, request.consumer_id, terms_of(request))
    return Empty()


async def _list_credentials(
    request: api.ListCredentialsRequest, call: ServedCall
) -> api.ListCredentialsResponse:
    found, token = await list_credentials(
        call.hub, call, request.consumer_id, request.page_size, request.page_token
    )
    messages = [_credential_message(c) for c in found]
    return api.ListCredentialsResponse(credentials=messages, next_page_token=token)


async def _issue_credential(
    request: api.IssueCredentialRequest, call: ServedCall
) -> api.IssuedCredential:
    issued, secret = await issue_credential(
        call.hub,
        call,
        request.consumer_id,
        api.Credential.Kind.Name(request.kind).lower() if request.kind in (1, 2) else "",
        time_of(request, "expire_time"),
        terms_of(request),
    )
    return api.IssuedCredential(credential=_credential_message(issued), secret=secret)


async def _rotate_credential(
    request: api.RotateCredentialRequest, call: ServedCall
) -> api.IssuedCredential:
    issued, secret = await rotate_credential(
        call.hub,
        call,
        request.consumer_id,
        request.credential_id,
        duration_of(request, "overlap", timedelta()),
        time_of(request, "expire_time"),
        terms_of(request),
    )
    return api.IssuedCredential(credential=_credential_message(issued), secret=secret)


async def _revoke_credential(
    request: api.RevokeCredentialRequest, call: ServedCall
) -> api.Credential:
    return _credential_message(
        await revoke_credential(
            call.hub,
            call,
            request.consumer_id,
            request.credential_id,
            terms_of(request),
        )
    )


def _credential_message(stored: StoredCredential) -> api.Credential:
    return api.Credential(
        credential_id=stored.credential_id,
        consumer_id=stored.consumer_id,
        kind=stored.kind.upper(),
        prefix=stored.prefix,
        create_time=make_timestamp(stored.create_time),
        expire_time=make_timestamp(stored.expire_time),
        last_use_time=make_timestamp(stored.last_use_time),
        revoked=stored.revoked,
    )
