from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from penstock.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ...) -> None: ...

class GetXmlSchemaRequest(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    def __init__(self, dataset: _Optional[str] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "title", "description", "actions", "fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    description: str
    actions: _containers.RepeatedScalarFieldContainer[str]
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., description: _Optional[str] = ..., actions: _Optional[_Iterable[str]] = ..., fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("path", "json_path", "type", "nullable", "output_only", "mask", "description", "members", "optional", "values", "required", "min_length")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[Field.Type]
        STRING: _ClassVar[Field.Type]
        BOOL: _ClassVar[Field.Type]
        INT32: _ClassVar[Field.Type]
        INT64: _ClassVar[Field.Type]
        UINT32: _ClassVar[Field.Type]
        UINT64: _ClassVar[Field.Type]
        FLOAT: _ClassVar[Field.Type]
        DOUBLE: _ClassVar[Field.Type]
        BYTES: _ClassVar[Field.Type]
        ENUM: _ClassVar[Field.Type]
        DECIMAL: _ClassVar[Field.Type]
        DATE: _ClassVar[Field.Type]
        TIMESTAMP: _ClassVar[Field.Type]
        LIST: _ClassVar[Field.Type]
        MAP: _ClassVar[Field.Type]
        STRUCT: _ClassVar[Field.Type]
    TYPE_UNSPECIFIED: Field.Type
    STRING: Field.Type
    BOOL: Field.Type
    INT32: Field.Type
    INT64: Field.Type
    UINT32: Field.Type
    UINT64: Field.Type
    FLOAT: Field.Type
    DOUBLE: Field.Type
    BYTES: Field.Type
    ENUM: Field.Type
    DECIMAL: Field.Type
    DATE: Field.Type
    TIMESTAMP: Field.Type
    LIST: Field.Type
    MAP: Field.Type
    STRUCT: Field.Type
    class Mask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MASK_UNSPECIFIED: _ClassVar[Field.Mask]
        NULL: _ClassVar[Field.Mask]
        HASH: _ClassVar[Field.Mask]
        PARTIAL: _ClassVar[Field.Mask]
    MASK_UNSPECIFIED: Field.Mask
    NULL: Field.Mask
    HASH: Field.Mask
    PARTIAL: Field.Mask
    PATH_FIELD_NUMBER: _ClassVar[int]
    JSON_PATH_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    NULLABLE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_ONLY_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    MIN_LENGTH_FIELD_NUMBER: _ClassVar[int]
    path: str
    json_path: str
    type: Field.Type
    nullable: bool
    output_only: bool
    mask: Field.Mask
    description: str
    members: _containers.RepeatedCompositeFieldContainer[Field]
    optional: bool
    values: _containers.RepeatedScalarFieldContainer[str]
    required: bool
    min_length: int
    def __init__(self, path: _Optional[str] = ..., json_path: _Optional[str] = ..., type: _Optional[_Union[Field.Type, str]] = ..., nullable: _Optional[bool] = ..., output_only: _Optional[bool] = ..., mask: _Optional[_Union[Field.Mask, str]] = ..., description: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Field, _Mapping]]] = ..., optional: _Optional[bool] = ..., values: _Optional[_Iterable[str]] = ..., required: _Optional[bool] = ..., min_length: _Optional[int] = ..., **kwargs) -> None: ...
