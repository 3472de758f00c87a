"""The console's files, as the sidecar serves them."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from door import Door, config, raw
from penstockd import resources
from penstockd.node.envoy import render_config
from penstockd.node.errors import ConfigRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = resources.find_portal()
FILES = sorted(p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.is_file())
#: The largest script.
SCRIPT = max(FILES, key=lambda file: (FOLDER / file).stat().st_size)
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


def place(file: str) -> str:
    return f"/portal/{file.removesuffix('index.html')}"


async def test_the_console_is_there_and_small() -> None:
    assert "index.html" in FILES
    sizes = {f: (FOLDER / f).stat().st_size for f in FILES if f.endswith(".js")}
    # What the sign-in loads; pages load the rest when they are opened.
    page = (FOLDER / "index.html").read_text()
    first = sum(size for file, size in sizes.items() if file in page)
    assert 100_000 < first < 400_000
    assert first < sum(sizes.values()) < 600_000


@pytest.mark.parametrize("file", FILES)
async def test_each_file_is_served_as_what_it_is(door: Door, file: str) -> None:
    status, headers, body = await door.call("GET", place(file))
    assert (status, body) == (200, (FOLDER / file).read_bytes())
    kind = KINDS[file.rpartition(".")[2]]
    assert headers["content-type"].partition(";")[0] == kind
    hashed = file.startswith("assets/")
    assert headers.getall("cache-control") == [
        "public, max-age=31536000, immutable" if hashed else "no-cache"
    ]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    policy = dict(p.partition(" ")[::2] for p in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert door.hub.calls == 0  # no worker takes part


@pytest.mark.parametrize("file", FILES)
async def test_head_is_the_same_without_the_body(door: Door, file: str) -> None:
    status, headers, body = await door.call(
        "HEAD", place(file), headers={"accept-encoding": "identity"}
    )
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == (FOLDER / file).stat().st_size


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.8", True),
        ("gzip ; q=1.0 , zstd", True),
        ("identity", False),
        ("br, zstd", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, br", False),
        ("x-gzip, gzipped", False),
        ("", False),
    ],
)
async def test_what_is_large_is_compressed_for_who_accepts_it(
    door: Door, accepted: str, packed: bool
) -> None:
    asked = [f"accept-encoding: {accepted}"] if accepted else []
    reply = await raw(door, f"GET {place(SCRIPT)} HTTP/1.1", *asked)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert (b"\r\ncontent-encoding: gzip" in head) == packed
    assert b"\r\nvary: accept-encoding" in head
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    assert b"text/javascript" in head and b"immutable" in head
    whole = (FOLDER / SCRIPT).read_bytes()
    assert (gzip.decompress(body) if packed else body) == whole
    assert len(body) == len(whole) or len(body) < len(whole) / 2


async def test_a_file_is_sent_whole(door: Door) -> None:
    reply = await raw(door, f"GET {place(SCRIPT)} HTTP/1.1", "range: bytes=0-9")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and b"accept-ranges" not in head
    assert body == (FOLDER / SCRIPT).read_bytes()


@pytest.mark.parametrize("path", ["/", "/portal"])
async def test_the_ways_to_it(door: Door, path: str) -> None:
    status, headers, _ = await door.call("GET", path, allow_redirects=False)
    assert (status, headers["location"]) == (302, "/portal/")
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/portal/none",
        "/portal/index.htm",
        "/portal/assets/",
        "/portal/assets",
        "/portal//etc/passwd",
        "/portal/..%2f..%2fpyproject.toml",
        "/portal/%2e%2e/%2e%2e/pyproject.toml",
        "/portal/assets/../../../pyproject.toml",
        "/portal/assets/%2e%2e%5c%2e%2e%5cpyproject.toml",
    ],
)
async def test_anything_else_is_an_error_in_json(door: Door, path: str) -> None:
    reply = await raw(door, f"GET {path} HTTP/1.1")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"400", b"404"), head
    assert b"content-type: application/json" in head
    assert b'"reason":' in body and b"[build-system]" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/portal/"])
async def test_it_can_only_be_read(door: Door, method: str, path: str) -> None:
    status, _, body = await door.call(method, path)
    assert (status, body["code"]) == (404, 5)


async def test_the_api_is_as_it_was(door: Door) -> None:
    status, headers, _ = await door.call("GET", "/v1/customers/c1", token=door.keys.token())
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert "content-security-policy" not in headers
    assert door.hub.calls == 1


async def test_a_file_that_no_browser_should_get_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "portal"
    shutil.copytree(FOLDER, folder)
    changed = replace(config(tmp_path), portal=folder)
    assert "/portal/more.js" not in render_config(changed)
    (folder / "more.js").write_text("1")
    assert "/portal/more.js" in render_config(changed)
    (folder / "secret.pem").write_text("1")
    with pytest.raises(ConfigRefused, match=r"secret\.pem"):
        render_config(changed)
