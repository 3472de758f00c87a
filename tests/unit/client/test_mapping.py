from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness import PATIENCE
from penstock.client import Client, PenstockError
from penstock.client.mapping.errors import BadRow, BadRows, MappingError
from penstock.client.mapping.load import bind_sources, load_sources, unused_columns, write_ndjson
from penstock.client.mapping.plan import load_plan, parse_plan
from penstock.client.mapping.table import Dialect, open_table

Mapped = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def mapped(tmp_path: Path) -> Mapped:
    """Map the CSV text of customers by the fields of a plan and the rest of the plan."""

    def run(
        text: str, fields: str, more: str = "", dataset: str = "customers", head: str = ""
    ) -> list[dict[str, Any]]:
        (tmp_path / "in.csv").write_text(text, "utf-8", newline="")
        plan = parse_plan(
            f'{head}\n[[datasets]]\ndataset = "{dataset}"\nfile = "in.csv"\n'
            f"[datasets.fields]\n{fields}\n{more}",
            "map.toml",
        )
        (source,) = bind_sources(plan, tmp_path)
        return [json.loads(line) for line in write_ndjson(source)]

    return run


def rows(tmp_path: Path, text: str, dialect: Dialect | None = None) -> list[tuple[int, Any]]:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode((dialect or Dialect()).encoding))
    return list(open_table(path, dialect or Dialect()).rows())


# --- tables ---


def test_null_and_the_empty_string_differ(tmp_path: Path) -> None:
    assert rows(tmp_path, 'a,b,c\r\n,"",x\r\n"",,\r\n') == [
        (2, [None, "", "x"]),
        (3, ["", None, None]),
    ]


def test_quotes_marks_and_line_ends_within_values(tmp_path: Path) -> None:
    text = 'a,b\n"x, ""y""","1\n2\r\n3"\nlast,"ü"\n'
    assert rows(tmp_path, text) == [(2, ['x, "y"', "1\n2\r\n3"]), (5, ["last", "ü"])]


def test_dialects_and_marks_at_the_start(tmp_path: Path) -> None:
    assert rows(tmp_path, "\ufeffa;b\n1;2", Dialect(";", "utf-8")) == [(2, ["1", "2"])]
    assert rows(tmp_path, "a\tb\né\t2\n", Dialect("\t", "latin-1")) == [(2, ["é", "2"])]


def test_empty_lines_are_no_rows_but_of_one_column(tmp_path: Path) -> None:
    assert rows(tmp_path, "a,b\n1,2\n\n") == [(2, ["1", "2"])]
    assert rows(tmp_path, "a\n1\n\n") == [(2, ["1"]), (3, [None])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1\n", "line 2: 1 values where the header names 2"),
        ('a,b\n1,"x\n\n', "line 2: the quoted value does not end"),
        ('a,b\n1,x"y"\n', "line 2: a quote within"),
        ('a,b\n1,"x"y\n', "line 2: "),
        ("a,a\n", "each once"),
        ("a,\n", "name every column"),
        ("", "is empty"),
    ],
)
def test_what_is_no_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        rows(tmp_path, text)


