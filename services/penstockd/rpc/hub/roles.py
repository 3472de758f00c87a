"""Roles and their grants."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty

from penstock.hub.v1 import access_pb2 as api
from penstockd.commands.access.create_role import create_role
from penstockd.commands.access.delete_role import delete_role
from penstockd.commands.access.get_role import get_role
from penstockd.commands.access.list_roles import list_roles
from penstockd.commands.access.update_role import FIELDS, update_role
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.access_messages import draft_of, mask_of, role_message, terms_of
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Roles"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListRoles": _list_roles,
            "GetRole": _get_role,
            "CreateRole": _create_role,
            "UpdateRole": _update_role,
            "DeleteRole": _delete_role,
        },
    )


async def _list_roles(request: api.ListRolesRequest, call: ServedCall) -> api.ListRolesResponse:
    found, token, revision = await list_roles(call.hub, call, request.page_size, request.page_token)
    messages = [role_message(r, revision) for r in found]
    return api.ListRolesResponse(roles=messages, next_page_token=token)


async def _get_role(request: api.GetRoleRequest, call: ServedCall) -> api.Role:
    return role_message(*await get_role(call.hub, call, request.role_id))


async def _create_role(request: api.CreateRoleRequest, call: ServedCall) -> api.Role:
    draft, terms = draft_of(request.role), terms_of(request)
    return role_message(*await create_role(call.hub, call, draft, terms))


async def _update_role(request: api.UpdateRoleRequest, call: ServedCall) -> api.Role:
    mask = mask_of(request.update_mask, request.role, FIELDS)
    draft, terms = draft_of(request.role), terms_of(request)
    return role_message(*await update_role(call.hub, call, draft, mask, terms))


async def _delete_role(request: api.DeleteRoleRequest, call: ServedCall) -> Empty:
    await delete_role(call.hub, call, request.role_id, terms_of(request))
    return Empty()
