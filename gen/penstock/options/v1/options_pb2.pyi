from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FieldClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIELD_CLASS_UNSPECIFIED: _ClassVar[FieldClass]
    PUBLIC: _ClassVar[FieldClass]
    INTERNAL: _ClassVar[FieldClass]
    PII: _ClassVar[FieldClass]
    SENSITIVE: _ClassVar[FieldClass]
FIELD_CLASS_UNSPECIFIED: FieldClass
PUBLIC: FieldClass
INTERNAL: FieldClass
PII: FieldClass
SENSITIVE: FieldClass
DATASET_FIELD_NUMBER: _ClassVar[int]
dataset: _descriptor.FieldDescriptor
FIELD_FIELD_NUMBER: _ClassVar[int]
field: _descriptor.FieldDescriptor
LABEL_FIELD_NUMBER: _ClassVar[int]
label: _descriptor.FieldDescriptor

class DatasetOptions(_message.Message):
    __slots__ = ("title",)
    TITLE_FIELD_NUMBER: _ClassVar[int]
    title: str
    def __init__(self, title: _Optional[str] = ...) -> None: ...

class FieldOptions(_message.Message):
    __slots__ = ("key", "output_only", "decimal", "date", "reference", "indexed", "unique")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_ONLY_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_FIELD_NUMBER: _ClassVar[int]
    key: bool
    output_only: bool
    decimal: Decimal
    date: bool
    reference: Reference
    indexed: bool
    unique: bool
    def __init__(self, key: _Optional[bool] = ..., output_only: _Optional[bool] = ..., decimal: _Optional[_Union[Decimal, _Mapping]] = ..., date: _Optional[bool] = ..., reference: _Optional[_Union[Reference, _Mapping]] = ..., indexed: _Optional[bool] = ..., unique: _Optional[bool] = ..., **kwargs) -> None: ...

class Decimal(_message.Message):
    __slots__ = ("precision", "scale")
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    precision: int
    scale: int
    def __init__(self, precision: _Optional[int] = ..., scale: _Optional[int] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    AS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    def __init__(self, dataset: _Optional[str] = ..., **kwargs) -> None: ...
