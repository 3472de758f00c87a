import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Interaction(_message.Message):
    __slots__ = ("interaction_id", "customer_id", "contact_id", "channel", "occur_time", "subject", "body", "duration_seconds", "sentiment", "source", "source_id", "create_time", "update_time", "etag")
    class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANNEL_UNSPECIFIED: _ClassVar[Interaction.Channel]
        EMAIL: _ClassVar[Interaction.Channel]
        PHONE: _ClassVar[Interaction.Channel]
        MEETING: _ClassVar[Interaction.Channel]
        WEB: _ClassVar[Interaction.Channel]
    CHANNEL_UNSPECIFIED: Interaction.Channel
    EMAIL: Interaction.Channel
    PHONE: Interaction.Channel
    MEETING: Interaction.Channel
    WEB: Interaction.Channel
    INTERACTION_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTACT_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    OCCUR_TIME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SENTIMENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    interaction_id: str
    customer_id: str
    contact_id: str
    channel: Interaction.Channel
    occur_time: _timestamp_pb2.Timestamp
    subject: str
    body: str
    duration_seconds: int
    sentiment: float
    source: str
    source_id: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, interaction_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., contact_id: _Optional[str] = ..., channel: _Optional[_Union[Interaction.Channel, str]] = ..., occur_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., subject: _Optional[str] = ..., body: _Optional[str] = ..., duration_seconds: _Optional[int] = ..., sentiment: _Optional[float] = ..., source: _Optional[str] = ..., source_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...
