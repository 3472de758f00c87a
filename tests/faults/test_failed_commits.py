"""A COMMIT that fails: for every method that writes, the answer and the audit entry report it.

Every method runs on a worker within the test, and its COMMITs fail in each way. The test has no
list of writing methods: a method writes if the database gives its transaction an id.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from harness import RunningHub, eventually
from own_worker import Worker, worker
from penstockd import budget
from penstockd.calls import Call
from penstockd.rpc.door import Route
from penstockd.store import commit
from security.calls import every_route

pytestmark = pytest.mark.lane("faults/own_hub")

#: The ways in which a COMMIT fails, and the reason that the call must report.
BEFORE, WITHIN = "DATABASE_UNAVAILABLE", "OUTCOME_UNKNOWN"
#: The datasets under test; the methods of the others are the same.
DATASETS = (None, "customers")

#: Methods that lease what they show: an entry of it is durable after the lease, before the reply.
LEASING = {"PullChanges", "WatchSubscription"}

_HOLDS_ENTRY = """
SELECT EXISTS (SELECT FROM hub.audit_entry WHERE xmin = pg_current_xact_id()::xid)
"""
_in_writing: ContextVar[bool] = ContextVar("in_writing", default=False)


@dataclass
class Commits:
    """Makes the COMMITs of calls fail, while the hub's own work continues."""

    failing: str = ""
    struck: int = 0
    #: Methods whose transactions wrote something outside ``Call.writing``.
    outside: set[str] = field(default_factory=set)
    #: Methods with a transaction that holds audit entries.
    audited: set[str] = field(default_factory=set)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Step between the hub and its database."""
        real_commit, real_writing = commit.send_commit, Call.writing

        async def commit_or_fail(connection: Any, began: Any, seconds: float) -> None:
            wrote = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
            call = budget.get_budget()
            if call is not None and await connection.fetchval(wrote):
                self.note(call)
                if await connection.fetchval(_HOLDS_ENTRY):
                    self.audited.add(call.name)
                if self.failing == BEFORE:
                    connection.terminate()
                elif self.failing == WITHIN:
                    began = _Lost(began)
                self.struck += bool(self.failing)
            await real_commit(connection, began, seconds)

        @contextlib.asynccontextmanager
        async def writing(call: Call, transaction: Any) -> AsyncIterator[Any]:
            token = _in_writing.set(True)
            try:
                async with real_writing(call, transaction) as opened:
                    yield opened
            finally:
                _in_writing.reset(token)

        patch.setattr(commit, "send_commit", commit_or_fail)
        patch.setattr(Call, "writing", writing)
        # A session that may hang in its COMMIT keeps a place until it has visibly ended.
        patch.setattr("penstockd.store.hanging.LOOK", 0.01)

    def note(self, call: Any) -> None:
        if not _in_writing.get():
            self.outside.add(call.name)


class _Lost:
    """A transaction whose COMMIT the server neither executes nor answers."""

    def __init__(self, began: Any) -> None:
        self._began = began

    async def commit(self) -> None:
        await self._began.rollback()
        raise ConnectionResetError("the connection broke")


class Requests:
    """A request for each method, in this order, so that each has something to do."""

    def __init__(self, hub: RunningHub) -> None:
        self._hub = hub
        self.name = name = f"fc-{uuid.uuid4().hex[:8]}"
        self._make("customers", {"customerId": name, "name": name})
        self._make("access/roles", {"roleId": name})
        self._make("access/consumers", {"consumerId": name, "roles": [name]})
        issued = self._make(f"access/consumers/{name}/credentials", {"kind": "API_KEY"})
        self.credential = issued["credential"]["credentialId"]
        ((self.revision,),) = hub.sql("SELECT revision FROM hub.policy")
        self.start = hub.get("/v1/customers:changes").json()["nextCursor"]
        listen = {"kind": "LISTEN", "selections": [{"dataset": "customers"}]}
        self.webhook = self._make("webhooks", listen)["webhook"]["webhookId"]
        changed = {"customerId": f"{name}-1", "name": name}
        self._make("customers", changed)
        deliveries = "SELECT delivery_id FROM hub.webhook_delivery WHERE webhook_id = $1"
        ((self.delivery,),) = eventually(lambda: hub.sql(deliveries, self.webhook))
        export = hub.get("/v1/customers:export", format="CSV")
        self.receipt = export.headers["penstock-receipt"]

    def _make(self, path: str, body: Any) -> Any:
        made = self._hub.request("POST", f"/v1/{path}", consumer="admin", json_body=body)
        assert made.status == 200, made.text
        return made.json()

    def _lease(self) -> dict[str, Any]:
        """A subscription and a lease of it."""
        path = f"subscriptions/{self.name}"
        self._make(f"{path}:reset", {"start": self.start})
        pulled = self._make(f"{path}:pull", {"ackSeconds": 3600})
        return {"subscription_id": self.name, "lease_id": pulled["lease"]["leaseId"]}

    def all(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """The requests by method; each is built just before it is sent."""
        return {
            **self._records(),
            **self._feeds(),
            **self._shapes(),
            **self._webhooks(),
            **self._access(),
            **self._plans(),
            **self._rest(),
        }

    def _records(self) -> dict[str, Callable[[], dict[str, Any]]]:
        name, new = self.name, f"{self.name}-2"
        lines = f"customer_id,name\n{new},imported\n".encode()
        return {
            "GetCustomer": lambda: {"customer_id": name},
            "ListCustomers": dict,
            "CreateCustomer": lambda: {"customer": {"customer_id": new, "name": "new"}},
            "UpdateCustomer": lambda: {"customer": {"customer_id": new, "name": "newer"}},
            "BatchUpsertCustomers": lambda: {"customers": [{"customer_id": new, "name": "batch"}]},
            "ImportCustomers": lambda: {"format": "CSV", "file": {"data": lines}},
            "DeleteCustomer": lambda: {"customer_id": new},
            "ExportCustomers": lambda: {"format": "CSV"},
            "StreamExportCustomers": lambda: {"format": "CSV"},
            "DigestCustomers": dict,
            "RepairCustomers": lambda: {"ranges": [{}]},
        }

    def _feeds(self) -> dict[str, Callable[[], dict[str, Any]]]:
        named = {"subscription_id": self.name}
        terms = {**named, "datasets": ["customers"]}
        start = {"cursor": self.start}
        return {
            "WatchCustomers": lambda: start,
            "ListCustomerChanges": lambda: start,
            "WatchChanges": lambda: start,
            "ListChanges": lambda: start,
            "GetChangeLog": dict,
            "CreateStreamTicket": lambda: {"feed": "/v1/customers:watch"},
            "CreateSubscription": lambda: {"subscription": terms, "start": self.start},
            "GetSubscription": lambda: named,
            "ListSubscriptions": dict,
            "PullChanges": lambda: named,
            "ExtendLease": lambda: {**self._lease(), "ack_seconds": 100},
            "ReleaseLease": self._lease,
            "AcknowledgeChanges": self._lease,
            "ResetSubscription": lambda: {**named, "start": self.start},
            "WatchSubscription": lambda: named,
            "DeleteSubscription": lambda: named,
        }

    def _shapes(self) -> dict[str, Callable[[], dict[str, Any]]]:
        named = {"shape_id": self.name}
        columns = [{"name": "Name", "field": "name"}]
        shape = {"shape": {**named, "dataset": "customers", "columns": columns}}
        return {
            "CreateShape": lambda: shape,
            "UpdateShape": lambda: shape,
            "GetShape": lambda: named,
            "ListShapes": dict,
            "CompareShapes": lambda: named,
            "PreviewShape": lambda: shape,
            "DeleteShape": lambda: named,
        }

    def _webhooks(self) -> dict[str, Callable[[], dict[str, Any]]]:
        webhook = {"webhook_id": self.webhook}
        delivery = {**webhook, "delivery_id": self.delivery}
        outcomes = [{"delivery_id": self.delivery, "status": 200}]
        made = {"kind": "LISTEN", "selections": [{"dataset": "customers"}]}
        title = {"webhook": {**webhook, "title": "other"}, "update_mask": {"paths": ["title"]}}
        return {
            "ListWebhooks": dict,
            "GetWebhook": lambda: webhook,
            "CreateWebhook": lambda: {"webhook": made},
            "UpdateWebhook": lambda: title,
            "PauseWebhook": lambda: webhook,
            "ResumeWebhook": lambda: webhook,
            "RotateSecret": lambda: webhook,
            "TestWebhook": lambda: webhook,
            "ListDeliveries": lambda: webhook,
            "GetDelivery": lambda: delivery,
            "PullDeliveries": lambda: {**webhook, "max_deliveries": 100},
            "AcknowledgeDeliveries": lambda: {**webhook, "outcomes": outcomes},
            "ResendDelivery": lambda: delivery,
            "RecoverDeliveries": lambda: {**webhook, "start_time": {"seconds": 1}},
            "ReplayChanges": lambda: {**webhook, **{"cursor": self.start}},
            "ListDeadLetters": dict,
            "ListNotices": dict,
            "GetWebhookMetrics": lambda: webhook,
            "DeleteWebhook": lambda: webhook,
        }

    def _access(self) -> dict[str, Callable[[], dict[str, Any]]]:
        name, new = self.name, f"{self.name}-new"
        consumer, role = {"consumer_id": name}, {"role_id": name}
        credential = {**consumer, "credential_id": self.credential}
        revision = {"revision": self.revision}
        mask = {"update_mask": {"paths": ["title"]}}
        issuer = {
            "issuer_id": name,
            "issuer": f"https://{name}.example.com",
            "jwks_uri": f"https://{name}.example.com/keys",
            "audiences": ["penstock"],
            "consumer_id": name,
        }
        return {
            "ListRoles": dict,
            "GetRole": lambda: role,
            "CreateRole": lambda: {"role": {"role_id": new}},
            "UpdateRole": lambda: {"role": {"role_id": new, "description": "other"}},
            "DeleteRole": lambda: {"role_id": new},
            "ListConsumers": dict,
            "GetConsumer": lambda: consumer,
            "CreateConsumer": lambda: {"consumer": {"consumer_id": new}},
            "UpdateConsumer": lambda: {"consumer": {"consumer_id": new, "title": "other"}, **mask},
            "DeleteConsumer": lambda: {"consumer_id": new},
            "ListCredentials": lambda: consumer,
            "IssueCredential": lambda: {**consumer, "kind": "API_KEY"},
            "RotateCredential": lambda: credential,
            "RevokeCredential": lambda: credential,
            "ListIssuers": dict,
            "CreateIssuer": lambda: {"issuer": issuer},
            "GetIssuer": lambda: {"issuer_id": name},
            "UpdateIssuer": lambda: {"issuer": {"issuer_id": name, "title": "other"}, **mask},
            "DeleteIssuer": lambda: {"issuer_id": name},
            "ListPolicyRevisions": dict,
            "GetPolicyRevision": lambda: revision,
            "ComparePolicyRevisions": lambda: {"from_revision": self.revision},
            "RollbackPolicy": lambda: revision,
            "ListSigningKeys": dict,
            "RotateSigningKeys": dict,
            "ExplainAccess": lambda: {"dataset": "customers", **consumer},
            "PreviewRecords": lambda: {"dataset": "customers", "consumer_id": "crm"},
            "RehearseAccess": lambda: {**revision, "days": 1},
            "ReviewAccess": dict,
        }

    def _plans(self) -> dict[str, Callable[[], dict[str, Any]]]:
        named, revision = {"plan_id": self.name}, {"revision": self.revision}
        return {
            "ListPlans": dict,
            "GetLimits": dict,
            "CreatePlan": lambda: {"plan": named},
            "GetPlan": lambda: named,
            "UpdatePlan": lambda: {"plan": {**named, "description": "other"}},
            "ListPlanRevisions": dict,
            "ComparePlanRevisions": lambda: {"from_revision": self.revision},
            "DeletePlan": lambda: named,
            "RollbackPlans": lambda: revision,
            "RehearsePlan": lambda: {"plan": named},
        }

    def _rest(self) -> dict[str, Callable[[], dict[str, Any]]]:
        secret = self._hub.consumers["crm"]["client_secret"]
        form = f"grant_type=client_credentials&client_id=crm&client_secret={secret}".encode()
        return {
            "ListEntries": lambda: {"page_size": 1},
            "ListDisclosures": lambda: {"dataset": "customers", "record_key": self.name},
            "VerifyEntries": dict,
            "GetCheckpoint": dict,
            "ExportEntries": dict,
            "ReportUsage": dict,
            "ExportUsage": dict,
            "GetScorecard": dict,
            "ExportScorecard": dict,
            "IssueToken": lambda: {"data": form},
            "GetJwks": dict,
            "GetMetadata": dict,
            "GetCaller": dict,
            "GetMonitoring": dict,
            "ListDatasets": dict,
            "GetXmlSchema": lambda: {"dataset": "customers"},
            "ListErrors": dict,
            "GetError": lambda: {"error_reason": "CONFLICT"},
            "GetReceipt": lambda: {"receipt_id": self.receipt},
        }


class Trial:
    """Calls methods while COMMITs fail, and checks the answers."""

    def __init__(self, hub: RunningHub, served: Worker, commits: Commits) -> None:
        self._hub, self._served, self._commits = hub, served, commits
        self._numbers = itertools.count()
        self._prefix = uuid.uuid4().hex[:8]

    async def call(self, route: Route, values: dict[str, Any], failing: str) -> tuple[str, str]:
        """The status of a call whose COMMIT fails in this way, and its request id."""
        request_id = f"{self._prefix}-{next(self._numbers):04}"
        self._commits.failing, self._commits.struck = failing, 0
        whole = bool(failing) and "Subscription" in route.method.name
        try:
            code = await self._served.answer(
                route, route.request(**values), ("x-request-id", request_id), whole=whole
            )
        finally:
            self._commits.failing = ""
        return code.name, request_id

    async def fails(self, route: Route, values: dict[str, Any], reason: str) -> bool:
        """Whether a call whose COMMIT is to fail reached a COMMIT. If so, it was refused and its
        last entry gives the reason; else it was answered. Raises AssertionError otherwise."""
        code, request_id = await self.call(route, values, reason)
        if not self._commits.struck:
            assert code == "OK", (
                f"{route.method.path} refers to something that does not exist: {code}"
            )
            return False
        assert code == grpc.StatusCode.UNAVAILABLE.name, (route.method.path, code)
        told = await self.entries(request_id)
        own = [outcome for phase, outcome in told if phase == "CALL"]
        if route.streams_reply:  # its first entry is older than its first frame
            own = [told[-1][1]]
        assert own == [reason], (route.method.path, told)
        return True

    async def entries(self, request_id: str) -> list[tuple[str, str]]:
        """The phases and outcomes of a call's entries, in order."""
        query = "SELECT phase, outcome FROM hub.audit_entry WHERE request_id = $1 ORDER BY entry_id"
        found = await asyncio.to_thread(self._hub.sql, query, request_id)
        return [(str(phase), str(outcome)) for phase, outcome in found]


