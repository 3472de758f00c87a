import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Order(_message.Message):
    __slots__ = ("order_id", "customer_id", "status", "order_date", "required_date", "shipped_date", "currency_code", "total", "freight", "shipping_address", "lines", "employee_id", "carrier", "source", "source_id", "create_time", "update_time", "etag")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[Order.Status]
        PLACED: _ClassVar[Order.Status]
        SHIPPED: _ClassVar[Order.Status]
        DELIVERED: _ClassVar[Order.Status]
        CANCELLED: _ClassVar[Order.Status]
    STATUS_UNSPECIFIED: Order.Status
    PLACED: Order.Status
    SHIPPED: Order.Status
    DELIVERED: Order.Status
    CANCELLED: Order.Status
    class Line(_message.Message):
        __slots__ = ("product_id", "quantity", "unit_price", "discount")
        PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
        QUANTITY_FIELD_NUMBER: _ClassVar[int]
        UNIT_PRICE_FIELD_NUMBER: _ClassVar[int]
        DISCOUNT_FIELD_NUMBER: _ClassVar[int]
        product_id: str
        quantity: int
        unit_price: str
        discount: str
        def __init__(self, product_id: _Optional[str] = ..., quantity: _Optional[int] = ..., unit_price: _Optional[str] = ..., discount: _Optional[str] = ...) -> None: ...
    class ShippingAddress(_message.Message):
        __slots__ = ("recipient", "line1", "city", "region", "postal_code", "country")
        RECIPIENT_FIELD_NUMBER: _ClassVar[int]
        LINE1_FIELD_NUMBER: _ClassVar[int]
        CITY_FIELD_NUMBER: _ClassVar[int]
        REGION_FIELD_NUMBER: _ClassVar[int]
        POSTAL_CODE_FIELD_NUMBER: _ClassVar[int]
        COUNTRY_FIELD_NUMBER: _ClassVar[int]
        recipient: str
        line1: str
        city: str
        region: str
        postal_code: str
        country: str
        def __init__(self, recipient: _Optional[str] = ..., line1: _Optional[str] = ..., city: _Optional[str] = ..., region: _Optional[str] = ..., postal_code: _Optional[str] = ..., country: _Optional[str] = ...) -> None: ...
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ORDER_DATE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_DATE_FIELD_NUMBER: _ClassVar[int]
    SHIPPED_DATE_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_CODE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FREIGHT_FIELD_NUMBER: _ClassVar[int]
    SHIPPING_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    EMPLOYEE_ID_FIELD_NUMBER: _ClassVar[int]
    CARRIER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    customer_id: str
    status: Order.Status
    order_date: str
    required_date: str
    shipped_date: str
    currency_code: str
    total: str
    freight: str
    shipping_address: Order.ShippingAddress
    lines: _containers.RepeatedCompositeFieldContainer[Order.Line]
    employee_id: str
    carrier: str
    source: str
    source_id: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, order_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., status: _Optional[_Union[Order.Status, str]] = ..., order_date: _Optional[str] = ..., required_date: _Optional[str] = ..., shipped_date: _Optional[str] = ..., currency_code: _Optional[str] = ..., total: _Optional[str] = ..., freight: _Optional[str] = ..., shipping_address: _Optional[_Union[Order.ShippingAddress, _Mapping]] = ..., lines: _Optional[_Iterable[_Union[Order.Line, _Mapping]]] = ..., employee_id: _Optional[str] = ..., carrier: _Optional[str] = ..., source: _Optional[str] = ..., source_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...
