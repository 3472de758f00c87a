"""What an import says of its file besides the format: how what the file leaves open is read."""

from __future__ import annotations

from dataclasses import dataclass

from penstockd.catalog.leniency import Leniency, UnknownNames, find_zone
from penstockd.catalog.scalars import ValueRefused
from penstockd.errors import ValueInvalid

#: What parts the cells of CSV, by name; the first three are recognised from the header.
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options as the caller writes them; empty ones leave the choice to the file.

    ``compression`` is GZIP or ZSTD, in any case. ``delimiter`` is a character of DELIMITERS or its
    name, and for CSV alone. ``time_zone`` is the zone of times that name none: an IANA name or an
    offset. ``ignore_unknown`` skips columns and members that no field has, and counts them.
    """

    compression: str = ""
    delimiter: str = ""
    time_zone: str = ""
    ignore_unknown: bool = False

    def find_delimiter(self) -> bytes:
        """The delimiter; b"" if the header decides. Raises ValueInvalid."""
        if not self.delimiter:
            return b""
        found = DELIMITERS.get(self.delimiter.lower(), self.delimiter)
        if found not in DELIMITERS.values():
            raise ValueInvalid.of("delimiter", f"is one of {', '.join(DELIMITERS)}, or , ; |")
        return found.encode()

    def find_leniency(self) -> Leniency:
        """What a reader forgives, with a new count of unknown names. Raises ValueInvalid."""
        try:
            zone = find_zone(self.time_zone) if self.time_zone else None
        except ValueRefused as exc:
            raise ValueInvalid.of("time_zone", exc.reason) from None
        return Leniency(zone, UnknownNames() if self.ignore_unknown else None)


#: Leaves everything to the file.
FROM_FILE = ReadOptions()
