"""The options of an import besides the format: how to read what the file itself leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from penstockd.catalog.leniency import Leniency, UnknownNames, choose_precision, find_zone
from penstockd.catalog.scalars import ValueRefused
from penstockd.errors import ValueInvalid

#: The separators of CSV cells, by name; the first three are recognised from the header.
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options as the caller writes them; empty ones leave the choice to the file.

    ``compression`` is GZIP or ZSTD, in any case. ``delimiter`` is a character of DELIMITERS or its
    name, and only for CSV. ``time_zone`` is the zone of times without one: an IANA name or an
    offset. ``ignore_unknown`` skips columns and members that no field has, and counts them.
    ``time_precision`` is TRUNCATE, in any case, to cut off digits of a second after the sixth.
    """

    compression: str = ""
    delimiter: str = ""
    time_zone: str = ""
    ignore_unknown: bool = False
    time_precision: str = ""

    def find_delimiter(self) -> bytes:
        """The delimiter; b"" if the header decides. Raises ValueInvalid."""
        if not self.delimiter:
            return b""
        found = DELIMITERS.get(self.delimiter.lower(), self.delimiter)
        if found not in DELIMITERS.values():
            raise ValueInvalid.of("delimiter", f"is one of {', '.join(DELIMITERS)}, or , ; |")
        return found.encode()

    def find_leniency(self) -> Leniency:
        """The deviations that a reader accepts, with a new count of unknown names. Raises
        ValueInvalid."""
        try:
            zone = find_zone(self.time_zone) if self.time_zone else None
        except ValueRefused as exc:
            raise ValueInvalid.of("time_zone", exc.reason) from None
        unknown = UnknownNames() if self.ignore_unknown else None
        return Leniency(zone, unknown, read_precision(self.time_precision).truncates)


def read_precision(text: str) -> Leniency:
    """The leniency of a call by its ``time_precision``. Raises ValueInvalid."""
    try:
        return choose_precision(text)
    except ValueRefused as exc:
        raise ValueInvalid.of("time_precision", exc.reason) from None


#: Leaves everything to the file.
FROM_FILE = ReadOptions()
