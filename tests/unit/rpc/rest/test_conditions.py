"""Lists of etags in headers."""

from __future__ import annotations

import pytest

from penstockd.errors import RequestMalformed
from penstockd.rpc.rest.conditions import MOST_TAGS, EntityTag, read_tags, strong_etags


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ('"a"', [("a", False)]),
        ('W/"a"', [("a", True)]),
        ('"a", W/"b" ,"c"', [("a", False), ("b", True), ("c", False)]),
        ('"a,b", "c"', [("a,b", False), ("c", False)]),
        ("a, b", [("a", False), ("b", False)]),
        ('""', [("", False)]),
        (',, "a",', [("a", False)]),
        ('"a-gzip"', [("a", False)]),
        ("", []),
    ],
)
def test_etags_are_read_as_written(header: str, tags: list[tuple[str, bool]]) -> None:
    assert read_tags("If-Match", header) == [EntityTag(*tag) for tag in tags]


@pytest.mark.parametrize(
    "header",
    ['"a', 'a"', '"a""b"', 'w/"a"', "W/", '"a", *', '"a" x"', "\x00", '"a"b'],
)
def test_what_is_no_list_of_etags_is_refused(header: str) -> None:
    with pytest.raises(RequestMalformed, match="If-None-Match is not a list of etags"):
        read_tags("If-None-Match", header)


def test_a_list_is_bounded() -> None:
    assert len(read_tags("If-Match", ",".join(["a"] * MOST_TAGS))) == MOST_TAGS
    with pytest.raises(RequestMalformed, match="more than 100 etags"):
        read_tags("If-Match", ",".join(["a"] * (MOST_TAGS + 1)))


def test_only_strong_etags_name_what_a_write_expects() -> None:
    assert strong_etags('"1-xml", W/"2", "1", "3"') == ["1", "3"]
    assert strong_etags('W/"2", "-xml"') == []
    # One with a comma would be two in the request.
    assert strong_etags('",", "a,5", "7"') == ["7"]
