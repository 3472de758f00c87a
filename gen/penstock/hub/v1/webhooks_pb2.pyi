import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Webhook(_message.Message):
    __slots__ = ("webhook_id", "consumer_id", "title", "kind", "url", "selections", "options", "headers", "state", "reason", "failing_time", "secrets", "problems", "replay", "scopes", "create_time", "update_time", "expire_time", "secret")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Webhook.Kind]
        HTTP: _ClassVar[Webhook.Kind]
        LISTEN: _ClassVar[Webhook.Kind]
    KIND_UNSPECIFIED: Webhook.Kind
    HTTP: Webhook.Kind
    LISTEN: Webhook.Kind
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Webhook.State]
        ACTIVE: _ClassVar[Webhook.State]
        PAUSED: _ClassVar[Webhook.State]
        DISABLED: _ClassVar[Webhook.State]
    STATE_UNSPECIFIED: Webhook.State
    ACTIVE: Webhook.State
    PAUSED: Webhook.State
    DISABLED: Webhook.State
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ProblemsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    SELECTIONS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FAILING_TIME_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    consumer_id: str
    title: str
    kind: Webhook.Kind
    url: str
    selections: _containers.RepeatedCompositeFieldContainer[Selection]
    options: WebhookOptions
    headers: _containers.ScalarMap[str, str]
    state: Webhook.State
    reason: str
    failing_time: _timestamp_pb2.Timestamp
    secrets: _containers.RepeatedCompositeFieldContainer[WebhookSecret]
    problems: _containers.ScalarMap[str, str]
    replay: Replay
    scopes: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    secret: str
    def __init__(self, webhook_id: _Optional[str] = ..., consumer_id: _Optional[str] = ..., title: _Optional[str] = ..., kind: _Optional[_Union[Webhook.Kind, str]] = ..., url: _Optional[str] = ..., selections: _Optional[_Iterable[_Union[Selection, _Mapping]]] = ..., options: _Optional[_Union[WebhookOptions, _Mapping]] = ..., headers: _Optional[_Mapping[str, str]] = ..., state: _Optional[_Union[Webhook.State, str]] = ..., reason: _Optional[str] = ..., failing_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., secrets: _Optional[_Iterable[_Union[WebhookSecret, _Mapping]]] = ..., problems: _Optional[_Mapping[str, str]] = ..., replay: _Optional[_Union[Replay, _Mapping]] = ..., scopes: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("dataset", "operations", "filter", "fields", "shape")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    operations: _containers.RepeatedScalarFieldContainer[str]
    filter: str
    fields: str
    shape: str
    def __init__(self, dataset: _Optional[str] = ..., operations: _Optional[_Iterable[str]] = ..., filter: _Optional[str] = ..., fields: _Optional[str] = ..., shape: _Optional[str] = ...) -> None: ...

class WebhookOptions(_message.Message):
    __slots__ = ("envelope", "body", "thin", "ordering", "batch_size", "concurrency", "rate", "retry_seconds", "notices", "signature")
    class Envelope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENVELOPE_UNSPECIFIED: _ClassVar[WebhookOptions.Envelope]
        STANDARD: _ClassVar[WebhookOptions.Envelope]
        CLOUDEVENTS_STRUCTURED: _ClassVar[WebhookOptions.Envelope]
        CLOUDEVENTS_BINARY: _ClassVar[WebhookOptions.Envelope]
    ENVELOPE_UNSPECIFIED: WebhookOptions.Envelope
    STANDARD: WebhookOptions.Envelope
    CLOUDEVENTS_STRUCTURED: WebhookOptions.Envelope
    CLOUDEVENTS_BINARY: WebhookOptions.Envelope
    class Body(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BODY_UNSPECIFIED: _ClassVar[WebhookOptions.Body]
        JSON: _ClassVar[WebhookOptions.Body]
        XML: _ClassVar[WebhookOptions.Body]
    BODY_UNSPECIFIED: WebhookOptions.Body
    JSON: WebhookOptions.Body
    XML: WebhookOptions.Body
    class Ordering(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ORDERING_UNSPECIFIED: _ClassVar[WebhookOptions.Ordering]
        NONE: _ClassVar[WebhookOptions.Ordering]
        KEY: _ClassVar[WebhookOptions.Ordering]
    ORDERING_UNSPECIFIED: WebhookOptions.Ordering
    NONE: WebhookOptions.Ordering
    KEY: WebhookOptions.Ordering
    class Signature(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SIGNATURE_UNSPECIFIED: _ClassVar[WebhookOptions.Signature]
        HMAC_SHA256: _ClassVar[WebhookOptions.Signature]
        ED25519: _ClassVar[WebhookOptions.Signature]
    SIGNATURE_UNSPECIFIED: WebhookOptions.Signature
    HMAC_SHA256: WebhookOptions.Signature
    ED25519: WebhookOptions.Signature
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    THIN_FIELD_NUMBER: _ClassVar[int]
    ORDERING_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    RETRY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    envelope: WebhookOptions.Envelope
    body: WebhookOptions.Body
    thin: bool
    ordering: WebhookOptions.Ordering
    batch_size: int
    concurrency: int
    rate: int
    retry_seconds: _containers.RepeatedScalarFieldContainer[int]
    notices: bool
    signature: WebhookOptions.Signature
    def __init__(self, envelope: _Optional[_Union[WebhookOptions.Envelope, str]] = ..., body: _Optional[_Union[WebhookOptions.Body, str]] = ..., thin: _Optional[bool] = ..., ordering: _Optional[_Union[WebhookOptions.Ordering, str]] = ..., batch_size: _Optional[int] = ..., concurrency: _Optional[int] = ..., rate: _Optional[int] = ..., retry_seconds: _Optional[_Iterable[int]] = ..., notices: _Optional[bool] = ..., signature: _Optional[_Union[WebhookOptions.Signature, str]] = ...) -> None: ...

class WebhookSecret(_message.Message):
    __slots__ = ("secret_id", "signature", "public_key", "create_time", "expire_time")
    SECRET_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    secret_id: str
    signature: WebhookOptions.Signature
    public_key: str
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, secret_id: _Optional[str] = ..., signature: _Optional[_Union[WebhookOptions.Signature, str]] = ..., public_key: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class IssuedSecret(_message.Message):
    __slots__ = ("webhook", "secret")
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    webhook: Webhook
    secret: str
    def __init__(self, webhook: _Optional[_Union[Webhook, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class Replay(_message.Message):
    __slots__ = ("cursor", "end_cursor")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    END_CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    end_cursor: str
    def __init__(self, cursor: _Optional[str] = ..., end_cursor: _Optional[str] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("delivery_id", "webhook_id", "cause", "event_type", "event_count", "dataset", "key", "state", "reason", "attempt_count", "event_time", "create_time", "next_time", "finish_time", "attempts", "body")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Delivery.State]
        PENDING: _ClassVar[Delivery.State]
        SENDING: _ClassVar[Delivery.State]
        PARKED: _ClassVar[Delivery.State]
        DELIVERED: _ClassVar[Delivery.State]
        DEAD: _ClassVar[Delivery.State]
    STATE_UNSPECIFIED: Delivery.State
    PENDING: Delivery.State
    SENDING: Delivery.State
    PARKED: Delivery.State
    DELIVERED: Delivery.State
    DEAD: Delivery.State
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    webhook_id: str
    cause: str
    event_type: str
    event_count: int
    dataset: str
    key: str
    state: Delivery.State
    reason: str
    attempt_count: int
    event_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    next_time: _timestamp_pb2.Timestamp
    finish_time: _timestamp_pb2.Timestamp
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    body: bytes
    def __init__(self, delivery_id: _Optional[str] = ..., webhook_id: _Optional[str] = ..., cause: _Optional[str] = ..., event_type: _Optional[str] = ..., event_count: _Optional[int] = ..., dataset: _Optional[str] = ..., key: _Optional[str] = ..., state: _Optional[_Union[Delivery.State, str]] = ..., reason: _Optional[str] = ..., attempt_count: _Optional[int] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., body: _Optional[bytes] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "start_time", "latency", "delivered", "reason", "address", "request_head", "body_bytes", "status", "response_head", "response_body", "next_time")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_HEAD_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_HEAD_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BODY_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    start_time: _timestamp_pb2.Timestamp
    latency: _duration_pb2.Duration
    delivered: bool
    reason: str
    address: str
    request_head: str
    body_bytes: int
    status: int
    response_head: str
    response_body: bytes
    next_time: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., delivered: _Optional[bool] = ..., reason: _Optional[str] = ..., address: _Optional[str] = ..., request_head: _Optional[str] = ..., body_bytes: _Optional[int] = ..., status: _Optional[int] = ..., response_head: _Optional[str] = ..., response_body: _Optional[bytes] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("type", "webhook_id", "data", "create_time")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    type: str
    webhook_id: str
    data: _struct_pb2.Struct
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, type: _Optional[str] = ..., webhook_id: _Optional[str] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WebhookMetrics(_message.Message):
    __slots__ = ("attempt_count", "delivered_count", "retry_count", "success_rate", "latency_p50", "latency_p95", "latency_p99", "waiting_count", "oldest_age", "dead_count", "dead_reasons")
    class DeadReasonsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_FIELD_NUMBER: _ClassVar[int]
    DEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEAD_REASONS_FIELD_NUMBER: _ClassVar[int]
    attempt_count: int
    delivered_count: int
    retry_count: int
    success_rate: float
    latency_p50: _duration_pb2.Duration
    latency_p95: _duration_pb2.Duration
    latency_p99: _duration_pb2.Duration
    waiting_count: int
    oldest_age: _duration_pb2.Duration
    dead_count: int
    dead_reasons: _containers.ScalarMap[str, int]
    def __init__(self, attempt_count: _Optional[int] = ..., delivered_count: _Optional[int] = ..., retry_count: _Optional[int] = ..., success_rate: _Optional[float] = ..., latency_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency_p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., waiting_count: _Optional[int] = ..., oldest_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., dead_count: _Optional[int] = ..., dead_reasons: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ListWebhooksRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "everybody")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    everybody: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., everybody: _Optional[bool] = ...) -> None: ...

class ListWebhooksResponse(_message.Message):
    __slots__ = ("webhooks", "next_page_token")
    WEBHOOKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    webhooks: _containers.RepeatedCompositeFieldContainer[Webhook]
    next_page_token: str
    def __init__(self, webhooks: _Optional[_Iterable[_Union[Webhook, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetWebhookRequest(_message.Message):
    __slots__ = ("webhook_id",)
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    def __init__(self, webhook_id: _Optional[str] = ...) -> None: ...

class CreateWebhookRequest(_message.Message):
    __slots__ = ("webhook",)
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    webhook: Webhook
    def __init__(self, webhook: _Optional[_Union[Webhook, _Mapping]] = ...) -> None: ...

class UpdateWebhookRequest(_message.Message):
    __slots__ = ("webhook", "update_mask")
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    webhook: Webhook
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, webhook: _Optional[_Union[Webhook, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class DeleteWebhookRequest(_message.Message):
    __slots__ = ("webhook_id",)
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    def __init__(self, webhook_id: _Optional[str] = ...) -> None: ...

class TestWebhookRequest(_message.Message):
    __slots__ = ("webhook_id",)
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    def __init__(self, webhook_id: _Optional[str] = ...) -> None: ...

class PauseWebhookRequest(_message.Message):
    __slots__ = ("webhook_id",)
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    def __init__(self, webhook_id: _Optional[str] = ...) -> None: ...

class ResumeWebhookRequest(_message.Message):
    __slots__ = ("webhook_id",)
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    def __init__(self, webhook_id: _Optional[str] = ...) -> None: ...

class RotateSecretRequest(_message.Message):
    __slots__ = ("webhook_id", "overlap", "signature")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    overlap: _duration_pb2.Duration
    signature: WebhookOptions.Signature
    def __init__(self, webhook_id: _Optional[str] = ..., overlap: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., signature: _Optional[_Union[WebhookOptions.Signature, str]] = ...) -> None: ...

class ListDeliveriesRequest(_message.Message):
    __slots__ = ("webhook_id", "state", "reason", "event_type", "key", "start_time", "end_time", "page_size", "page_token")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    state: Delivery.State
    reason: str
    event_type: str
    key: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, webhook_id: _Optional[str] = ..., state: _Optional[_Union[Delivery.State, str]] = ..., reason: _Optional[str] = ..., event_type: _Optional[str] = ..., key: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeliveriesResponse(_message.Message):
    __slots__ = ("deliveries", "next_page_token")
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    next_page_token: str
    def __init__(self, deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetDeliveryRequest(_message.Message):
    __slots__ = ("webhook_id", "delivery_id")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    delivery_id: str
    def __init__(self, webhook_id: _Optional[str] = ..., delivery_id: _Optional[str] = ...) -> None: ...

class ResendDeliveryRequest(_message.Message):
    __slots__ = ("webhook_id", "delivery_id")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    delivery_id: str
    def __init__(self, webhook_id: _Optional[str] = ..., delivery_id: _Optional[str] = ...) -> None: ...

class RecoverDeliveriesRequest(_message.Message):
    __slots__ = ("webhook_id", "start_time", "end_time")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, webhook_id: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RecoverDeliveriesResponse(_message.Message):
    __slots__ = ("delivery_count",)
    DELIVERY_COUNT_FIELD_NUMBER: _ClassVar[int]
    delivery_count: int
    def __init__(self, delivery_count: _Optional[int] = ...) -> None: ...

class ReplayChangesRequest(_message.Message):
    __slots__ = ("webhook_id", "cursor", "end_cursor")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    END_CURSOR_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    cursor: str
    end_cursor: str
    def __init__(self, webhook_id: _Optional[str] = ..., cursor: _Optional[str] = ..., end_cursor: _Optional[str] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("reason", "start_time", "end_time", "page_size", "page_token")
    REASON_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, reason: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNoticesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNoticesResponse(_message.Message):
    __slots__ = ("notices", "next_page_token")
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    notices: _containers.RepeatedCompositeFieldContainer[Notice]
    next_page_token: str
    def __init__(self, notices: _Optional[_Iterable[_Union[Notice, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetWebhookMetricsRequest(_message.Message):
    __slots__ = ("webhook_id", "start_time")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    start_time: _timestamp_pb2.Timestamp
    def __init__(self, webhook_id: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PullDeliveriesRequest(_message.Message):
    __slots__ = ("webhook_id", "max_deliveries", "wait")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    max_deliveries: int
    wait: _duration_pb2.Duration
    def __init__(self, webhook_id: _Optional[str] = ..., max_deliveries: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class PullDeliveriesResponse(_message.Message):
    __slots__ = ("deliveries",)
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[PulledDelivery]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[PulledDelivery, _Mapping]]] = ...) -> None: ...

class PulledDelivery(_message.Message):
    __slots__ = ("delivery_id", "event_type", "headers", "body")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    event_type: str
    headers: _containers.ScalarMap[str, str]
    body: bytes
    def __init__(self, delivery_id: _Optional[str] = ..., event_type: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., body: _Optional[bytes] = ...) -> None: ...

class AcknowledgeDeliveriesRequest(_message.Message):
    __slots__ = ("webhook_id", "outcomes")
    WEBHOOK_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    webhook_id: str
    outcomes: _containers.RepeatedCompositeFieldContainer[PullOutcome]
    def __init__(self, webhook_id: _Optional[str] = ..., outcomes: _Optional[_Iterable[_Union[PullOutcome, _Mapping]]] = ...) -> None: ...

class PullOutcome(_message.Message):
    __slots__ = ("delivery_id", "status", "latency", "response_head")
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_HEAD_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    status: int
    latency: _duration_pb2.Duration
    response_head: str
    def __init__(self, delivery_id: _Optional[str] = ..., status: _Optional[int] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., response_head: _Optional[str] = ...) -> None: ...
