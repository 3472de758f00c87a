"""Plans, and their history."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty

from penstock.hub.v1 import plans_pb2 as api
from penstockd.access.plan_rehearsing import RehearsalRange
from penstockd.commands.plans.compare_plan_revisions import compare_plan_revisions
from penstockd.commands.plans.create_plan import create_plan
from penstockd.commands.plans.delete_plan import delete_plan
from penstockd.commands.plans.get_plan import get_plan
from penstockd.commands.plans.list_plan_revisions import list_plan_revisions
from penstockd.commands.plans.list_plans import list_plans
from penstockd.commands.plans.rehearse_plan import rehearse_plan
from penstockd.commands.plans.roll_back_plans import roll_back_plans
from penstockd.commands.plans.update_plan import FIELDS, update_plan
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.access_messages import (
    difference_message,
    mask_of,
    revision_message,
    terms_of,
)
from penstockd.rpc.hub.plan_messages import plan_draft_of, plan_message
from penstockd.rpc.hub.plan_rehearsals import rehearsal_message
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Plans"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListPlans": _list_plans,
            "GetPlan": _get_plan,
            "CreatePlan": _create_plan,
            "UpdatePlan": _update_plan,
            "DeletePlan": _delete_plan,
            "ListPlanRevisions": _list_revisions,
            "ComparePlanRevisions": _compare_revisions,
            "RollbackPlans": _roll_back,
            "RehearsePlan": _rehearse_plan,
        },
    )


async def _list_plans(request: api.ListPlansRequest, call: ServedCall) -> api.ListPlansResponse:
    found, token, revision = await list_plans(call.hub, call, request.page_size, request.page_token)
    messages = [plan_message(plan, revision) for plan in found]
    return api.ListPlansResponse(plans=messages, next_page_token=token)


async def _get_plan(request: api.GetPlanRequest, call: ServedCall) -> api.Plan:
    return plan_message(*await get_plan(call.hub, call, request.plan_id))


async def _create_plan(request: api.CreatePlanRequest, call: ServedCall) -> api.Plan:
    draft, terms = plan_draft_of(request.plan), terms_of(request)
    return plan_message(*await create_plan(call.hub, call, draft, terms))


async def _update_plan(request: api.UpdatePlanRequest, call: ServedCall) -> api.Plan:
    mask = mask_of(request.update_mask, request.plan, FIELDS)
    draft, terms = plan_draft_of(request.plan), terms_of(request)
    return plan_message(*await update_plan(call.hub, call, draft, mask, terms))


async def _delete_plan(request: api.DeletePlanRequest, call: ServedCall) -> Empty:
    await delete_plan(call.hub, call, request.plan_id, terms_of(request))
    return Empty()


async def _list_revisions(
    request: api.ListPlanRevisionsRequest, call: ServedCall
) -> api.ListPlanRevisionsResponse:
    found, token = await list_plan_revisions(call.hub, call, request.page_size, request.page_token)
    messages = [revision_message(r) for r in found]
    return api.ListPlanRevisionsResponse(revisions=messages, next_page_token=token)


async def _compare_revisions(
    request: api.ComparePlanRevisionsRequest, call: ServedCall
) -> api.ComparePlanRevisionsResponse:
    found = await compare_plan_revisions(call.hub, call, request.from_revision, request.to_revision)
    return api.ComparePlanRevisionsResponse(differences=map(difference_message, found))


async def _roll_back(
    request: api.RollbackPlansRequest, call: ServedCall
) -> api.RollbackPlansResponse:
    found, revision = await roll_back_plans(call.hub, call, request.revision, terms_of(request))
    return api.RollbackPlansResponse(revision=revision, differences=map(difference_message, found))


async def _rehearse_plan(
    request: api.RehearsePlanRequest, call: ServedCall
) -> api.RehearsePlanResponse:
    asked = RehearsalRange(request.days, request.consumers, request.all_consumers)
    draft = plan_draft_of(request.plan)
    return rehearsal_message(await rehearse_plan(call.hub, call, draft, asked))
