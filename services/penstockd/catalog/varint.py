"""Numbers and sizes as protobuf's wire format has them."""

from __future__ import annotations


def delimit_bytes(tag: bytes, data: bytes) -> bytes:
    """A field of bytes, text or a message: its tag, its size and its content."""
    return tag + encode_varint(len(data)) + data


def encode_varint(value: int) -> bytes:
    """A non-negative whole number in the wire format."""
    if value < 0x80:
        return _SMALL[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL = [bytes([n]) for n in range(0x80)]
