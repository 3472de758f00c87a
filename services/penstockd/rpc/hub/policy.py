"""The policy's history."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import access_pb2 as api
from penstockd.commands.access.compare_revisions import compare_revisions
from penstockd.commands.access.get_revision import get_revision
from penstockd.commands.access.list_revisions import list_revisions
from penstockd.commands.access.roll_back import roll_back
from penstockd.policy.history import PolicyDocument, Revision
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.access_messages import (
    consumer_fields,
    difference_message,
    revision_message,
    role_message,
    terms_of,
)
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Policy"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListPolicyRevisions": _list_revisions,
            "GetPolicyRevision": _get_revision,
            "ComparePolicyRevisions": _compare_revisions,
            "RollbackPolicy": _roll_back,
        },
    )


async def _list_revisions(
    request: api.ListPolicyRevisionsRequest, call: ServedCall
) -> api.ListPolicyRevisionsResponse:
    found, token = await list_revisions(call.hub, call, request.page_size, request.page_token)
    messages = [_revision_message(r) for r in found]
    return api.ListPolicyRevisionsResponse(revisions=messages, next_page_token=token)


async def _get_revision(
    request: api.GetPolicyRevisionRequest, call: ServedCall
) -> api.PolicyRevision:
    revision, document = await get_revision(call.hub, call, request.revision)
    return _revision_message(revision, document)


async def _compare_revisions(
    request: api.ComparePolicyRevisionsRequest, call: ServedCall
) -> api.ComparePolicyRevisionsResponse:
    found = await compare_revisions(call.hub, call, request.from_revision, request.to_revision)
    return api.ComparePolicyRevisionsResponse(differences=map(difference_message, found))


async def _roll_back(request: api.RollbackPolicyRequest, call: ServedCall) -> api.PolicyRevision:
    made, document, number = await roll_back(call.hub, call, request.revision, terms_of(request))
    message = api.PolicyRevision(revision=number) if made is None else _revision_message(made)
    _put_document(message, document)
    return message


def _revision_message(
    revision: Revision, document: PolicyDocument | None = None
) -> api.PolicyRevision:
    message = revision_message(revision)
    if document is not None:
        _put_document(message, document)
    return message


def _put_document(message: api.PolicyRevision, document: PolicyDocument) -> None:
    message.roles.extend(role_message(r) for r in document.roles.values())
    message.consumers.extend(consumer_fields(c) for c in document.consumers.values())
