"""U+0000 is found wherever a message can hold text."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from penstock.api.v1 import customers_service_pb2 as api
from penstockd.errors import ValueInvalid
from penstockd.rpc.texts import find_null, refuse_null


def test_nested_messages_elements_and_maps() -> None:
    batch = api.BatchUpsertCustomersRequest()
    for i in range(3):
        batch.customers.add(customer_id=f"c{i}", name="fine", tags=["a", "b"])
    assert find_null(batch) is None
    batch.customers[2].tags.append("x\0")
    assert find_null(batch) == "customers[2].tags[2]"
    batch.customers[1].billing_address.city = "\0"
    assert find_null(batch) == "customers[1].billing_address.city"


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"a": {"b": [1, "x\0"]}}, "fields['a'].struct_value.fields['b'].list_value.values[1]"),
        ({"k\0": 1}, "fields['k\\x00']"),
        ({"a": "\\u0000", "b": None}, None),
    ],
)
def test_structs(content: dict[str, Any], path: str | None) -> None:
    struct = Struct()
    struct.update(content)
    found = find_null(struct)
    assert found == path if path is None else found is not None and found.startswith(path)


def test_bytes_are_no_text() -> None:
    request = api.ImportCustomersRequest()
    request.file.data = b"a\0b"
    assert find_null(request) is None
    request.file.content_type = "text/\0"
    assert find_null(request) == "file.content_type"


async def test_a_large_message_is_looked_through_too() -> None:
    batch = api.BatchUpsertCustomersRequest()
    for i in range(5000):
        batch.customers.add(customer_id=f"c{i}", name="fine", tags=["\x01"])
    await refuse_null(batch)
    batch.customers[4999].name = "ab\0"
    with pytest.raises(ValueInvalid) as raised:
        await refuse_null(batch)
    (violation,) = raised.value.violations
    assert violation.field == "customers[4999].name"
    assert violation.description == "holds the forbidden character U+0000 at position 3"


async def test_the_record_of_a_request_goes_by_the_names_of_its_fields() -> None:
    request = api.CreateCustomerRequest()
    request.customer.name = "\0"
    with pytest.raises(ValueInvalid) as raised:
        await refuse_null(request, "customer.")
    assert raised.value.violations[0].field == "name"
