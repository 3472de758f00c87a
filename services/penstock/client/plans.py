"""Plans: what consumers may use, and the history of that.

Messages are those of ``penstock.hub.v1.plans``; arguments may also be dicts in their JSON form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import grpc

from penstock.client.access import NOW, Terms, make_message
from penstock.client.link import Link
from penstock.client.pages import walk_pages
from penstock.hub.v1 import access_pb2
from penstock.hub.v1 import plans_pb2 as api
from penstock.hub.v1 import plans_pb2_grpc as stubs

T = TypeVar("T")


class PlansClient:
    """The methods on plans at one hub. Every method raises PenstockError.

    Reading takes the permission plans.read, changing plans.write.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = stubs.PlansStub(link.channel)

    def all(self) -> Iterator[api.Plan]:
        """All plans, in order of id, page by page."""
        return self._pages(self._stub.ListPlans, api.ListPlansRequest(), "plans")

    def get(self, plan_id: str) -> api.Plan:
        """One plan."""
        return self._call(self._stub.GetPlan, api.GetPlanRequest(plan_id=plan_id), safe=True)

    def create(self, plan: Any, terms: Terms = NOW) -> api.Plan:
        """A new plan."""
        request = api.CreatePlanRequest(plan=make_message(plan, api.Plan), **terms.fields())
        return self._call(self._stub.CreatePlan, request)

    def update(self, plan: Any, mask: Sequence[str] = (), terms: Terms = NOW) -> api.Plan:
        """Set what ``mask`` names, or all that is set."""
        request = api.UpdatePlanRequest(plan=make_message(plan, api.Plan), **terms.fields())
        request.update_mask.paths.extend(mask)
        return self._call(self._stub.UpdatePlan, request)

    def delete(self, plan_id: str, terms: Terms = NOW) -> None:
        """Delete a plan that no consumer has."""
        self._call(self._stub.DeletePlan, api.DeletePlanRequest(plan_id=plan_id, **terms.fields()))

    def revisions(self) -> Iterator[access_pb2.PolicyRevision]:
        """The revisions of the policy that changed plans, newest first, page by page."""
        request = api.ListPlanRevisionsRequest()
        return self._pages(self._stub.ListPlanRevisions, request, "revisions")

    def compare(self, before: int, after: int = 0) -> list[access_pb2.PolicyDifference]:
        """What differs between the plans of two revisions; 0 is the one in force."""
        request = api.ComparePlanRevisionsRequest(from_revision=before, to_revision=after)
        return list(self._call(self._stub.ComparePlanRevisions, request, safe=True).differences)

    def roll_back(self, revision: int, terms: Terms = NOW) -> api.RollbackPlansResponse:
        """Restore the plans of an earlier revision, as a new one."""
        request = api.RollbackPlansRequest(revision=revision, **terms.fields())
        return self._call(self._stub.RollbackPlans, request)

    def rehearse(
        self, plan: Any, *, days: int = 0, consumers: Sequence[str] = (), everybody: bool = False
    ) -> api.RehearsePlanResponse:
        """Who would have been refused under a plan: of these consumers, of all, or of those that
        have the plan of its id now. Takes usage.read or audit.read, too."""
        request = api.RehearsePlanRequest(
            plan=make_message(plan, api.Plan),
            days=days,
            consumers=consumers,
            all_consumers=everybody,
        )
        return self._call(self._stub.RehearsePlan, request, safe=True)

    def limits(self, consumer: str = "") -> api.GetLimitsResponse:
        """The limits of a consumer, the caller itself by default, and what is left of them."""
        stub = stubs.LimitsStub(self._link.channel)
        request = api.GetLimitsRequest(consumer=consumer)
        return self._call(stub.GetLimits, request, safe=True)

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[Any, T], request: Any, *, safe: bool = False
    ) -> T:
        reply: T = self._link.unary(method, request, safe=safe)
        return reply

    def _pages(self, method: Any, request: Any, field: str) -> Iterator[Any]:
        return walk_pages(lambda asked: self._call(method, asked, safe=True), request, field)
