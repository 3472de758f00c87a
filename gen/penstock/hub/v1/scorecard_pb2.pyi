import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetScorecardRequest(_message.Message):
    __slots__ = ("days",)
    DAYS_FIELD_NUMBER: _ClassVar[int]
    days: int
    def __init__(self, days: _Optional[int] = ...) -> None: ...

class ExportScorecardRequest(_message.Message):
    __slots__ = ("days", "format")
    DAYS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    days: int
    format: str
    def __init__(self, days: _Optional[int] = ..., format: _Optional[str] = ...) -> None: ...

class Scorecard(_message.Message):
    __slots__ = ("metrics", "previous_start_time", "start_time", "end_time")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_START_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[ScorecardMetric]
    previous_start_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, metrics: _Optional[_Iterable[_Union[ScorecardMetric, _Mapping]]] = ..., previous_start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ScorecardMetric(_message.Message):
    __slots__ = ("metric", "title", "scenario", "unit", "target", "target_side", "value", "previous_value", "trend", "met", "samples", "absent_reason", "how", "source", "fresh_time")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_SIDE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VALUE_FIELD_NUMBER: _ClassVar[int]
    TREND_FIELD_NUMBER: _ClassVar[int]
    MET_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ABSENT_REASON_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FRESH_TIME_FIELD_NUMBER: _ClassVar[int]
    metric: str
    title: str
    scenario: str
    unit: str
    target: float
    target_side: str
    value: float
    previous_value: float
    trend: str
    met: bool
    samples: int
    absent_reason: str
    how: str
    source: str
    fresh_time: _timestamp_pb2.Timestamp
    def __init__(self, metric: _Optional[str] = ..., title: _Optional[str] = ..., scenario: _Optional[str] = ..., unit: _Optional[str] = ..., target: _Optional[float] = ..., target_side: _Optional[str] = ..., value: _Optional[float] = ..., previous_value: _Optional[float] = ..., trend: _Optional[str] = ..., met: _Optional[bool] = ..., samples: _Optional[int] = ..., absent_reason: _Optional[str] = ..., how: _Optional[str] = ..., source: _Optional[str] = ..., fresh_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
