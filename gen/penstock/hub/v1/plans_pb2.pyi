import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.hub.v1 import access_pb2 as _access_pb2
from penstock.hub.v1 import limits_pb2 as _limits_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Plan(_message.Message):
    __slots__ = ("plan_id", "description", "time_zone", "shadow", "rates", "concurrent", "quotas", "policy_revision")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    plan_id: str
    description: str
    time_zone: str
    shadow: bool
    rates: _containers.RepeatedCompositeFieldContainer[_limits_pb2.RateLimit]
    concurrent: _limits_pb2.ConcurrencyLimit
    quotas: _containers.RepeatedCompositeFieldContainer[_limits_pb2.Quota]
    policy_revision: int
    def __init__(self, plan_id: _Optional[str] = ..., description: _Optional[str] = ..., time_zone: _Optional[str] = ..., shadow: _Optional[bool] = ..., rates: _Optional[_Iterable[_Union[_limits_pb2.RateLimit, _Mapping]]] = ..., concurrent: _Optional[_Union[_limits_pb2.ConcurrencyLimit, _Mapping]] = ..., quotas: _Optional[_Iterable[_Union[_limits_pb2.Quota, _Mapping]]] = ..., policy_revision: _Optional[int] = ...) -> None: ...

class ListPlansRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPlansResponse(_message.Message):
    __slots__ = ("plans", "next_page_token")
    PLANS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    plans: _containers.RepeatedCompositeFieldContainer[Plan]
    next_page_token: str
    def __init__(self, plans: _Optional[_Iterable[_Union[Plan, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("plan_id",)
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    plan_id: str
    def __init__(self, plan_id: _Optional[str] = ...) -> None: ...

class CreatePlanRequest(_message.Message):
    __slots__ = ("plan", "comment", "policy_revision", "validate_only")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UpdatePlanRequest(_message.Message):
    __slots__ = ("plan", "update_mask", "comment", "policy_revision", "validate_only")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    update_mask: _field_mask_pb2.FieldMask
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeletePlanRequest(_message.Message):
    __slots__ = ("plan_id", "comment", "policy_revision", "validate_only")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    plan_id: str
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, plan_id: _Optional[str] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class ListPlanRevisionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPlanRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "next_page_token")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[_access_pb2.PolicyRevision]
    next_page_token: str
    def __init__(self, revisions: _Optional[_Iterable[_Union[_access_pb2.PolicyRevision, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ComparePlanRevisionsRequest(_message.Message):
    __slots__ = ("from_revision", "to_revision")
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    from_revision: int
    to_revision: int
    def __init__(self, from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ...) -> None: ...

class ComparePlanRevisionsResponse(_message.Message):
    __slots__ = ("differences",)
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    differences: _containers.RepeatedCompositeFieldContainer[_access_pb2.PolicyDifference]
    def __init__(self, differences: _Optional[_Iterable[_Union[_access_pb2.PolicyDifference, _Mapping]]] = ...) -> None: ...

class RollbackPlansRequest(_message.Message):
    __slots__ = ("revision", "comment", "policy_revision", "validate_only")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    revision: int
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, revision: _Optional[int] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RollbackPlansResponse(_message.Message):
    __slots__ = ("revision", "differences")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    differences: _containers.RepeatedCompositeFieldContainer[_access_pb2.PolicyDifference]
    def __init__(self, revision: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[_access_pb2.PolicyDifference, _Mapping]]] = ...) -> None: ...

class RehearsePlanRequest(_message.Message):
    __slots__ = ("plan", "days", "consumers", "all_consumers")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    ALL_CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    days: int
    consumers: _containers.RepeatedScalarFieldContainer[str]
    all_consumers: bool
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ..., days: _Optional[int] = ..., consumers: _Optional[_Iterable[str]] = ..., all_consumers: _Optional[bool] = ...) -> None: ...

class RehearsePlanResponse(_message.Message):
    __slots__ = ("limits", "start_time", "end_time", "fresh_time", "counted_time")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    FRESH_TIME_FIELD_NUMBER: _ClassVar[int]
    COUNTED_TIME_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[RehearsedLimit]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    fresh_time: _timestamp_pb2.Timestamp
    counted_time: _timestamp_pb2.Timestamp
    def __init__(self, limits: _Optional[_Iterable[_Union[RehearsedLimit, _Mapping]]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fresh_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., counted_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RehearsedLimit(_message.Message):
    __slots__ = ("consumer", "limit", "verdict", "resolution", "refused", "refused_at_most", "occurrences", "first_time", "last_time", "near_hours", "peak", "allowed", "stretches", "reason")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_AT_MOST_FIELD_NUMBER: _ClassVar[int]
    OCCURRENCES_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    NEAR_HOURS_FIELD_NUMBER: _ClassVar[int]
    PEAK_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    STRETCHES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    limit: str
    verdict: str
    resolution: str
    refused: int
    refused_at_most: int
    occurrences: int
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    near_hours: int
    peak: int
    allowed: int
    stretches: _containers.RepeatedCompositeFieldContainer[RefusedStretch]
    reason: str
    def __init__(self, consumer: _Optional[str] = ..., limit: _Optional[str] = ..., verdict: _Optional[str] = ..., resolution: _Optional[str] = ..., refused: _Optional[int] = ..., refused_at_most: _Optional[int] = ..., occurrences: _Optional[int] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., near_hours: _Optional[int] = ..., peak: _Optional[int] = ..., allowed: _Optional[int] = ..., stretches: _Optional[_Iterable[_Union[RefusedStretch, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class RefusedStretch(_message.Message):
    __slots__ = ("start_time", "end_time", "used", "refused")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    used: int
    refused: int
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., used: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...

class GetLimitsRequest(_message.Message):
    __slots__ = ("consumer",)
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    def __init__(self, consumer: _Optional[str] = ...) -> None: ...

class GetLimitsResponse(_message.Message):
    __slots__ = ("consumer_id", "plan", "time_zone", "limits")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    plan: str
    time_zone: str
    limits: _containers.RepeatedCompositeFieldContainer[LimitStatus]
    def __init__(self, consumer_id: _Optional[str] = ..., plan: _Optional[str] = ..., time_zone: _Optional[str] = ..., limits: _Optional[_Iterable[_Union[LimitStatus, _Mapping]]] = ...) -> None: ...

class LimitStatus(_message.Message):
    __slots__ = ("name", "what", "limit", "used", "remaining", "soft", "per_second", "per", "start_time", "reset_time", "exhausted_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    RESET_TIME_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    what: str
    limit: int
    used: int
    remaining: int
    soft: bool
    per_second: float
    per: str
    start_time: _timestamp_pb2.Timestamp
    reset_time: _timestamp_pb2.Timestamp
    exhausted_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., what: _Optional[str] = ..., limit: _Optional[int] = ..., used: _Optional[int] = ..., remaining: _Optional[int] = ..., soft: _Optional[bool] = ..., per_second: _Optional[float] = ..., per: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reset_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., exhausted_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
