import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetMonitoringRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMonitoringResponse(_message.Message):
    __slots__ = ("node", "read_time", "processes", "clients", "calls", "tasks", "lag", "webhooks", "database", "machine")
    NODE_FIELD_NUMBER: _ClassVar[int]
    READ_TIME_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    WEBHOOKS_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    node: str
    read_time: _timestamp_pb2.Timestamp
    processes: _containers.RepeatedCompositeFieldContainer[ProcessReading]
    clients: ClientReading
    calls: CallReading
    tasks: _containers.RepeatedCompositeFieldContainer[TaskReading]
    lag: LagReading
    webhooks: WebhookReading
    database: DatabaseReading
    machine: MachineReading
    def __init__(self, node: _Optional[str] = ..., read_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[ProcessReading, _Mapping]]] = ..., clients: _Optional[_Union[ClientReading, _Mapping]] = ..., calls: _Optional[_Union[CallReading, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[TaskReading, _Mapping]]] = ..., lag: _Optional[_Union[LagReading, _Mapping]] = ..., webhooks: _Optional[_Union[WebhookReading, _Mapping]] = ..., database: _Optional[_Union[DatabaseReading, _Mapping]] = ..., machine: _Optional[_Union[MachineReading, _Mapping]] = ...) -> None: ...

class ProcessReading(_message.Message):
    __slots__ = ("name", "answers", "memory_bytes", "failing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILING_FIELD_NUMBER: _ClassVar[int]
    name: str
    answers: bool
    memory_bytes: float
    failing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., answers: _Optional[bool] = ..., memory_bytes: _Optional[float] = ..., failing: _Optional[_Iterable[str]] = ...) -> None: ...

class ClientReading(_message.Message):
    __slots__ = ("answers", "refused", "connections", "requests", "workers_healthy", "workers")
    class AnswersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_HEALTHY_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.ScalarMap[str, float]
    refused: float
    connections: float
    requests: float
    workers_healthy: float
    workers: float
    def __init__(self, answers: _Optional[_Mapping[str, float]] = ..., refused: _Optional[float] = ..., connections: _Optional[float] = ..., requests: _Optional[float] = ..., workers_healthy: _Optional[float] = ..., workers: _Optional[float] = ...) -> None: ...

class CallReading(_message.Message):
    __slots__ = ("outcomes", "open", "streams", "latency", "feed_delay")
    class OutcomesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    FEED_DELAY_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.ScalarMap[str, float]
    open: float
    streams: float
    latency: _containers.RepeatedCompositeFieldContainer[TimeBucket]
    feed_delay: _containers.RepeatedCompositeFieldContainer[TimeBucket]
    def __init__(self, outcomes: _Optional[_Mapping[str, float]] = ..., open: _Optional[float] = ..., streams: _Optional[float] = ..., latency: _Optional[_Iterable[_Union[TimeBucket, _Mapping]]] = ..., feed_delay: _Optional[_Iterable[_Union[TimeBucket, _Mapping]]] = ...) -> None: ...

class TimeBucket(_message.Message):
    __slots__ = ("seconds", "count")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    count: float
    def __init__(self, seconds: _Optional[float] = ..., count: _Optional[float] = ...) -> None: ...

class TaskReading(_message.Message):
    __slots__ = ("name", "held", "failing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FAILING_FIELD_NUMBER: _ClassVar[int]
    name: str
    held: bool
    failing: bool
    def __init__(self, name: _Optional[str] = ..., held: _Optional[bool] = ..., failing: _Optional[bool] = ...) -> None: ...

class LagReading(_message.Message):
    __slots__ = ("sequencer_seconds", "sealer_seconds", "checkpoint_seconds", "usage_entries")
    SEQUENCER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SEALER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    USAGE_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    sequencer_seconds: float
    sealer_seconds: float
    checkpoint_seconds: float
    usage_entries: float
    def __init__(self, sequencer_seconds: _Optional[float] = ..., sealer_seconds: _Optional[float] = ..., checkpoint_seconds: _Optional[float] = ..., usage_entries: _Optional[float] = ...) -> None: ...

class WebhookReading(_message.Message):
    __slots__ = ("states", "attempts", "waiting", "lag_seconds")
    class StatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class AttemptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STATES_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    LAG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    states: _containers.ScalarMap[str, float]
    attempts: _containers.ScalarMap[str, float]
    waiting: float
    lag_seconds: float
    def __init__(self, states: _Optional[_Mapping[str, float]] = ..., attempts: _Optional[_Mapping[str, float]] = ..., waiting: _Optional[float] = ..., lag_seconds: _Optional[float] = ...) -> None: ...

class DatabaseReading(_message.Message):
    __slots__ = ("answers", "size_bytes", "connections", "connections_usable", "oldest_transaction_seconds", "waiting_locks", "dead_rows_ratio", "standbys", "nodes")
    class StandbysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_USABLE_FIELD_NUMBER: _ClassVar[int]
    OLDEST_TRANSACTION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITING_LOCKS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_RATIO_FIELD_NUMBER: _ClassVar[int]
    STANDBYS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    answers: bool
    size_bytes: float
    connections: float
    connections_usable: float
    oldest_transaction_seconds: float
    waiting_locks: float
    dead_rows_ratio: float
    standbys: _containers.ScalarMap[str, float]
    nodes: float
    def __init__(self, answers: _Optional[bool] = ..., size_bytes: _Optional[float] = ..., connections: _Optional[float] = ..., connections_usable: _Optional[float] = ..., oldest_transaction_seconds: _Optional[float] = ..., waiting_locks: _Optional[float] = ..., dead_rows_ratio: _Optional[float] = ..., standbys: _Optional[_Mapping[str, float]] = ..., nodes: _Optional[float] = ...) -> None: ...

class MachineReading(_message.Message):
    __slots__ = ("disk_free_bytes", "disk_reserve_bytes", "certificate_seconds", "key_age_seconds", "key_max_age_seconds")
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_RESERVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEY_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEY_MAX_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    disk_free_bytes: float
    disk_reserve_bytes: float
    certificate_seconds: float
    key_age_seconds: float
    key_max_age_seconds: float
    def __init__(self, disk_free_bytes: _Optional[float] = ..., disk_reserve_bytes: _Optional[float] = ..., certificate_seconds: _Optional[float] = ..., key_age_seconds: _Optional[float] = ..., key_max_age_seconds: _Optional[float] = ...) -> None: ...
