"""Deviations that a reader accepts on its caller's request: times without a zone, times with more
digits than are kept, and names that no field has."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from penstockd.catalog.scalars import (
    Parser,
    ValueRefused,
    check_precision,
    convert_utc,
    parse_timestamp,
)

#: The most names of unknown columns and members that are reported, and the characters of each.
MOST_NAMES, NAME_CHARACTERS = 100, 200
_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):?([0-5][0-9])")
_LOCAL_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?)?"
)
_PAST_SIXTH = re.compile(r"(\.[0-9]{6})[0-9]+")
#: What ``time_precision`` may say, in any case.
TRUNCATE = "TRUNCATE"
#: Names in the time zone database that are not zones of their own.
_NO_ZONES = ("Factory", "localtime", "posixrules")


@dataclass(frozen=True, slots=True)
class LocalZone:
    """A time zone for times without one."""

    name: str
    zone: tzinfo

    def parse(self, text: str) -> datetime:
        """Parse a time, which is in this zone if it names none; a day begins at midnight.

        Raises ValueRefused, also for a time that does not exist in the zone, because the clock was
        set forward over it, and for one that exists twice, because the clock was set back.
        """
        if not _LOCAL_TIME.fullmatch(text):
            return parse_timestamp(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return parse_timestamp(text)  # raises the error with the reason
        check_precision(text)
        try:
            early = moment.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
            late = moment.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        except OverflowError:
            raise ValueRefused("is a time outside the years 1 to 9999") from None
        if early == late:
            return convert_utc(early)
        if early.astimezone(self.zone).replace(tzinfo=None) != moment:
            raise ValueRefused(f"is {moment}, which the clocks of {self.name} skip")
        raise ValueRefused(f"is {moment}, which exists twice in {self.name}: write its offset")


def find_zone(name: str) -> LocalZone:
    """The zone of a name, such as Europe/Berlin, UTC, Z or +02:00. Raises ValueRefused."""
    if name in ("Z", "z"):
        return LocalZone("UTC", UTC)
    if found := _OFFSET.fullmatch(name):
        distance = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return LocalZone(name, timezone(-distance if found[1] == "-" else distance))
    try:
        if name not in _NO_ZONES:
            return LocalZone(name, zoneinfo.ZoneInfo(name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueRefused(
        f"is {name[:40]!r}, neither a time zone such as Europe/Berlin nor an offset such as +02:00"
    )


@dataclass(slots=True)
class UnknownNames:
    """The columns and members of a file that no field has, with the number of their values.

    Only the first MOST_NAMES names are kept; ``total`` counts the values of all.
    """

    counts: dict[str, int] = field(default_factory=dict)
    total: int = 0

    def note(self, name: str, values: int = 1) -> None:
        """Count ``values`` values of a name."""
        self.total += values
        name = name[:NAME_CHARACTERS]
        if name in self.counts:
            self.counts[name] += values
        elif len(self.counts) < MOST_NAMES:
            self.counts[name] = values


@dataclass(frozen=True, slots=True)
class Leniency:
    """The accepted deviations; STRICT accepts none. ``truncates`` says that the digits of a second
    after the sixth are cut off."""

    zone: LocalZone | None = None
    unknown: UnknownNames | None = None
    truncates: bool = False

    @property
    def times(self) -> Parser | None:
        """A parser of times; None for the usual one, which refuses times without a zone and times
        that microseconds do not hold."""
        parse = parse_timestamp if self.zone is None else self.zone.parse
        if self.truncates:
            return lambda text: parse(_PAST_SIXTH.sub(r"\1", text))
        return None if self.zone is None else parse


STRICT = Leniency()
TRUNCATING = Leniency(truncates=True)


def choose_precision(text: str) -> Leniency:
    """The leniency of a call with records, by its ``time_precision``. Raises ValueRefused."""
    if not text:
        return STRICT
    if text.upper() == TRUNCATE:
        return TRUNCATING
    raise ValueRefused(f"is {text[:40]!r}, not {TRUNCATE}")
