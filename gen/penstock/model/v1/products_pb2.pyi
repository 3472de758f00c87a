import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Product(_message.Message):
    __slots__ = ("product_id", "name", "description", "category", "supplier", "package", "unit_price", "currency_code", "units_in_stock", "units_on_order", "reorder_level", "discontinued", "tags", "weight_kg", "attributes", "source", "source_id", "create_time", "update_time", "etag")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SUPPLIER_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    UNIT_PRICE_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_CODE_FIELD_NUMBER: _ClassVar[int]
    UNITS_IN_STOCK_FIELD_NUMBER: _ClassVar[int]
    UNITS_ON_ORDER_FIELD_NUMBER: _ClassVar[int]
    REORDER_LEVEL_FIELD_NUMBER: _ClassVar[int]
    DISCONTINUED_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_KG_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    product_id: str
    name: str
    description: str
    category: str
    supplier: str
    package: str
    unit_price: str
    currency_code: str
    units_in_stock: int
    units_on_order: int
    reorder_level: int
    discontinued: bool
    tags: _containers.RepeatedScalarFieldContainer[str]
    weight_kg: float
    attributes: _containers.ScalarMap[str, str]
    source: str
    source_id: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, product_id: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., category: _Optional[str] = ..., supplier: _Optional[str] = ..., package: _Optional[str] = ..., unit_price: _Optional[str] = ..., currency_code: _Optional[str] = ..., units_in_stock: _Optional[int] = ..., units_on_order: _Optional[int] = ..., reorder_level: _Optional[int] = ..., discontinued: _Optional[bool] = ..., tags: _Optional[_Iterable[str]] = ..., weight_kg: _Optional[float] = ..., attributes: _Optional[_Mapping[str, str]] = ..., source: _Optional[str] = ..., source_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...