def test_files_that_are_missing_or_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"none\.csv: No such file"):
        open_table(tmp_path / "none.csv", Dialect())
    (tmp_path / "t.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(MappingError, match=r"t\.csv is not utf-8"):
        list(open_table(tmp_path / "t.csv", Dialect()).rows())


# --- values ---


def test_columns_constants_and_nested_fields(mapped: Mapped) -> None:
    assert mapped(
        'id,n,c\n1,Ada,\n2,"",Rome\n',
        'customer_id = "id"\nname = "n"\nkind = { value = "PERSON" }\n'
        'billing_address.city = "c"\n"billing_address.country_code" = { value = "IT" }\n'
        'marketing_opt_in = { value = true }\ntags = { value = ["x", "y"] }',
    ) == [
        {
            "customerId": "1", "name": "Ada", "kind": "PERSON", "marketingOptIn": True,
            "billingAddress": {"countryCode": "IT"}, "tags": ["x", "y"],
        },
        {
            "customerId": "2", "name": "", "kind": "PERSON", "marketingOptIn": True,
            "billingAddress": {"city": "Rome", "countryCode": "IT"}, "tags": ["x", "y"],
        },
    ]  # fmt: skip


def test_every_step_after_a_column(mapped: Mapped) -> None:
    fields = """
customer_id = "id"
name = { column = "n", null_if = ["", "-"], null = "nobody" }
status = { column = "s", map = "states", other = "LEAD" }
kind = { column = "s", present = "COMPANY", null = "PERSON" }
phone = { column = "n", pattern = 'tel (\\d+)' }
tags = { column = "t", split = ";" }
birth_date = { column = "d", format = "%d.%m.%Y" }
notes = { template = ["N: {n}", "{s}/{t}", "always"], separator = " | " }
"""
    found = mapped(
        'id,n,s,t,d\n1,-,a,x; y;,29.02.2024\n2,tel 7,,,\n3,"",zz,,\n',
        fields,
        head='[maps.states]\na = "ACTIVE"',
    )
    assert found[0] == {
        "customerId": "1", "name": "nobody", "status": "ACTIVE", "kind": "COMPANY",
        "tags": ["x", "y"], "birthDate": "2024-02-29", "notes": "N: - | a/x; y; | always",
    }  # fmt: skip
    assert found[1] == {
        "customerId": "2", "name": "tel 7", "kind": "PERSON", "phone": "7",
        "notes": "N: tel 7 | always",
    }  # fmt: skip
    assert (found[2]["status"], found[2]["name"]) == ("LEAD", "nobody")


def test_numbers_and_maps_of_products(mapped: Mapped) -> None:
    (product,) = mapped(
        "id,n,w,p\n7,12,0.1,12.50\n",
        'product_id = "id"\nunits_in_stock = "n"\nreorder_level = "n"\nweight_kg = "w"\n'
        'unit_price = "p"\nattributes.colour = "w"\nattributes."a.b" = { value = 3 }\n'
        'discontinued = { column = "n", map = { "12" = true } }',
        dataset="products",
    )
    assert product == {
        "productId": "7", "unitsInStock": "12", "reorderLevel": 12, "weightKg": 0.1,
        "unitPrice": "12.50", "discontinued": True, "attributes": {"colour": "0.1", "a.b": "3"},
    }  # fmt: skip


def test_times_have_a_zone(mapped: Mapped) -> None:
    fields = 'interaction_id = "id"\noccur_time = { column = "t", format = "%Y-%m-%d %H:%M:%S"{} }'
    text = "id,t\n1,2024-07-01 12:00:00\n"
    for zone, expected in (("", "12"), (', timezone = "Europe/Berlin"', "10")):
        (found,) = mapped(text, fields.replace("{}", zone), dataset="interactions")
        assert found["occurTime"] == f"2024-07-01T{expected}:00:00.000000Z"
    (as_is,) = mapped(
        "id,t\n1,2024-07-01T12:00:00+02:00\n",
        'interaction_id = "id"\noccur_time = "t"',
        dataset="interactions",
    )
    assert as_is["occurTime"] == "2024-07-01T12:00:00+02:00"


def test_lookups(mapped: Mapped, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("k,name\n1,One\n2,\n", "utf-8")
    head = '[lookups.cats]\nfile = "c.csv"\nkey = "k"'
    fields = (
        'product_id = "id"\n'
        'category = { column = "c", lookup = "cats", take = "name", null = "none" }'
    )
    found = mapped("id,c\n1,1\n2,2\n3,\n", fields, dataset="products", head=head)
    assert [p["category"] for p in found] == ["One", "none", "none"]
    with pytest.raises(BadRows) as caught:
        mapped("id,c\n1,1\n2,9\n", fields, dataset="products", head=head)
    assert caught.value.rows == (BadRow("in.csv", 3, "category", "c.csv has no row '9'"),)
    (tmp_path / "c.csv").write_text("k,name\n1,One\n1,Uno\n", "utf-8")
    with pytest.raises(MappingError, match=r"c.csv, line 3: the key '1' is not unique"):
        mapped("id,c\n1,1\n", fields, dataset="products", head=head)


CHILDREN = """
[datasets.children.lines]
file = "lines.csv"
key = "o"
parent = "id"
sorted = {}
[datasets.children.lines.fields]
product_id = "p"
quantity = "q"
"""


@pytest.mark.parametrize("ordered", ["true", "false"])
def test_child_rows_become_a_repeated_field(mapped: Mapped, tmp_path: Path, ordered: str) -> None:
    (tmp_path / "lines.csv").write_text("o,p,q\na,p1,1\na,p2,2\nc,p3,3\n", "utf-8")
    more = CHILDREN.replace("{}", ordered)
    found = mapped("id\na\nb\nc\n", 'order_id = "id"', more, dataset="orders")
    assert found == [
        {
            "orderId": "a",
            "lines": [{"productId": "p1", "quantity": 1}, {"productId": "p2", "quantity": 2}],
        },
        {"orderId": "b"},
        {"orderId": "c", "lines": [{"productId": "p3", "quantity": 3}]},
    ]


@pytest.mark.parametrize("ordered", ["true", "false"])
def test_child_rows_without_a_parent_are_bad_rows(
    mapped: Mapped, tmp_path: Path, ordered: str
) -> None:
    (tmp_path / "lines.csv").write_text("o,p,q\na,p1,1\nz,p2,x\nz,p3,3\n", "utf-8")
    with pytest.raises(BadRows) as caught:
        mapped("id\na\n", 'order_id = "id"', CHILDREN.replace("{}", ordered), dataset="orders")
    assert [(row.file, row.line) for row in caught.value.rows] == [
        ("lines.csv", 3),
        ("lines.csv", 4),
    ]


def test_bad_rows_name_file_line_and_field(mapped: Mapped, tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("o,p,q\na,p1,many\n", "utf-8")
    with pytest.raises(BadRows) as caught:
        mapped(
            'id,s\n"a",PLACED\n"b\nb",LOST\n',
            'order_id = "id"\nstatus = "s"',
            CHILDREN.replace("{}", "false"),
            dataset="orders",
        )
    assert caught.value.total == 2
    assert [(r.file, r.line, r.field) for r in caught.value.rows] == [
        ("lines.csv", 2, "lines.quantity"),
        ("in.csv", 3, "status"),
    ]
    assert "whole number" in caught.value.rows[0].reason


def test_bad_rows_are_counted_past_the_first_hundred(mapped: Mapped) -> None:
    text = "id,s\n" + "".join(f"{i},x\n" for i in range(250))
    with pytest.raises(BadRows) as caught:
        mapped(text, 'customer_id = "id"\nstatus = "s"')
    assert (len(caught.value.rows), caught.value.total) == (100, 250)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("marketing_opt_in", "yes"),
        ("status", "active"),
        ("birth_date", "1.1.2000"),
    ],
)
def test_values_that_do_not_fit_are_bad(mapped: Mapped, field: str, text: str) -> None:
    value = '{ column = "v", format = "%Y" }' if field == "birth_date" else '"v"'
    with pytest.raises(BadRows, match="customers: 1 bad") as caught:
        mapped(f"id,v\n1,{text}\n", f'customer_id = "id"\n{field} = {value}')
    assert text in caught.value.rows[0].reason


@pytest.mark.parametrize("text", ["1.5", "", " 1", "9999999999", "1e3", "0x1"])
def test_what_is_no_whole_number_is_bad(mapped: Mapped, text: str) -> None:
    with pytest.raises(BadRows):
        mapped(f'id,v\n1,"{text}"\n', 'product_id = "id"\nreorder_level = "v"', dataset="products")


# --- plans ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('customer_id = "nope"', r"fields.customer_id: in.csv has no column 'nope'; it has id, n"),
        ('name = "n"', "the key 'customer_id' is missing"),
        ('colour = "n"', r"fields.colour: Customer has no field 'colour'"),
        ('name.x = "n"', "'name' has no fields"),
        ('billing_address = "n"', "'billing_address' is not a single value"),
        ('etag = "n"', "'etag' is written by the hub alone"),
        ('tags = "n"', "split must say the mark"),
        ('name = { column = "n", split = ";" }', "cannot be split"),
        ('name = { column = "n", colour = "x" }', "unknown key 'colour'"),
        ('name = { column = "n", value = "x" }', "only one of column, value"),
        ('name = { map = "x" }', "one of column, value and template"),
        ('name = { column = "n", map = "x" }', "there is no map 'x'"),
        ('name = { column = "n", lookup = "x" }', "lookup and take go together"),
        ('name = { column = "n", lookup = "x", take = "y" }', "there is no lookup 'x'"),
        ('name = { column = "n", pattern = "(" }', "pattern: "),
        ('name = { column = "n", pattern = "x" }', "must have a group"),
        ('name = { column = "n", other = "x" }', "other needs a map"),
        ('name = { column = "n", format = "%d" }', "format is for dates and times"),
        ('name = { template = "{n} {nope}" }', "no column 'nope'"),
        ('name = { template = "{n" }', "has no partner"),
        ('name = { template = "{n}", pattern = "(.)" }', "can only follow a column"),
        ('name = { column = "n", timezone = "UTC" }', "timezone needs a format"),
        ('name = { value = ["a"] }', "holds one value"),
        ('status = { value = "GONE" }', "'GONE' is not one of"),
        ("name = 3", "a column's name or a table is expected"),
        ('name = { column = 3 }', "column: a value of this type"),
        ('name = { column = "n", null_if = [3] }', "null_if: a value of this type"),
    ],
)  # fmt: skip
def test_mistakes_in_a_plan_name_file_and_key(mapped: Mapped, fields: str, message: str) -> None:
    key = "" if "customer_id" in fields or "is missing" in message else 'customer_id = "id"\n'
    with pytest.raises(MappingError, match=message) as caught:
        mapped("id,n\n1,a\n", key + fields)
    assert str(caught.value).startswith("map.toml: datasets[0].fields")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "map.toml: "),
        ("", r"at least one \[\[datasets\]\]"),
        ("datasets = 1", r"at least one \[\[datasets\]\]"),
        ('[[datasets]]\ndataset = "customers"', r"datasets\[0\]: file must be there"),
        ('[[datasets]]\ndataset = "customers"\nfile = "x"', r"datasets\[0\]: a table \[fields\]"),
        ('[[datasets]]\ndataset = "c"\nfile = "x"\nfoo = 1\n[datasets.fields]', "key 'foo'"),
        ('foo = 1\n[[datasets]]\ndataset = "c"\nfile = "x"\n[datasets.fields]', "key 'foo'"),
        ('[source]\ndelimiter = ";;"\n[[datasets]]\ndataset = "c"\nfile = "x"\n[datasets.fields]',
         "one character"),
        ('[source]\nfoo = 1\n[[datasets]]\ndataset = "c"\nfile = "x"\n[datasets.fields]', "'foo'"),
        ('[lookups.a]\nfile = "x"\n[[datasets]]\ndataset = "c"\nfile = "x"\n[datasets.fields]',
         "lookups.a: key must be there"),
    ],
)  # fmt: skip
def test_files_that_are_no_plans(text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        parse_plan(text, "map.toml")


def test_children_of_what_is_no_repeated_message(mapped: Mapped, tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("o,p,q\n", "utf-8")
    for name in ("tags", "name", "nothing"):
        more = CHILDREN.replace("{}", "false").replace("lines]", f"{name}]")
        more = more.replace("lines.fields]", f"{name}.fields]")
        with pytest.raises(MappingError, match=f"has no repeated message '{name}'"):
            mapped("id\na\n", 'customer_id = "id"', more)


def test_plans_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"there is no mapping 'nothing'; .*northwind"):
        load_plan("nothing")
    with pytest.raises(MappingError, match="No such file"):
        load_plan(str(tmp_path / "x.toml"))
    path = tmp_path / "mine.toml"
    path.write_text('[[datasets]]\ndataset = "customers"\nfile = "x"\n[datasets.fields]\n')
    assert load_plan(str(path)).name == "mine.toml"
    assert [d.dataset for d in load_plan("northwind").datasets] == [
        "customers", "contacts", "products", "orders",
    ]  # fmt: skip


# --- loading ---


def test_columns_that_are_not_taken_over_are_known(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,n,fax\n")
    plan = parse_plan(
        '[[datasets]]\ndataset = "customers"\nfile = "in.csv"\n[datasets.fields]\n'
        'customer_id = "id"\n[[datasets]]\ndataset = "contacts"\nfile = "in.csv"\n'
        '[datasets.fields]\ncontact_id = "id"\ngiven_name = "n"',
        "map.toml",
    )
    assert unused_columns(bind_sources(plan, tmp_path)) == ["in.csv: fax"]


def test_bad_rows_that_the_hub_finds_name_their_source_line(
    hub: Any, refusal: Any, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text('id,n\n1,a\n2,"b\nb"\n3,c\n')
    plan = parse_plan(
        '[[datasets]]\ndataset = "customers"\nfile = "in.csv"\n[datasets.fields]\n'
        'customer_id = "id"\ncredit_limit = "n"',
        "map.toml",
    )
    hub.refusals = [
        refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad",
            "IMPORT_ROW_INVALID",
            (("rows[3].credit_limit", "'c' is not a decimal number"),),
            bad_rows="7",
        ),
        refusal(grpc.StatusCode.PERMISSION_DENIED, "'bi' may not import", "PERMISSION_DENIED"),
    ]
    with Client(hub.url, api_key="key-1") as client:
        with pytest.raises(BadRows) as caught:
            list(load_sources(client, bind_sources(plan, tmp_path)))
        assert caught.value.rows == (
            BadRow("in.csv", 5, "credit_limit", "'c' is not a decimal number"),
        )
        assert caught.value.total == 7
        with pytest.raises(PenstockError, match="may not import"):
            list(load_sources(client, bind_sources(plan, tmp_path)))


def test_bad_rows_that_the_mapping_finds_cancel_the_import(hub: Any, tmp_path: Path) -> None:
    lines = "".join(f"{i},ACTIVE\n" for i in range(20_000))
    (tmp_path / "in.csv").write_text(f"id,s\n{lines}x,LOST\n")
    plan = parse_plan(
        '[[datasets]]\ndataset = "customers"\nfile = "in.csv"\n[datasets.fields]\n'
        'customer_id = "id"\nstatus = "s"',
        "map.toml",
    )
    seen: list[tuple[str, int]] = []
    hub.upload_is_cancelled = True
    with Client(hub.url, api_key="key-1") as client, pytest.raises(BadRows) as caught:
        list(
            load_sources(
                client, bind_sources(plan, tmp_path), lambda name, count: seen.append((name, count))
            )
        )
    assert caught.value.rows[0].line == 20_002
    assert seen[-1] == ("customers", 20_000)
    assert hub.upload_ended.wait(PATIENCE)
    assert hub.uploads == []