async def test_a_failed_commit_is_told_and_recorded(
    own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = {r.method.name: r for r in every_route() if r.method.dataset in DATASETS}
    requests = (await asyncio.to_thread(Requests, own_hub)).all()
    assert routes.keys() == requests.keys(), "every method is tried here"
    commits, wrote = Commits(), set[str]()
    async with worker(own_hub, monkeypatch) as served:
        commits.install(monkeypatch)
        trial = Trial(own_hub, served, commits)
        for name, make in requests.items():
            values = await asyncio.to_thread(make)
            if not await trial.fails(routes[name], values, WITHIN):
                continue
            wrote.add(name)
            assert await trial.fails(routes[name], values, BEFORE)
            code, request_id = await trial.call(routes[name], values, "")
            assert code == "OK", (name, code)
            if routes[name].method.audited:
                assert ("CALL", "OK") in await trial.entries(request_id), name
    assert not commits.outside, "call.writing() opens every transaction that writes"
    audited = {path.rpartition("/")[2] for path in commits.audited}
    assert wrote - audited <= LEASING, "the entry is in the transaction that it reports"
    verbs = ("Create", "Update", "Delete", "Rotate", "Pull", "Acknowledge", "Batch", "Import")
    writing = {n for n in requests if n.startswith(verbs)} - {"CreateStreamTicket"}
    assert writing <= wrote, "the control: these write"


async def test_an_entry_that_counts_too_early_is_caught(
    own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a call that reports itself recorded before its COMMIT."""
    route = next(r for r in every_route() if r.method.name == "CreateCustomer")
    real = Call.audit_within

    async def too_early(call: Call, connection: Any, rows: int) -> None:
        await real(call, connection, rows)
        call.recorded = True

    commits = Commits()
    async with worker(own_hub, monkeypatch) as served:
        commits.install(monkeypatch)
        trial = Trial(own_hub, served, commits)
        values = {"customer": {"customer_id": f"fc-{uuid.uuid4().hex[:8]}", "name": "x"}}
        assert await trial.fails(route, values, BEFORE)
        monkeypatch.setattr(Call, "audit_within", too_early)
        for reason in (BEFORE, WITHIN):
            with pytest.raises(AssertionError, match="CreateCustomer"):
                await trial.fails(route, values, reason)


async def test_an_entry_beside_its_transaction_is_caught(
    own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a call whose entry is written after its transaction."""
    route = next(r for r in every_route() if r.method.name == "CreateCustomer")

    async def later(call: Call, connection: Any, rows: int) -> None:
        call.entry.row_count = rows

    commits = Commits()
    async with worker(own_hub, monkeypatch) as served:
        commits.install(monkeypatch)
        trial = Trial(own_hub, served, commits)
        for audited in ({route.method.path}, set[str]()):
            values = {"customer": {"customer_id": f"fc-{uuid.uuid4().hex[:8]}", "name": "x"}}
            commits.audited.clear()
            code, _ = await trial.call(route, values, "")
            assert (code, commits.audited) == ("OK", audited)
            monkeypatch.setattr(Call, "audit_within", later)


async def test_a_transaction_beside_the_gate_is_caught(
    own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a command that writes in a transaction that it opens itself."""
    route = next(r for r in every_route() if r.method.name == "PauseWebhook")

    def beside(call: Call, transaction: Any) -> Any:
        return transaction

    commits = Commits()
    requests = await asyncio.to_thread(Requests, own_hub)
    async with worker(own_hub, monkeypatch) as served:
        commits.install(monkeypatch)
        monkeypatch.setattr(Call, "writing", beside)
        await Trial(own_hub, served, commits).call(route, {"webhook_id": requests.webhook}, "")
    assert commits.outside == {route.method.path}
