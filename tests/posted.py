"""A receiver of webhooks in a thread, for tests without an event loop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import eventually


@dataclass
class Post:
    """A message that was posted."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Posts:
    """Accepts posts, with a status by path (200 by default) and headers by path."""

    url: str = ""
    taken: list[Post] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)

    def wait(self, path: str, count: int) -> list[Post]:
        """The posts to a path, once there are ``count`` of them."""

        def enough() -> list[Post] | None:
            found = [p for p in self.taken if p.path == path]
            return found if len(found) >= count else None

        found: list[Post] = eventually(enough)
        return found


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Posts]:
    """Run a receiver on the loopback, by default on a free port."""
    posts = Posts()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {k.lower(): v for k, v in self.headers.items()}
            posts.taken.append(Post(self.path, headers, body))
            self.send_response(posts.statuses.get(self.path, 200))
            for name, value in posts.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    posts.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
