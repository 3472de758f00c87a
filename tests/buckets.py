"""An S3 server for tests."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from moto.server import ThreadedMotoServer
from pyarrow import fs

from harness import free_port


@contextlib.contextmanager
def serving_s3() -> Iterator[str]:
    """Run a server with a bucket ``bucket`` during the block; yields the query of its URLs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        place = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        made, _ = fs.FileSystem.from_uri(f"s3://k:s@bucket?{place}&allow_bucket_creation=true")
        made.create_dir("bucket")
        yield place
    finally:
        server.stop()
