"""The plain reading of records says what JSON means, and notices what is shown wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.model.v1.customers_pb2 import Customer
from penstock.model.v1.interactions_pb2 import Interaction
from penstock.model.v1.orders_pb2 import Order
from plain_records import Unfit, blank, created, load, masked, merged, shown
from workshops import MODELS
from worlds import compiled

CUSTOMER: Any = Customer.DESCRIPTOR
ORDER: Any = Order.DESCRIPTOR
INTERACTION: Any = Interaction.DESCRIPTOR
SENT = """{"customerId": "c1", "name": "N", "kind": 1, "credit_limit": 5.50, "tags": ["a"],
    "billingAddress": {"city": "Riga"}, "birthDate": "2001-02-28", "marketingOptIn": true}"""
#: What the hub shows of it.
SHOWN: dict[str, Any] = {
    "customerId": "c1",
    "name": "N",
    "kind": "PERSON",
    "status": "STATUS_UNSPECIFIED",
    "email": None,
    "phone": None,
    "taxId": None,
    "billingAddress": {
        "line1": "",
        "line2": None,
        "city": "Riga",
        "region": None,
        "postalCode": None,
        "countryCode": "",
    },
    "currencyCode": "",
    "creditLimit": "5.50",
    "lifetimeValue": None,
    "marketingOptIn": True,
    "tags": ["a"],
    "notes": None,
    "birthDate": "2001-02-28",
    "source": "",
    "sourceId": "",
    "createTime": "2026-01-01T00:00:00.000000Z",
    "updateTime": "2026-01-01T00:00:00.000000Z",
    "etag": "7",
}


def read(record: dict[str, Any]) -> Any:
    return load(json.dumps(record))


def test_what_is_sent_is_what_is_shown() -> None:
    assert created(CUSTOMER, load(SENT)) == shown(CUSTOMER, read(SHOWN))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n"},
        {"kind": "COMPANY"},
        {"creditLimit": "5.51"},
        {"creditLimit": None},
        {"tags": []},
        {"marketingOptIn": False},
        {"birthDate": "2001-02-27"},
        {"billingAddress": None},
        {"billingAddress": SHOWN["billingAddress"] | {"city": ""}},
        {"email": ""},
    ],
)
def test_another_value_is_noticed(change: dict[str, Any]) -> None:
    assert created(CUSTOMER, load(SENT)) != shown(CUSTOMER, read(SHOWN | change))


@pytest.mark.parametrize(
    "record",
    [
        {name: value for name, value in SHOWN.items() if name != "email"},
        SHOWN | {"more": 1},
        dict(reversed(SHOWN.items())),
        SHOWN | {"creditLimit": 5.5},
        SHOWN | {"kind": "1"},
        SHOWN | {"name": None},
        SHOWN | {"tags": None},
        SHOWN | {"tags": [None]},
        SHOWN | {"marketingOptIn": "true"},
        SHOWN | {"birthDate": "2001-02-30"},
    ],
)
def test_another_form_is_noticed(record: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        shown(CUSTOMER, read(record))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (CUSTOMER, "{"),
        (CUSTOMER, '{"name": "a", "name": "b"}'),
        (CUSTOMER, '{"name": NaN}'),
        (CUSTOMER, '{"nmae": "a"}'),
        (CUSTOMER, '{"taxId": "a", "tax_id": "a"}'),
        (CUSTOMER, '{"name": 7}'),
        (CUSTOMER, '{"kind": "PERSN"}'),
        (CUSTOMER, '{"creditLimit": "1.00001"}'),
        (CUSTOMER, '{"creditLimit": "100000000000000"}'),
        (CUSTOMER, '{"birthDate": "2001-02-29"}'),
        (CUSTOMER, '{"tags": [null]}'),
        (CUSTOMER, '{"billingAddress": []}'),
        (INTERACTION, '{"occurTime": "2001-02-28T12:00:60Z"}'),
        (INTERACTION, '{"occurTime": "2001-02-28T12:00:00.1234567Z"}'),
        (INTERACTION, '{"durationSeconds": 1.5}'),
        (INTERACTION, '{"durationSeconds": 2147483648}'),
        (INTERACTION, '{"sentiment": 9007199254740993}'),
        (INTERACTION, '{"sentiment": 1e-400}'),
        (INTERACTION, '{"sentiment": 1e400}'),
    ],
)
def test_what_has_no_exact_meaning_is_refused(message: Any, text: str) -> None:
    with pytest.raises(Unfit):
        created(message, load(text))


def test_times_are_moments() -> None:
    one, other = (
        created(INTERACTION, load(json.dumps({"occurTime": text})))
        for text in ("2001-03-01T00:30:00.5+02:00", "2001-02-28T22:30:00.500000000Z")
    )
    assert one == other


def test_a_patch_merges_and_a_mask_replaces() -> None:
    before = created(CUSTOMER, load(SENT))
    after = merged(CUSTOMER, before, load('{"billingAddress": {"line1": "l"}, "tags": null}'))
    assert (after["billing_address"]["city"], after["billing_address"]["line1"]) == ("Riga", "l")
    assert (after["tags"], after["name"]) == ([], "N")
    body = load('{"billingAddress": {"line1": "l"}, "name": "ignored"}')
    after = masked(CUSTOMER, before, body, ["billing_address", "kind"])
    assert (after["billing_address"]["city"], after["billing_address"]["line1"]) == ("", "l")
    assert (after["kind"], after["name"], after["customer_id"]) == (0, "N", "c1")
    gone = masked(CUSTOMER, before, load("{}"), ["billing_address.city"])
    assert gone["billing_address"]["city"] == ""


def test_elements_have_their_defaults() -> None:
    text = '{"lines": [{"quantity": 2, "unitPrice": "1.10"}, {}]}'
    first, second = merged(ORDER, blank(ORDER), load(text))["lines"]
    assert (first["quantity"], str(first["unit_price"]), "discount" in first) == (2, "1.10", False)
    assert (second["quantity"], second["product_id"]) == (0, "")


def test_maps_merge_if_they_are_to(tmp_path: Path) -> None:
    catalog = compiled(tmp_path, (MODELS / "films.proto").read_text(), "films")
    films: Any = catalog["films"].message_type
    first = merged(films, blank(films), load('{"extras": {"a": {"title": "A", "kept": true}}}'))
    change = load('{"extras": {"a": {"kept": null}, "b": {"frames": 3}}, "counters": {"1": 2}}')
    both = merged(films, first, change, maps=True)["extras"]
    assert (both["a"]["title"], both["a"]["kept"], both["b"]["frames"]) == ("A", False, 3)
    one = merged(films, first, change)["extras"]
    assert one["a"]["title"] == ""
    gone = merged(films, first, load('{"extras": {"a": null}}'), maps=True)["extras"]
    assert gone == {}
