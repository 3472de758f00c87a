import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.hub.v1 import receipts_pb2 as _receipts_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    CREATED: _ClassVar[Operation]
    UPDATED: _ClassVar[Operation]
    DELETED: _ClassVar[Operation]
    ENTERED_VIEW: _ClassVar[Operation]
    LEFT_VIEW: _ClassVar[Operation]
    SNAPSHOT: _ClassVar[Operation]

class Reconcile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECONCILE_UNSPECIFIED: _ClassVar[Reconcile]
    RESUME: _ClassVar[Reconcile]
    REPAIR: _ClassVar[Reconcile]
    STOP: _ClassVar[Reconcile]
OPERATION_UNSPECIFIED: Operation
CREATED: Operation
UPDATED: Operation
DELETED: Operation
ENTERED_VIEW: Operation
LEFT_VIEW: Operation
SNAPSHOT: Operation
RECONCILE_UNSPECIFIED: Reconcile
RESUME: Reconcile
REPAIR: Reconcile
STOP: Reconcile

class FeedCheckpoint(_message.Message):
    __slots__ = ("cursor", "commit_time")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    commit_time: _timestamp_pb2.Timestamp
    def __init__(self, cursor: _Optional[str] = ..., commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("cursor", "time")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, cursor: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamBegin(_message.Message):
    __slots__ = ("cursor", "view", "policy_revision", "receipt_id", "shapes")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_ID_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    view: str
    policy_revision: int
    receipt_id: str
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cursor: _Optional[str] = ..., view: _Optional[str] = ..., policy_revision: _Optional[int] = ..., receipt_id: _Optional[str] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class TransactionEnd(_message.Message):
    __slots__ = ("transaction_id", "change_count")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    transaction_id: int
    change_count: int
    def __init__(self, transaction_id: _Optional[int] = ..., change_count: _Optional[int] = ...) -> None: ...

class StreamEnd(_message.Message):
    __slots__ = ("reason", "message", "cursor", "reconcile", "receipt")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    RECONCILE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    cursor: str
    reconcile: Reconcile
    receipt: _receipts_pb2.Receipt
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., cursor: _Optional[str] = ..., reconcile: _Optional[_Union[Reconcile, str]] = ..., receipt: _Optional[_Union[_receipts_pb2.Receipt, _Mapping]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("operation", "key", "before", "after", "changed_fields", "transaction_id", "commit_time", "sequence", "dataset", "shaped", "shaped_before")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SHAPED_FIELD_NUMBER: _ClassVar[int]
    SHAPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    operation: Operation
    key: str
    before: _any_pb2.Any
    after: _any_pb2.Any
    changed_fields: _containers.RepeatedScalarFieldContainer[str]
    transaction_id: int
    commit_time: _timestamp_pb2.Timestamp
    sequence: int
    dataset: str
    shaped: _struct_pb2.Struct
    shaped_before: _struct_pb2.Struct
    def __init__(self, operation: _Optional[_Union[Operation, str]] = ..., key: _Optional[str] = ..., before: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., after: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., changed_fields: _Optional[_Iterable[str]] = ..., transaction_id: _Optional[int] = ..., commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sequence: _Optional[int] = ..., dataset: _Optional[str] = ..., shaped: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., shaped_before: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class WatchChangesRequest(_message.Message):
    __slots__ = ("datasets", "cursor", "snapshot", "operations", "batch_size", "include_before", "transaction_boundaries", "heartbeat_seconds", "shapes")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_BOUNDARIES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedScalarFieldContainer[str]
    cursor: str
    snapshot: bool
    operations: _containers.RepeatedScalarFieldContainer[Operation]
    batch_size: int
    include_before: bool
    transaction_boundaries: bool
    heartbeat_seconds: int
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, datasets: _Optional[_Iterable[str]] = ..., cursor: _Optional[str] = ..., snapshot: _Optional[bool] = ..., operations: _Optional[_Iterable[_Union[Operation, str]]] = ..., batch_size: _Optional[int] = ..., include_before: _Optional[bool] = ..., transaction_boundaries: _Optional[bool] = ..., heartbeat_seconds: _Optional[int] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchChangesResponse(_message.Message):
    __slots__ = ("changes", "checkpoint", "heartbeat", "begin", "end", "transaction_end", "resume_cursor")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_END_FIELD_NUMBER: _ClassVar[int]
    RESUME_CURSOR_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    checkpoint: FeedCheckpoint
    heartbeat: Heartbeat
    begin: StreamBegin
    end: StreamEnd
    transaction_end: TransactionEnd
    resume_cursor: str
    def __init__(self, changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., checkpoint: _Optional[_Union[FeedCheckpoint, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., begin: _Optional[_Union[StreamBegin, _Mapping]] = ..., end: _Optional[_Union[StreamEnd, _Mapping]] = ..., transaction_end: _Optional[_Union[TransactionEnd, _Mapping]] = ..., resume_cursor: _Optional[str] = ...) -> None: ...

class ListChangesRequest(_message.Message):
    __slots__ = ("datasets", "cursor", "wait", "operations", "page_size", "include_before", "shapes")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedScalarFieldContainer[str]
    cursor: str
    wait: _duration_pb2.Duration
    operations: _containers.RepeatedScalarFieldContainer[Operation]
    page_size: int
    include_before: bool
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, datasets: _Optional[_Iterable[str]] = ..., cursor: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., operations: _Optional[_Iterable[_Union[Operation, str]]] = ..., page_size: _Optional[int] = ..., include_before: _Optional[bool] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListChangesResponse(_message.Message):
    __slots__ = ("changes", "next_cursor", "view", "more", "shapes")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    next_cursor: str
    view: str
    more: bool
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., next_cursor: _Optional[str] = ..., view: _Optional[str] = ..., more: _Optional[bool] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class GetChangeLogRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangeLog(_message.Message):
    __slots__ = ("oldest_cursor", "newest_cursor", "oldest_commit_time", "retention_hours")
    OLDEST_CURSOR_FIELD_NUMBER: _ClassVar[int]
    NEWEST_CURSOR_FIELD_NUMBER: _ClassVar[int]
    OLDEST_COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    RETENTION_HOURS_FIELD_NUMBER: _ClassVar[int]
    oldest_cursor: str
    newest_cursor: str
    oldest_commit_time: _timestamp_pb2.Timestamp
    retention_hours: int
    def __init__(self, oldest_cursor: _Optional[str] = ..., newest_cursor: _Optional[str] = ..., oldest_commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., retention_hours: _Optional[int] = ...) -> None: ...
