"""Explains access, previews what another subject would see, and rehearses changes of access."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.any_pb2 import Any as AnyMessage

from penstock.hub.v1 import access_pb2 as api
from penstockd.access.review import ReviewQuestion
from penstockd.access.review_files import NAME
from penstockd.access.subject import Subject
from penstockd.commands.access.explain_access import Answer, explain_access
from penstockd.commands.access.preview_records import preview_records
from penstockd.commands.access.rehearse_access import rehearse_access
from penstockd.commands.access.review_access import review_access
from penstockd.formats.pages import HTML, REPORT_FILES, REPORT_MEDIA
from penstockd.policy.explain import FieldAnswer, RecordAnswer, RowAnswer
from penstockd.policy.pages import Query
from penstockd.policy.rehearsal import ConsumerEffect, DatasetEffect, FieldEffect
from penstockd.policy.rendering import SelectedJson
from penstockd.query import parse_fields
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.access_messages import claims_of, difference_message, draft_of, put_claims
from penstockd.rpc.hub.files import make_file_sender
from penstockd.rpc.hub.messages import make_timestamp
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Access"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ExplainAccess": _explain_access,
            "PreviewRecords": _preview_records,
            "RehearseAccess": _rehearse_access,
            "ReviewAccess": _review_access,
        },
        documents={"ReviewAccess"},
    )


async def _explain_access(
    request: api.ExplainAccessRequest, call: ServedCall
) -> api.ExplainAccessResponse:
    answer = await explain_access(
        call.hub, call, request.dataset, _read_subject(request), request.key
    )
    return _answer_message(answer)


async def _preview_records(
    request: api.PreviewRecordsRequest, call: ServedCall
) -> api.PreviewRecordsResponse:
    query = Query(request.filter, request.order_by, request.fields, request.limit)
    preview = await preview_records(call.hub, call, request.dataset, _read_subject(request), query)
    reply = api.PreviewRecordsResponse(
        fields=[f.path for f in parse_fields(request.fields, preview.view)],
        more=preview.more,
        policy_revision=preview.revision,
    )
    writer = preview.view.prepared(SelectedJson, request.fields).writer
    call.exchange.show(preview.view.dataset, writer)
    for record in preview.records:
        packed = AnyMessage()
        packed.Pack(record)
        reply.records.append(packed)
    return reply


async def _rehearse_access(
    request: api.RehearseAccessRequest, call: ServedCall
) -> api.RehearseAccessResponse:
    role = draft_of(request.role) if request.HasField("role") else None
    outcome = await rehearse_access(call.hub, call, role, request.revision, request.days)
    return api.RehearseAccessResponse(
        policy_revision=outcome.revision,
        start_time=make_timestamp(outcome.since),
        consumers=map(_consumer_effect, outcome.effects),
        differences=map(difference_message, outcome.differences),
    )


async def _review_access(request: api.ReviewAccessRequest, call: ServedCall) -> None:
    form = call.exchange.pick_format(request.format, media=REPORT_MEDIA)
    file = REPORT_FILES[form]
    send = make_file_sender(
        call.exchange, NAME + file.suffix, file.content_type, shown=form == HTML
    )
    question = ReviewQuestion(request.consumer, request.days, request.unused_days)
    await review_access(call.hub, call, question, form, send)


def _read_subject(request: api.ExplainAccessRequest | api.PreviewRecordsRequest) -> Subject:
    return Subject(request.consumer_id, list(request.roles), claims_of(request.claims))


def _answer_message(answer: Answer) -> api.ExplainAccessResponse:
    found = answer.explanation
    reply = api.ExplainAccessResponse(
        dataset=found.dataset.name,
        consumer_id=answer.principal.consumer_id,
        active=answer.active,
        roles=sorted(answer.principal.roles),
        permissions=sorted(answer.permissions),
        policy_revision=answer.revision,
        actions=[
            api.ActionVerdict(action=action, allowed=bool(roles), roles=roles)
            for action, roles in found.actions.items()
        ],
        fields=map(_field_verdict, found.fields),
        rows=api.RowVerdict(
            all=found.all_rows, rules=map(_row_rule, found.rows), reason=found.row_reason
        ),
        record=_record_verdict(answer.record) if answer.record is not None else None,
    )
    put_claims(reply.claims, answer.principal.claims)
    return reply


def _field_verdict(answer: FieldAnswer) -> api.FieldVerdict:
    return api.FieldVerdict(
        path=answer.field.path,
        mask=answer.decision.mask,
        decided_by=[g.role for g in answer.decision.deciding],
        reason=answer.reason,
        grants=[
            api.GrantVerdict(role=g.role, mask=d.mask, rule=d.rule.name, names=d.names)
            for g, d in answer.decision.says
        ],
        writable=answer.writable,
    )


def _row_rule(answer: RowAnswer) -> api.RowRule:
    rule = api.RowRule(role=answer.grant.role, row_filter=answer.grant.row_filter)
    put_claims(rule.claims, answer.claims)
    # A missing claim is listed too: it is why the rule matches no row.
    for name in answer.claims:
        rule.claims[name].SetInParent()
    return rule


def _record_verdict(answer: RecordAnswer) -> api.RecordVerdict:
    return api.RecordVerdict(
        key=answer.key,
        exists=answer.exists,
        visible=answer.visible,
        roles=answer.roles,
        reason=answer.reason,
    )


def _consumer_effect(effect: ConsumerEffect) -> api.ConsumerEffect:
    return api.ConsumerEffect(
        consumer_id=effect.consumer_id,
        datasets=map(_dataset_effect, effect.datasets.values()),
        uncalled_datasets=effect.uncalled,
    )


def _dataset_effect(effect: DatasetEffect) -> api.DatasetEffect:
    visible, lost, gained = effect.rows
    return api.DatasetEffect(
        dataset=effect.dataset,
        lost_actions=effect.lost_actions,
        gained_actions=effect.gained_actions,
        fields=map(_field_effect, effect.fields.values()),
        row_count=visible,
        lost_row_count=lost,
        gained_row_count=gained,
        call_count=effect.calls,
        denied_call_count=effect.denied,
        failing_call_count=effect.failing,
        last_failing_call_time=make_timestamp(effect.last_failing),
        last_call_time=make_timestamp(effect.last),
    )


def _field_effect(effect: FieldEffect) -> api.FieldEffect:
    return api.FieldEffect(
        path=effect.field.path,
        before=effect.before,
        after=effect.after,
        call_count=effect.count,
        last_call_time=make_timestamp(effect.last),
        writable_before=effect.writable_before,
        writable_after=effect.writable_after,
    )
