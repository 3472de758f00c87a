"""``xsi:nil`` in files of XML: an element that is null means what a document without it means."""

from __future__ import annotations

from typing import Any

import pytest

from penstockd import formats
from penstockd.catalog import Dataset
from penstockd.formats.xsd import xml_schema
from worlds import COMMON, HEAD, compiled

XSI = "http://www.w3.org/2001/XMLSchema-instance"
MODEL = """
message Probe {
  option (penstock.options.v1.dataset) = {title: "Probes"};
  message Part { optional string note = 1; repeated string tags = 2; Part2 part = 3; }
  message Part2 { string name = 1; }
  string probe_id = 1 [(penstock.options.v1.field).key = true];
  string name = 2;
  optional string note = 3;
  Part part = 4;
  repeated string tags = 5;
  map<string, Part> parts = 6;
"""


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return compiled(tmp_path_factory.mktemp("nil"), HEAD + MODEL + COMMON)["probes"]


def read(dataset: Dataset, inside: str, root: str = f'xmlns:xsi="{XSI}"') -> Any:
    """The row of a record with these elements, or what is wrong with it."""
    reader = formats.open_reader("XML", dataset, dataset.fields)
    record = f"<probe><probe_id>k</probe_id>{inside}</probe>"
    data = f"<probes {root}>{record}</probes>".encode()
    batches = [*reader.feed(data), *reader.close()]
    rows = [row for batch in batches for row in batch.rows]
    bad = [(b.field, b.reason) for batch in batches for b in batch.bad]
    assert len(rows) + len(bad) == 1
    return rows[0] if rows else bad[0]


#: What is null, and what is left if it is not there.
NULLS = [
    ('<name xsi:nil="true"/>', ""),
    ('<note xsi:nil="true"></note>', ""),
    ('<note xsi:nil="1"/><name>n</name>', "<name>n</name>"),
    ('<part xsi:nil="true"/><name>n</name>', "<name>n</name>"),
    ('<part><note xsi:nil="true"/><tags><item>t</item></tags></part>',
     "<part><tags><item>t</item></tags></part>"),
    ('<part><part xsi:nil="true"/></part>', "<part/>"),
    ('<tags xsi:nil="true"/>', ""),
    ('<parts xsi:nil="true"/>', ""),
    ('<parts><entry key="a"><note xsi:nil="true"/><tags xsi:nil="true"/><part xsi:nil="true"/>'
     '</entry></parts>', '<parts><entry key="a"/></parts>'),
    ('<note xsi:nil="false">n</note>', "<note>n</note>"),
    ('<parts><entry key="a"><note xsi:nil="0">n</note></entry></parts>',
     '<parts><entry key="a"><note>n</note></entry></parts>'),
]  # fmt: skip


@pytest.mark.parametrize(("given", "same"), NULLS, ids=[g for g, _ in NULLS])
def test_what_is_null_is_as_if_it_were_absent(probes: Dataset, given: str, same: str) -> None:
    assert read(probes, given) == read(probes, same)
    other = given.replace("xsi:", "i:")
    assert read(probes, other, f'xmlns:i="{XSI}" other="x"') == read(probes, same)
    own = given.replace("xsi:nil", f'xmlns:x="{XSI}" x:nil')
    assert read(probes, own, "") == read(probes, same)


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ('<note xsi:nil="true">n</note>', "note", "is null, but holds something"),
        ('<note xsi:nil="true"> </note>', "note", "is null, but holds something"),
        ('<part xsi:nil="true"><note>n</note></part>', "part", "is null, but holds something"),
        ('<tags xsi:nil="true"><item/></tags>', "tags", "is null, but holds something"),
        ('<parts><entry key="a"><note xsi:nil="true">n</note></entry></parts>', "parts",
         "is null, but holds something"),
        ('<note xsi:nil="true"/><note>n</note>', "note", "is given twice"),
        ('<note>n</note><note xsi:nil="true"/>', "note", "is given twice"),
        ('<part/><part xsi:nil="true"/>', "part", "is given twice"),
        ('<part xsi:nil="true"/><part/>', "part", "is given twice"),
        ('<note xsi:nil="yes"/>', "note", "has an attribute 'xsi:nil'"),
        ('<note nil="true"/>', "note", "has an attribute 'nil'"),
        ('<note x:nil="true"/>', "note", "has an attribute 'x:nil'"),
        ('<nothing xsi:nil="true"/>', "nothing", "is not a field"),
        ('<tags><item xsi:nil="true"/></tags>', "tags", "has an attribute 'xsi:nil'"),
    ],
)  # fmt: skip
def test_what_is_refused(probes: Dataset, given: str, field: str, said: str) -> None:
    found = read(probes, given)
    assert isinstance(found, tuple), found
    assert found[0] == field and said in found[1], found


def test_the_prefix_must_be_that_of_the_schema(probes: Dataset) -> None:
    given = '<note xsi:nil="true"/>'
    for root in ("", 'xmlns:xsi="http://other"', f'xsi="{XSI}"', f'xmlns="{XSI}"'):
        assert read(probes, given, root) == ("note", "has an attribute 'xsi:nil'"), root


def test_the_row_after_one_that_is_refused(probes: Dataset) -> None:
    data = (
        f'<probes xmlns:xsi="{XSI}"><probe><probe_id>a</probe_id><note xsi:nil="true">n</note>'
        "</probe><probe><probe_id>b</probe_id><note>n</note></probe></probes>"
    )
    reader = formats.open_reader("XML", probes, probes.fields)
    batches = [*reader.feed(data.encode()), *reader.close()]
    assert [row[0] for batch in batches for row in batch.rows] == ["b"]
    assert [b.row for batch in batches for b in batch.bad] == [1]


def test_the_schema_allows_it(probes: Dataset) -> None:
    text = xml_schema(probes, probes.fields).decode()
    for name in ("name", "note", "part", "tags", "parts"):
        assert f'name="{name}" minOccurs="0" nillable="true"' in text
