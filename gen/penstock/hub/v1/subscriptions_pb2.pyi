import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.hub.v1 import changes_pb2 as _changes_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Subscription(_message.Message):
    __slots__ = ("subscription_id", "datasets", "filter", "fields", "operations", "include_before", "ordered", "cursor", "lease_count", "outstanding_count", "create_time", "update_time", "shapes")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OUTSTANDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    datasets: _containers.RepeatedScalarFieldContainer[str]
    filter: str
    fields: str
    operations: _containers.RepeatedScalarFieldContainer[_changes_pb2.Operation]
    include_before: bool
    ordered: bool
    cursor: str
    lease_count: int
    outstanding_count: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, subscription_id: _Optional[str] = ..., datasets: _Optional[_Iterable[str]] = ..., filter: _Optional[str] = ..., fields: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[_changes_pb2.Operation, str]]] = ..., include_before: _Optional[bool] = ..., ordered: _Optional[bool] = ..., cursor: _Optional[str] = ..., lease_count: _Optional[int] = ..., outstanding_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "cursor", "expire_time", "change_count", "attempt")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    cursor: str
    expire_time: _timestamp_pb2.Timestamp
    change_count: int
    attempt: int
    def __init__(self, lease_id: _Optional[str] = ..., cursor: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., change_count: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class CreateSubscriptionRequest(_message.Message):
    __slots__ = ("subscription", "start")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    subscription: Subscription
    start: str
    def __init__(self, subscription: _Optional[_Union[Subscription, _Mapping]] = ..., start: _Optional[str] = ...) -> None: ...

class GetSubscriptionRequest(_message.Message):
    __slots__ = ("subscription_id",)
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    def __init__(self, subscription_id: _Optional[str] = ...) -> None: ...

class ListSubscriptionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSubscriptionsResponse(_message.Message):
    __slots__ = ("subscriptions", "next_page_token")
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    subscriptions: _containers.RepeatedCompositeFieldContainer[Subscription]
    next_page_token: str
    def __init__(self, subscriptions: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteSubscriptionRequest(_message.Message):
    __slots__ = ("subscription_id",)
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    def __init__(self, subscription_id: _Optional[str] = ...) -> None: ...

class ResetSubscriptionRequest(_message.Message):
    __slots__ = ("subscription_id", "start")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    start: str
    def __init__(self, subscription_id: _Optional[str] = ..., start: _Optional[str] = ...) -> None: ...

class PullChangesRequest(_message.Message):
    __slots__ = ("subscription_id", "max_changes", "ack_seconds", "wait")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANGES_FIELD_NUMBER: _ClassVar[int]
    ACK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    max_changes: int
    ack_seconds: int
    wait: _duration_pb2.Duration
    def __init__(self, subscription_id: _Optional[str] = ..., max_changes: _Optional[int] = ..., ack_seconds: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class PullChangesResponse(_message.Message):
    __slots__ = ("changes", "lease", "view", "shapes")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[_changes_pb2.Change]
    lease: Lease
    view: str
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changes: _Optional[_Iterable[_Union[_changes_pb2.Change, _Mapping]]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., view: _Optional[str] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class AcknowledgeChangesRequest(_message.Message):
    __slots__ = ("subscription_id", "lease_id", "cursor")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    lease_id: str
    cursor: str
    def __init__(self, subscription_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class AcknowledgeChangesResponse(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    def __init__(self, cursor: _Optional[str] = ...) -> None: ...

class ExtendLeaseRequest(_message.Message):
    __slots__ = ("subscription_id", "lease_id", "ack_seconds")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    ACK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    lease_id: str
    ack_seconds: int
    def __init__(self, subscription_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., ack_seconds: _Optional[int] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("subscription_id", "lease_id")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    lease_id: str
    def __init__(self, subscription_id: _Optional[str] = ..., lease_id: _Optional[str] = ...) -> None: ...

class WatchSubscriptionRequest(_message.Message):
    __slots__ = ("subscription_id", "max_outstanding", "max_changes", "ack_seconds", "heartbeat_seconds")
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANGES_FIELD_NUMBER: _ClassVar[int]
    ACK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    subscription_id: str
    max_outstanding: int
    max_changes: int
    ack_seconds: int
    heartbeat_seconds: int
    def __init__(self, subscription_id: _Optional[str] = ..., max_outstanding: _Optional[int] = ..., max_changes: _Optional[int] = ..., ack_seconds: _Optional[int] = ..., heartbeat_seconds: _Optional[int] = ...) -> None: ...

class WatchSubscriptionResponse(_message.Message):
    __slots__ = ("changes", "lease", "heartbeat", "begin", "end")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[_changes_pb2.Change]
    lease: Lease
    heartbeat: _changes_pb2.Heartbeat
    begin: _changes_pb2.StreamBegin
    end: _changes_pb2.StreamEnd
    def __init__(self, changes: _Optional[_Iterable[_Union[_changes_pb2.Change, _Mapping]]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., heartbeat: _Optional[_Union[_changes_pb2.Heartbeat, _Mapping]] = ..., begin: _Optional[_Union[_changes_pb2.StreamBegin, _Mapping]] = ..., end: _Optional[_Union[_changes_pb2.StreamEnd, _Mapping]] = ...) -> None: ...
