from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlanLimits(_message.Message):
    __slots__ = ("rates", "concurrent", "quotas")
    RATES_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    rates: _containers.RepeatedCompositeFieldContainer[RateLimit]
    concurrent: ConcurrencyLimit
    quotas: _containers.RepeatedCompositeFieldContainer[Quota]
    def __init__(self, rates: _Optional[_Iterable[_Union[RateLimit, _Mapping]]] = ..., concurrent: _Optional[_Union[ConcurrencyLimit, _Mapping]] = ..., quotas: _Optional[_Iterable[_Union[Quota, _Mapping]]] = ...) -> None: ...

class RateLimit(_message.Message):
    __slots__ = ("per_second", "burst", "method", "dataset", "unlimited")
    PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    per_second: float
    burst: int
    method: str
    dataset: str
    unlimited: bool
    def __init__(self, per_second: _Optional[float] = ..., burst: _Optional[int] = ..., method: _Optional[str] = ..., dataset: _Optional[str] = ..., unlimited: _Optional[bool] = ...) -> None: ...

class ConcurrencyLimit(_message.Message):
    __slots__ = ("calls", "streams", "exports")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    EXPORTS_FIELD_NUMBER: _ClassVar[int]
    calls: int
    streams: int
    exports: int
    def __init__(self, calls: _Optional[int] = ..., streams: _Optional[int] = ..., exports: _Optional[int] = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ("what", "per", "limit", "soft", "method", "dataset", "unlimited")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    what: str
    per: str
    limit: int
    soft: bool
    method: str
    dataset: str
    unlimited: bool
    def __init__(self, what: _Optional[str] = ..., per: _Optional[str] = ..., limit: _Optional[int] = ..., soft: _Optional[bool] = ..., method: _Optional[str] = ..., dataset: _Optional[str] = ..., unlimited: _Optional[bool] = ...) -> None: ...
