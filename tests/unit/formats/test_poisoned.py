"""Files made to break readers: each is refused with a reason or read, whatever it contains."""

from __future__ import annotations

import functools
import gzip
import os
import random
import resource
import zlib
from collections.abc import Iterator

import pytest

from penstockd import formats
from penstockd.catalog.model import Dataset
from penstockd.errors import RequestTooLarge
from penstockd.formats import FormatError, ReadOptions
from penstockd.formats.compression import COMPRESSIONS
from penstockd.formats.xml_reader import DEPTH_LIMIT

#: Files of each format.
FILES = int(os.environ.get("PENSTOCK_POISON_FILES", "1000"))
SEED = 31337
GOOD = {
    "CSV": b'thing_id,title,large,price,day,labels\nk1,"a ""b""",5,1.50,2024-02-29,"[""x""]"\n'
    b"k2,,,,,\n",
    "NDJSON": b'{"thingId":"k1","title":"a","large":"5","price":"1.50","homePlace":{"line1":"x"}}\n'
    b'{"thingId":"k2","labels":["x"],"allParts":[{"partName":"p"}],"words":{"a":"b"}}\n',
    "JSON": b'[{"thingId":"k1","title":"a","large":"5"},\n {"thingId":"k2","labels":["x"]}]\n',
    "XML": b'<?xml version="1.0"?>\n<things><thing><thing_id>k1</thing_id><title>a &amp; b</title>'
    b"<home_place><line1>x</line1></home_place><labels><item>x</item></labels></thing>\n"
    b'<thing><thing_id>k2</thing_id><words><entry key="a">b</entry></words></thing></things>\n',
}  # fmt: skip
POISON = [
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbf\xbe", b"\\ud800", b"\\u0000", b"&#0;", b"&#xD800;",
    b"9223372036854775808", b"-9223372036854775809", b"1e999", b"NaN", b"Infinity", b"9" * 5000,
    b"[" * 3000, b'{"a":' * 2000, b"<a>" * 200, b"]]>", b"<![CDATA[", b"<!--", b"-->", b"<?x?>",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b'"', b'""', b"'", b",", b"\n", b"\r", b"\t",
    b"\x1d", b"\x1e", b"\x1f", b"\xef\xbb\xbf", b'{"@receipt":{}}', b"<?penstock-receipt {}?>",
    b"null",
    b"</things>", b"</thing>", b"<thing/>", b"}", b"]", b"true", b'"thingId":"z",', b" " * 2000,
]  # fmt: skip


def fed(
    name: str, things: Dataset, pieces: Iterator[bytes], compression: str = ""
) -> tuple[int, list[formats.BadRow]]:
    """The number of rows in a file, and the bad ones; the readers' results are consumed and
    dropped."""
    reader = formats.open_reader(name, things, things.fields, ReadOptions(compression))
    good, bad = 0, []
    for piece in pieces:
        for batch in reader.feed(piece):
            good += len(batch.rows)
            bad += batch.bad
    for batch in reader.close():
        good += len(batch.rows)
        bad += batch.bad
    assert reader.rows == good + len({b.row for b in bad})
    return reader.rows, bad


