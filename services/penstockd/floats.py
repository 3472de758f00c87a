"""FLOAT and DOUBLE: the one rule for NaN, the infinities and zero.

NaN and the two infinities are values like others. Texts and JSON spell them NaN, Infinity and
-Infinity (in JSON as strings); the hub refuses any other spelling. NaN equals itself and is greater
than every number, as in PostgreSQL. There is one zero and one NaN: every way in passes values
through ``settle_float``, so -0.0 becomes 0, as it does in decimals, whole numbers and Structs, and
etags, digests, comparisons and the order of records agree. Decimals, whole numbers and Structs
refuse numbers that are not finite.

Texts of numbers are rounded to the nearest float, as everywhere. Two kinds are refused instead,
since nobody means what would be kept: numbers other than 0 that become 0, and whole numbers that
become others (see ``keeps_number``).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from decimal import Context, Decimal
from fractions import Fraction

#: NaN and the infinities, by their names in texts and JSON.
ODD_FLOATS: Mapping[str, float] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

#: From here on, not every whole number is a float of 32 and of 64 bits.
_WHOLE_SINGLE, _WHOLE_DOUBLE = 2.0**24, 2.0**53
_NOT_ZERO = re.compile("[^1-9eE]*[1-9]")


def settle_float(value: float) -> float:
    """The value that the hub stores for a float: 0 for both zeros, one NaN for all NaNs."""
    return value + 0.0 if value == value else math.nan  # -0.0 + 0.0 is 0.0


def name_odd_float(value: float) -> str:
    """The name of NaN or an infinity."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def keeps_number(text: str, value: float, *, single: bool) -> bool:
    """Whether the nearest float to a number's text still stands for that number.

    A whole number must be the float, rounded to as many digits as the text has: so texts of a
    float's shortest digits are kept, with zeros behind them too, and texts of all its digits.
    """
    if abs(value) < (_WHOLE_SINGLE if single else _WHOLE_DOUBLE):
        return value != 0 or not _NOT_ZERO.match(text)
    number = Decimal(text)
    if number != number.to_integral_value():
        return True
    digits = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    rounded = Context(prec=len(digits)).create_decimal(Decimal(value))
    return number in (rounded, Decimal(_shortest_text(value, single)))


def format_float(value: float, single: bool) -> str:
    """The fewest digits that read back as the same number, in PostgreSQL's layout."""
    if not math.isfinite(value):
        return name_odd_float(value)
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(_shortest_text(value, single)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text, power = "".join(map(str, digits)), exponent + len(digits) - 1
    minus = "-" if sign else ""
    if -4 <= power < (6 if single else 15):
        return minus + format(Decimal((0, digits, exponent)), "f")
    mantissa = text[0] + ("." + text[1:] if text[1:] else "")
    return f"{minus}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02}"


def _shortest_text(value: float, single: bool) -> str:
    """The fewest digits of a number that is nearer to ``value`` than to any other float.

    ``repr`` also takes a number halfway between two floats, which reads back as the even one.
    PostgreSQL does not.
    """
    if not single and not _is_halfway(text := repr(value), value, single=False):
        return text
    known = _is_single if single else _is_double
    texts = (f"{value:.{n}e}" for n in range(9 if single else 17))
    return next(t for t in texts if known(t, value) and not _is_halfway(t, value, single=single))


def _is_halfway(text: str, value: float, *, single: bool) -> bool:
    if abs(value) < 2.0 ** (24 if single else 53):
        return False  # then it has more digits than the float itself
    number = Fraction(text)
    if number == Fraction(value):
        return False
    beside = math.inf if number > value else -math.inf
    other = _next_single(value, beside) if single else math.nextafter(value, beside)
    return math.isfinite(other) and 2 * number == Fraction(value) + Fraction(other)


def _next_single(value: float, toward: float) -> float:
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    step = 1 if (toward > value) == (value > 0) else -1
    found: float = struct.unpack("<f", struct.pack("<i", bits + step))[0]
    return found


def _is_double(text: str, value: float) -> bool:
    return float(text) == value


def _is_single(text: str, value: float) -> bool:
    try:
        return struct.pack("<f", float(text)) == struct.pack("<f", value)
    except OverflowError:  # the largest numbers, rounded up
        return False
