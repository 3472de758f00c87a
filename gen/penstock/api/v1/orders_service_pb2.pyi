import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.hub.v1 import changes_pb2 as _changes_pb2
from penstock.hub.v1 import digests_pb2 as _digests_pb2
from penstock.hub.v1 import import_report_pb2 as _import_report_pb2
from penstock.hub.v1 import row_error_pb2 as _row_error_pb2
from penstock.hub.v1 import upload_complete_pb2 as _upload_complete_pb2
from penstock.model.v1 import orders_pb2 as _orders_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetOrderRequest(_message.Message):
    __slots__ = ("order_id", "fields")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    fields: str
    def __init__(self, order_id: _Optional[str] = ..., fields: _Optional[str] = ...) -> None: ...

class ListOrdersRequest(_message.Message):
    __slots__ = ("filter", "order_by", "fields", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: str
    order_by: str
    fields: str
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[str] = ..., order_by: _Optional[str] = ..., fields: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListOrdersResponse(_message.Message):
    __slots__ = ("orders", "next_page_token")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[_orders_pb2.Order]
    next_page_token: str
    def __init__(self, orders: _Optional[_Iterable[_Union[_orders_pb2.Order, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CreateOrderRequest(_message.Message):
    __slots__ = ("order", "request_id", "validate_only", "time_precision")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    TIME_PRECISION_FIELD_NUMBER: _ClassVar[int]
    order: _orders_pb2.Order
    request_id: str
    validate_only: bool
    time_precision: str
    def __init__(self, order: _Optional[_Union[_orders_pb2.Order, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., time_precision: _Optional[str] = ...) -> None: ...

class UpdateOrderRequest(_message.Message):
    __slots__ = ("order", "update_mask", "etag", "request_id", "validate_only", "allow_missing", "time_precision")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    TIME_PRECISION_FIELD_NUMBER: _ClassVar[int]
    order: _orders_pb2.Order
    update_mask: _field_mask_pb2.FieldMask
    etag: str
    request_id: str
    validate_only: bool
    allow_missing: bool
    time_precision: str
    def __init__(self, order: _Optional[_Union[_orders_pb2.Order, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., allow_missing: _Optional[bool] = ..., time_precision: _Optional[str] = ...) -> None: ...

class DeleteOrderRequest(_message.Message):
    __slots__ = ("order_id", "etag", "request_id", "validate_only", "allow_missing")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    etag: str
    request_id: str
    validate_only: bool
    allow_missing: bool
    def __init__(self, order_id: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class BatchUpsertOrdersRequest(_message.Message):
    __slots__ = ("orders", "request_id", "validate_only", "partial", "time_precision")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    TIME_PRECISION_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[_orders_pb2.Order]
    request_id: str
    validate_only: bool
    partial: bool
    time_precision: str
    def __init__(self, orders: _Optional[_Iterable[_Union[_orders_pb2.Order, _Mapping]]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., partial: _Optional[bool] = ..., time_precision: _Optional[str] = ...) -> None: ...

class BatchUpsertOrdersResponse(_message.Message):
    __slots__ = ("created_count", "updated_count", "unchanged_count", "refused_count", "row_errors")
    CREATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_ERRORS_FIELD_NUMBER: _ClassVar[int]
    created_count: int
    updated_count: int
    unchanged_count: int
    refused_count: int
    row_errors: _containers.RepeatedCompositeFieldContainer[_row_error_pb2.RowError]
    def __init__(self, created_count: _Optional[int] = ..., updated_count: _Optional[int] = ..., unchanged_count: _Optional[int] = ..., refused_count: _Optional[int] = ..., row_errors: _Optional[_Iterable[_Union[_row_error_pb2.RowError, _Mapping]]] = ...) -> None: ...

class ImportOrdersRequest(_message.Message):
    __slots__ = ("format", "file", "request_id", "validate_only", "partial", "compression", "complete", "delimiter", "time_zone", "ignore_unknown", "preview", "shape", "time_precision")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    DELIMITER_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    TIME_PRECISION_FIELD_NUMBER: _ClassVar[int]
    format: str
    file: _httpbody_pb2.HttpBody
    request_id: str
    validate_only: bool
    partial: bool
    compression: str
    complete: _upload_complete_pb2.UploadComplete
    delimiter: str
    time_zone: str
    ignore_unknown: bool
    preview: bool
    shape: str
    time_precision: str
    def __init__(self, format: _Optional[str] = ..., file: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., partial: _Optional[bool] = ..., compression: _Optional[str] = ..., complete: _Optional[_Union[_upload_complete_pb2.UploadComplete, _Mapping]] = ..., delimiter: _Optional[str] = ..., time_zone: _Optional[str] = ..., ignore_unknown: _Optional[bool] = ..., preview: _Optional[bool] = ..., shape: _Optional[str] = ..., time_precision: _Optional[str] = ...) -> None: ...

class ImportOrdersResponse(_message.Message):
    __slots__ = ("row_count", "created_count", "updated_count", "unchanged_count", "refused_count", "row_errors", "ignored_names", "ignored_value_count", "columns")
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_ERRORS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_NAMES_FIELD_NUMBER: _ClassVar[int]
    IGNORED_VALUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    row_count: int
    created_count: int
    updated_count: int
    unchanged_count: int
    refused_count: int
    row_errors: _containers.RepeatedCompositeFieldContainer[_row_error_pb2.RowError]
    ignored_names: _containers.RepeatedCompositeFieldContainer[_import_report_pb2.IgnoredName]
    ignored_value_count: int
    columns: _containers.RepeatedCompositeFieldContainer[_import_report_pb2.PreviewColumn]
    def __init__(self, row_count: _Optional[int] = ..., created_count: _Optional[int] = ..., updated_count: _Optional[int] = ..., unchanged_count: _Optional[int] = ..., refused_count: _Optional[int] = ..., row_errors: _Optional[_Iterable[_Union[_row_error_pb2.RowError, _Mapping]]] = ..., ignored_names: _Optional[_Iterable[_Union[_import_report_pb2.IgnoredName, _Mapping]]] = ..., ignored_value_count: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[_import_report_pb2.PreviewColumn, _Mapping]]] = ...) -> None: ...

class ExportOrdersRequest(_message.Message):
    __slots__ = ("filter", "order_by", "fields", "format", "page_size", "page_token", "spreadsheet_safe", "nested", "shape", "bom")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SPREADSHEET_SAFE_FIELD_NUMBER: _ClassVar[int]
    NESTED_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BOM_FIELD_NUMBER: _ClassVar[int]
    filter: str
    order_by: str
    fields: str
    format: str
    page_size: int
    page_token: str
    spreadsheet_safe: bool
    nested: str
    shape: str
    bom: bool
    def __init__(self, filter: _Optional[str] = ..., order_by: _Optional[str] = ..., fields: _Optional[str] = ..., format: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., spreadsheet_safe: _Optional[bool] = ..., nested: _Optional[str] = ..., shape: _Optional[str] = ..., bom: _Optional[bool] = ...) -> None: ...

class StreamExportOrdersRequest(_message.Message):
    __slots__ = ("filter", "order_by", "fields", "format", "limit", "compression", "spreadsheet_safe", "omit_receipt", "resume_receipt", "resume_offset", "nested", "shape", "receipt", "bom")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    SPREADSHEET_SAFE_FIELD_NUMBER: _ClassVar[int]
    OMIT_RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RESUME_RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RESUME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NESTED_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    BOM_FIELD_NUMBER: _ClassVar[int]
    filter: str
    order_by: str
    fields: str
    format: str
    limit: int
    compression: str
    spreadsheet_safe: bool
    omit_receipt: bool
    resume_receipt: str
    resume_offset: int
    nested: str
    shape: str
    receipt: str
    bom: bool
    def __init__(self, filter: _Optional[str] = ..., order_by: _Optional[str] = ..., fields: _Optional[str] = ..., format: _Optional[str] = ..., limit: _Optional[int] = ..., compression: _Optional[str] = ..., spreadsheet_safe: _Optional[bool] = ..., omit_receipt: _Optional[bool] = ..., resume_receipt: _Optional[str] = ..., resume_offset: _Optional[int] = ..., nested: _Optional[str] = ..., shape: _Optional[str] = ..., receipt: _Optional[str] = ..., bom: _Optional[bool] = ...) -> None: ...

class OrderChange(_message.Message):
    __slots__ = ("operation", "key", "before", "after", "changed_fields", "transaction_id", "commit_time", "sequence", "shaped", "shaped_before")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SHAPED_FIELD_NUMBER: _ClassVar[int]
    SHAPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    operation: _changes_pb2.Operation
    key: str
    before: _orders_pb2.Order
    after: _orders_pb2.Order
    changed_fields: _containers.RepeatedScalarFieldContainer[str]
    transaction_id: int
    commit_time: _timestamp_pb2.Timestamp
    sequence: int
    shaped: _struct_pb2.Struct
    shaped_before: _struct_pb2.Struct
    def __init__(self, operation: _Optional[_Union[_changes_pb2.Operation, str]] = ..., key: _Optional[str] = ..., before: _Optional[_Union[_orders_pb2.Order, _Mapping]] = ..., after: _Optional[_Union[_orders_pb2.Order, _Mapping]] = ..., changed_fields: _Optional[_Iterable[str]] = ..., transaction_id: _Optional[int] = ..., commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sequence: _Optional[int] = ..., shaped: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., shaped_before: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class WatchOrdersRequest(_message.Message):
    __slots__ = ("cursor", "snapshot", "filter", "fields", "operations", "batch_size", "include_before", "transaction_boundaries", "heartbeat_seconds", "shape")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_BOUNDARIES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    snapshot: bool
    filter: str
    fields: str
    operations: _containers.RepeatedScalarFieldContainer[_changes_pb2.Operation]
    batch_size: int
    include_before: bool
    transaction_boundaries: bool
    heartbeat_seconds: int
    shape: str
    def __init__(self, cursor: _Optional[str] = ..., snapshot: _Optional[bool] = ..., filter: _Optional[str] = ..., fields: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[_changes_pb2.Operation, str]]] = ..., batch_size: _Optional[int] = ..., include_before: _Optional[bool] = ..., transaction_boundaries: _Optional[bool] = ..., heartbeat_seconds: _Optional[int] = ..., shape: _Optional[str] = ...) -> None: ...

class WatchOrdersResponse(_message.Message):
    __slots__ = ("changes", "checkpoint", "heartbeat", "begin", "end", "transaction_end", "resume_cursor")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_END_FIELD_NUMBER: _ClassVar[int]
    RESUME_CURSOR_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[OrderChange]
    checkpoint: _changes_pb2.FeedCheckpoint
    heartbeat: _changes_pb2.Heartbeat
    begin: _changes_pb2.StreamBegin
    end: _changes_pb2.StreamEnd
    transaction_end: _changes_pb2.TransactionEnd
    resume_cursor: str
    def __init__(self, changes: _Optional[_Iterable[_Union[OrderChange, _Mapping]]] = ..., checkpoint: _Optional[_Union[_changes_pb2.FeedCheckpoint, _Mapping]] = ..., heartbeat: _Optional[_Union[_changes_pb2.Heartbeat, _Mapping]] = ..., begin: _Optional[_Union[_changes_pb2.StreamBegin, _Mapping]] = ..., end: _Optional[_Union[_changes_pb2.StreamEnd, _Mapping]] = ..., transaction_end: _Optional[_Union[_changes_pb2.TransactionEnd, _Mapping]] = ..., resume_cursor: _Optional[str] = ...) -> None: ...

class ListOrderChangesRequest(_message.Message):
    __slots__ = ("cursor", "wait", "filter", "fields", "operations", "page_size", "include_before", "shape")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    wait: _duration_pb2.Duration
    filter: str
    fields: str
    operations: _containers.RepeatedScalarFieldContainer[_changes_pb2.Operation]
    page_size: int
    include_before: bool
    shape: str
    def __init__(self, cursor: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., filter: _Optional[str] = ..., fields: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[_changes_pb2.Operation, str]]] = ..., page_size: _Optional[int] = ..., include_before: _Optional[bool] = ..., shape: _Optional[str] = ...) -> None: ...

class ListOrderChangesResponse(_message.Message):
    __slots__ = ("changes", "next_cursor", "view", "more", "shapes")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[OrderChange]
    next_cursor: str
    view: str
    more: bool
    shapes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changes: _Optional[_Iterable[_Union[OrderChange, _Mapping]]] = ..., next_cursor: _Optional[str] = ..., view: _Optional[str] = ..., more: _Optional[bool] = ..., shapes: _Optional[_Iterable[str]] = ...) -> None: ...

class DigestOrdersRequest(_message.Message):
    __slots__ = ("filter", "fields", "start_key", "end_key", "parts", "keys", "state")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    START_KEY_FIELD_NUMBER: _ClassVar[int]
    END_KEY_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    filter: str
    fields: str
    start_key: str
    end_key: str
    parts: int
    keys: bool
    state: str
    def __init__(self, filter: _Optional[str] = ..., fields: _Optional[str] = ..., start_key: _Optional[str] = ..., end_key: _Optional[str] = ..., parts: _Optional[int] = ..., keys: _Optional[bool] = ..., state: _Optional[str] = ...) -> None: ...

class DigestOrdersResponse(_message.Message):
    __slots__ = ("ranges", "row_count", "next_key", "cursor", "state", "view")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEXT_KEY_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[_digests_pb2.RangeDigest]
    row_count: int
    next_key: str
    cursor: str
    state: str
    view: str
    def __init__(self, ranges: _Optional[_Iterable[_Union[_digests_pb2.RangeDigest, _Mapping]]] = ..., row_count: _Optional[int] = ..., next_key: _Optional[str] = ..., cursor: _Optional[str] = ..., state: _Optional[str] = ..., view: _Optional[str] = ...) -> None: ...

class RepairOrdersRequest(_message.Message):
    __slots__ = ("state", "filter", "fields", "ranges")
    STATE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    state: str
    filter: str
    fields: str
    ranges: _containers.RepeatedCompositeFieldContainer[_digests_pb2.RangeDigest]
    def __init__(self, state: _Optional[str] = ..., filter: _Optional[str] = ..., fields: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[_digests_pb2.RangeDigest, _Mapping]]] = ...) -> None: ...

class RepairOrdersResponse(_message.Message):
    __slots__ = ("upserts", "deletes", "differing", "next_key", "complete", "row_count", "cursor", "state", "view")
    UPSERTS_FIELD_NUMBER: _ClassVar[int]
    DELETES_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    NEXT_KEY_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    upserts: _containers.RepeatedCompositeFieldContainer[_orders_pb2.Order]
    deletes: _containers.RepeatedScalarFieldContainer[str]
    differing: _containers.RepeatedCompositeFieldContainer[_digests_pb2.RangeDigest]
    next_key: str
    complete: bool
    row_count: int
    cursor: str
    state: str
    view: str
    def __init__(self, upserts: _Optional[_Iterable[_Union[_orders_pb2.Order, _Mapping]]] = ..., deletes: _Optional[_Iterable[str]] = ..., differing: _Optional[_Iterable[_Union[_digests_pb2.RangeDigest, _Mapping]]] = ..., next_key: _Optional[str] = ..., complete: _Optional[bool] = ..., row_count: _Optional[int] = ..., cursor: _Optional[str] = ..., state: _Optional[str] = ..., view: _Optional[str] = ...) -> None: ...