def pieces_of(data: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def poisoned(name: str, chance: random.Random) -> bytes:
    """A valid file with poison in it, or with some bytes missing."""
    data = bytearray(GOOD[name] * chance.choice([1, 1, 1, 2]))
    for _ in range(chance.randint(1, 3)):
        at, how = chance.randrange(len(data)), chance.randrange(4)
        if how == 0:
            data[at : at + 1] = chance.choice(POISON)
        elif how == 1:
            data[at:at] = chance.choice(POISON)
        elif how == 2:
            del data[at : at + chance.randint(1, 20)]
        else:
            data[at] = chance.randrange(256)
        data = data or bytearray(b"x")
    return bytes(data)


@pytest.mark.parametrize("name", list(GOOD))
def test_good_files_are_read(things: Dataset, name: str) -> None:
    """Negative control: the readers refuse the poison, not the file."""
    assert fed(name, things, pieces_of(GOOD[name])) == (2, [])


@pytest.mark.parametrize("name", list(GOOD))
def test_poison_is_refused_or_read(things: Dataset, name: str) -> None:
    print("seed", SEED)
    chance = random.Random(f"{SEED}{name}")
    refused = bad_rows = 0
    for _ in range(FILES):
        data = poisoned(name, chance)
        try:
            rows, bad = fed(name, things, pieces_of(data, chance.choice([1, 7, 1 << 16])))
        except FormatError as error:
            refused += 1
            assert len(str(error)) < 500
        else:
            bad_rows += bool(bad)
            for row in bad:
                assert 1 <= row.row <= rows and row.reason and len(row.reason) < 1000
    assert refused + bad_rows > 100
    assert refused > 20 or name == "NDJSON"  # each line of NDJSON is independent


@pytest.mark.parametrize("name", ["GZIP", "ZSTD"])
def test_damaged_compressed_files_are_refused(things: Dataset, name: str) -> None:
    print("seed", SEED)
    chance = random.Random(f"{SEED}{name}")
    by = COMPRESSIONS[name].compressor()
    whole = by.compress(GOOD["CSV"] * 1) + by.flush()
    assert fed("CSV", things, pieces_of(whole + whole[:0]), name) == (2, [])
    for end in range(1, len(whole)):
        with pytest.raises(FormatError) as caught:
            fed("CSV", things, pieces_of(whole[:end]), name)
        assert caught.value.truncated
    survived = 0
    for _ in range(500):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert fed("CSV", things, pieces_of(bytes(data)), name)[0] == 2
            survived += 1  # a bit of the header without a meaning
        except FormatError:
            pass
    assert survived < 100


def repeated(head: bytes, block: bytes, times: int, tail: bytes = b"") -> Iterator[bytes]:
    yield head
    for _ in range(times):
        yield block
    yield tail


@functools.cache
def bomb(name: str, megabytes: int) -> bytes:
    """A file that becomes that many megabytes of blanks after the beginning of a document."""
    by = COMPRESSIONS[name].compressor()
    if name == "GZIP":
        by = zlib.compressobj(9, zlib.DEFLATED, 31)
    blanks = b" " * (1 << 20)
    parts = [by.compress(b"<things>"), *(by.compress(blanks) for _ in range(megabytes))]
    return b"".join(parts) + by.flush()


def memory() -> int:
    """The peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", ["GZIP", "ZSTD"])
@pytest.mark.parametrize("format", ["XML", "NDJSON", "CSV", "JSON"])
def test_bombs_do_not_go_off(things: Dataset, name: str, format: str) -> None:
    data = bomb(name, 64)
    before = memory()
    with pytest.raises((RequestTooLarge, FormatError)):
        fed(format, things, iter([data]))
    assert memory() - before < 64 << 20


def test_a_bomb_is_known_by_its_ratio(things: Dataset) -> None:
    for name in COMPRESSIONS:
        with pytest.raises(RequestTooLarge, match="times as large"):
            fed("XML", things, iter([bomb(name, 64)]))
    row = b"<thing><thing_id>k%d</thing_id><title>the same</title></thing>"
    rows = b"<things>" + b"".join(row % i for i in range(20_000)) + b"</things>"
    assert fed("XML", things, pieces_of(gzip.compress(rows))) == (20_000, [])


GIANTS = {
    "1M columns": ("CSV", b"thing_id", b"".join(b",c%d" % i for i in range(100_000)), 10, b"\n"),
    "one cell": ("CSV", b'thing_id\n"', b"x" * (1 << 20), 64, b'"\n'),
    "one line": ("NDJSON", b'{"thingId":"', b"x" * (1 << 20), 64, b'"}'),
    "one element": ("JSON", b'[{"thingId":"', b"x" * (1 << 20), 64, b'"}]'),
    "arrays": ("NDJSON", b'{"thingId":', b"[" * 100_000, 1, b"\n"),
    "nested": ("JSON", b'[{"thingId":', b"[" * 100_000, 10, b"]"),
    "deep": ("XML", b"<things><thing>", b"<a>" * 100_000, 1, b""),
    "one text": ("XML", b"<things><thing><title>", b"x" * (1 << 20), 64, b"</title>"),
    "one attribute": ("XML", b'<things><thing a="', b"x" * (1 << 20), 64, b'"/>'),
    "one comment": ("XML", b"<things><!--", b"x" * (1 << 20), 64, b"-->"),
    "one name": ("XML", b"<", b"x" * (1 << 20), 64, b"/>"),
    "1M attributes": ("XML", b"<things><thing ", b" ".join(b"a%d=''" % i for i in range(99_999)),
                      10, b"/>"),
    "1M elements": ("XML", b"<things><thing>", b"<title/>" * 100_000, 10, b"</thing>"),
    "laughs": ("XML", b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
               b"", 0, b"]><things>&b;</things>"),
    "outside": ("XML", b'<!DOCTYPE things [<!ENTITY x SYSTEM "file:///etc/passwd">]>', b"", 0,
                b"<things><thing><thing_id>&x;</thing_id></thing></things>"),
    "remote": ("XML", b'<!DOCTYPE things SYSTEM "http://127.0.0.1:1/x.dtd">', b"<things/>", 1, b""),
    "parameters": ("XML", b'<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]><a/>', b"",
                   0, b""),
}  # fmt: skip


@pytest.mark.parametrize("case", list(GIANTS))
def test_giants_are_refused_early(things: Dataset, case: str) -> None:
    name, head, block, times, tail = GIANTS[case]
    before = memory()
    try:
        _, bad = fed(name, things, repeated(head, block, times, tail))
    except FormatError as error:
        assert len(str(error)) < 500
    else:
        assert bad and bad[0].row == 1
    assert memory() - before < 128 << 20


def test_nesting_is_bounded_and_deep_records_are_not_refused(things: Dataset) -> None:
    head, tail = (
        b"<things><thing><thing_id>a</thing_id><all_parts>",
        b"</all_parts></thing></things>",
    )
    for levels in (1, 20, (DEPTH_LIMIT - 4) // 2):
        inner = b"<item><parts>" * levels + b"</parts></item>" * levels
        assert fed("XML", things, pieces_of(head + inner + tail)) == (1, [])
    inner = b"<item><parts>" * DEPTH_LIMIT + b"</parts></item>" * DEPTH_LIMIT
    with pytest.raises(FormatError, match="nested deeper"):
        fed("XML", things, pieces_of(head + inner + tail))


XML_ROWS = [
    ("<nope>1</nope>", "nope", "not a field"),
    ("<home_place><nope/></home_place>", "home_place.nope", "not a field"),
    ("<title>a</title><title>b</title>", "title", "twice"),
    ("<home_place/><home_place/>", "home_place", "twice"),
    ("<labels/><labels/>", "labels", "twice"),
    ("<title>a<b/></title>", "title", "holds an element <b>"),
    ("<title x='1'>a</title>", "title", "attribute 'x'"),
    ("<labels><x/></labels>", "labels", "holds <x>, not <item>"),
    ("<labels>x</labels>", "labels", "text beside"),
    ("<words><entry>a</entry></words>", "words", "not <entry key"),
    ("<words><entry key='a'>1</entry><entry key='a'>2</entry></words>", "words", "twice"),
    ("<all_parts><item><nope/></item></all_parts>", "all_parts", "unknown element <nope>"),
    ("<all_parts><item><amount>x</amount></item></all_parts>", "all_parts", "at [0].amount"),
    ("stray", "", "text beside"),
    ("<small/>", "small", "whole number"),
    ("<small>2147483648</small>", "small", "out of range"),
    ("<large>9223372036854775808</large>", "large", "out of range"),
    ("<price>NaN</price>", "price", "not a decimal"),
    ("<color>BLUE</color>", "color", "BLUE"),
]


@pytest.mark.parametrize(("inner", "field", "reason"), XML_ROWS)
def test_a_bad_row_of_xml_is_named(things: Dataset, inner: str, field: str, reason: str) -> None:
    row = "<thing><thing_id>k{}</thing_id>{}</thing>"
    data = f"<things>{row.format(1, '')}{row.format(2, inner)}{row.format(3, '')}</things>"
    for size in (1, 1 << 16):
        rows, bad = fed("XML", things, pieces_of(data.encode(), size))
        assert (rows, [(b.row, b.field) for b in bad]) == (3, [(2, field)])
        assert reason in bad[0].reason


def test_an_empty_element_is_no_null(things: Dataset) -> None:
    data = (
        b"<things><thing><thing_id>a</thing_id><remark/><home_place/></thing>"
        b"<thing><thing_id>b</thing_id><etag><x><y/>7</x></etag></thing></things>"
    )
    reader = formats.open_reader("XML", things, things.fields)
    rows = [r for b in [*reader.feed(data), *reader.close()] for r in b.rows]
    paths = [f.path for f in reader.fields]
    at = [paths.index(p) for p in ("remark", "home_place.line1", "home_place.line2", "title")]
    assert [[r[i] for i in at] for r in rows] == [["", "", None, ""], [None, None, None, ""]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_xml_says_its_encoding(things: Dataset, encoding: str) -> None:
    text = "<things><thing><thing_id>Zoë</thing_id></thing></things>"
    declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>{text}'
    assert fed("XML", things, pieces_of(declared.encode(encoding), 3)) == (1, [])


def test_a_cut_xml_is_told_apart(things: Dataset) -> None:
    data = GOOD["XML"].rstrip()
    for end in range(len(data)):
        with pytest.raises(FormatError) as caught:
            fed("XML", things, pieces_of(data[:end], 11))
        assert caught.value.truncated, (end, caught.value)
