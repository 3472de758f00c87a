"""Records in XML in the bodies of calls: what the schema lacks is named with its path."""

from __future__ import annotations

from typing import Any

import pytest

from access import unrestricted
from penstockd.catalog import Catalog
from penstockd.errors import Refused, RequestMalformed, RequestTooLarge
from penstockd.rpc.rest import xml_bodies
from penstockd.rpc.rest.problems import Problems
from penstockd.rpc.rest.xml_bodies import XmlRecords

NIL = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true"'


def read(catalog: Catalog, text: str, *, many: bool = False) -> tuple[Any, dict[str, str]]:
    """What a document of customers holds, and its faults by path."""
    records, problems = XmlRecords(unrestricted(catalog, "customers")), Problems()
    value = (records.read_many if many else records.read_one)(text.encode(), problems)
    try:
        problems.raise_any()
    except Refused as error:
        return value, {v.field: v.description for v in error.violations}
    return value, {}


def of(content: str) -> str:
    return f"<customer>{content}</customer>"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("", {}),
        ("<name>a &lt; &#13;</name><notes/>", {"name": "a < \r", "notes": ""}),
        ("<name><![CDATA[<b>]]></name>", {"name": "<b>"}),
        ("\n  <tags><item>a</item> <item/></tags>\n", {"tags": ["a", ""]}),
        ("<tags/><billing_address/>", {"tags": [], "billing_address": {}}),
        ("<billing_address><city>R</city></billing_address>", {"billing_address": {"city": "R"}}),
        ("<marketing_opt_in>false</marketing_opt_in>", {"marketing_opt_in": False}),
        ("<marketing_opt_in>1</marketing_opt_in>", {"marketing_opt_in": "1"}),
        (f"<notes {NIL}/><tags {NIL}></tags>", {"notes": None, "tags": None}),
        (f"<billing_address {NIL}/>", {"billing_address": None}),
        ("<!-- c --><?pi x?><name>n</name>", {"name": "n"}),
    ],
)
def test_a_record_is_what_json_would_give(catalog: Catalog, content: str, value: Any) -> None:
    assert read(catalog, of(content)) == (value, {})


def test_a_document_of_many_is_that_of_exports(catalog: Catalog) -> None:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<customers>\n<customer><name>a</name></customer>'
    )
    text += "\n<customer/>\n</customers>\n<!-- penstock-receipt {} -->"
    assert read(catalog, text, many=True) == ({"customers": [{"name": "a"}, {}]}, {})
    found = read(catalog, "<customers><customer><nmae/></customer><x/></customers>", many=True)[1]
    assert found == {
        "customers[0].nmae": "is not a field; did you mean 'name'?",
        "customers": "holds <x>; it may hold <customer>",
    }


@pytest.mark.parametrize(
    ("content", "path", "fault"),
    [
        ("<nmae>x</nmae>", "nmae", "is not a field; did you mean 'name'?"),
        ("<creditLimit>1</creditLimit>", "creditLimit", "is not a field"),
        ("<name>a</name><name>b</name>", "name", "is given twice"),
        ("<name><b>a</b></name>", "name", "holds <b>; it may hold no elements"),
        ("<name lang='en'>a</name>", "name", "has an attribute 'lang'"),
        (f"<name {NIL}>a</name>", "name", "is null, but holds something"),
        ("<tags>a</tags>", "tags", "has text beside its elements"),
        ("<tags><tag>a</tag></tags>", "tags", "holds <tag>; it may hold <item>"),
        (f"<tags><item {NIL}/></tags>", "tags[0]", "has an attribute 'nil'"),
        ("<name>a</name>b", "", "has text beside its elements"),
        (
            "<billing_address><ctiy>R</ctiy></billing_address>",
            "billing_address.ctiy",
            "is not a field; did you mean 'city'?",
        ),
        (
            "<billing_address><city/><city/></billing_address>",
            "billing_address.city",
            "is given twice",
        ),
    ],
)
def test_what_the_schema_lacks_is_named(
    catalog: Catalog, content: str, path: str, fault: str
) -> None:
    found = read(catalog, of(content))[1]
    assert list(found) == [path] and found[path].startswith(fault), found


def test_a_record_may_name_its_schema_and_nothing_else(catalog: Catalog) -> None:
    xsi = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    text = f'<customer {xsi} xsi:noNamespaceSchemaLocation="schema.xsd"/>'
    assert read(catalog, text) == ({}, {})
    assert read(catalog, "<customer id='1'/>")[1] == {"": "has an attribute 'id'"}


LAUGHS = '<!DOCTYPE c [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><customer><name>&b;</name></customer>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "declares a document type"),
        ('<!DOCTYPE c SYSTEM "file:///etc/passwd"><customer/>', "declares a document type"),
        (of("<name>&xxe;</name>"), "undefined entity"),
        ("<customers/>", "root element of the body is <customers>, not <customer>"),
        ('<customer xmlns="urn:x"/>', "root element of the body is <urn:x customer>"),
        ("<customer>", "no element found"),
        ("<customer/><customer/>", "junk after document element"),
        ("", "is empty"),
        ("  \n", "is empty"),
        ('<?xml version="1.0" encoding="utf-16"?><customer/>', "must be in UTF-8"),
        ("<customer>" + "<name>" * 100, "nested deeper than 100 elements"),
        (of("\x01"), "not well-formed"),
    ],
)
def test_what_is_no_document_is_refused(catalog: Catalog, text: str, reason: str) -> None:
    with pytest.raises(RequestMalformed, match=reason):
        read(catalog, text)


def test_a_body_of_too_many_elements_is_refused_before_they_are_made(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xml_bodies, "MOST_NODES", 12)
    assert read(catalog, of("<tags>" + "<item></item>" * 10 + "</tags>"))[1] == {}
    with pytest.raises(RequestTooLarge):
        read(catalog, of("<tags>" + "<item/>" * 11 + "</tags>"))


def test_namespaces_and_attributes_are_bounded(catalog: Catalog) -> None:
    """An element's name repeats its namespace, so that a small body could fill the memory."""
    long = f'<customer xmlns:p="{"u" * 201}"><p:a/></customer>'
    many = "".join(f' xmlns:n{i}="u"' for i in range(101))
    attributes = "".join(f' a{i}=""' for i in range(101))
    for text in (long, f"<customer{many}/>", f"<customer{attributes}/>"):
        with pytest.raises(RequestTooLarge):
            read(catalog, text)
    # The control: what tools declare and never use.
    schema = 'xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    assert read(catalog, f"<customer {schema}><name>n</name></customer>") == ({"name": "n"}, {})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_body_in_another_encoding_is_refused(catalog: Catalog, encoding: str) -> None:
    records, problems = XmlRecords(unrestricted(catalog, "customers")), Problems()
    with pytest.raises(RequestMalformed, match="UTF-8"):
        records.read_one("<customer/>".encode(encoding), problems)


def test_a_list_of_which_members_are_hidden_names_none_of_them(catalog: Catalog) -> None:
    """The command refuses the field: a fault within would tell which members there are."""
    view = unrestricted(catalog, "orders", hidden=["lines.discount"])
    for member in ("discount", "discuont", "quantity"):
        records, problems = XmlRecords(view), Problems()
        text = f"<order><lines><item>x<{member}>1</{member}></item></lines></order>"
        value = records.read_one(text.encode(), problems)
        problems.raise_any()
        assert value == {"lines": ""}
