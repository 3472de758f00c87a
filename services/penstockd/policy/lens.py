"""scratch"""

from __future__ import annotations
import hashlib
from dataclasses import dataclass
from penstockd.query import parse_fields


@dataclass(frozen=True)
class Follow:
    dataset: str
    hops: tuple[tuple[str, str], ...]

    def differs(self, a, b):
        return True


class Lens:
    def __init__(self, view, catalog, *, fields="", filter=""):
        self.view = view
        self.dataset = view.dataset
        self.fields = tuple(parse_fields(fields, view))
        self.revision = view.revision
        self.view_id = hashlib.sha256(
            repr((self.dataset.name, [f.path for f in self.fields], filter)).encode()
        ).hexdigest()[:12]
        self.follows = ()
        self.sees_all = True
        self.clear = True

    def shows(self, image, find):
        return True

    def project(self, image):
        return image

    def changed(self, a, b):
        return ["name"]
