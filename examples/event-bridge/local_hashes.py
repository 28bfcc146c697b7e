"""Names blocks under the deployment's secret, so that token ids stay where they are: the `locals` of docs/event-stream.md."""

import struct

import xxhash

MASK = 0xFFFFFFFF


def seed(secret: str) -> tuple[int, int]:
    """The two words that every hash begins with; `secret` is the config's keys.secret."""
    fields = ((1, b"local"), (2, b"1"), (3, secret.encode()))
    digest = xxhash.xxh64_intdigest(b"".join(struct.pack("<BI", kind, len(text)) + text for kind, text in fields))
    return digest & MASK, digest >> 32


def local_hash(seeds: tuple[int, int], tokens: list[int], extras: tuple[str, ...] = ()) -> str:
    """One block: all of its tokens, and what else sets it apart, e.g. ("salt:tenant-7",) on the first one."""
    a, b = seeds
    for at in range(0, len(tokens) - 1, 2):
        even, odd = tokens[at], tokens[at + 1]
        a = _mul(_rotated(_add(a, _mul(even, 0x85EBCA77)), 13), 0x9E3779B1)
        b = _add(_mul(_rotated(b ^ even, 17), 0xC2B2AE3D), a)
        b = _mul(_rotated(_add(b, _mul(odd, 0x27D4EB2F)), 13), 0x165667B1)
        a = _add(_mul(_rotated(a ^ odd, 17), 0x9E3779B1), b)
    if len(tokens) % 2 == 1:
        a = _mul(_add(a, _mul(tokens[-1], 0x85EBCA77)), 0x9E3779B1)
        b = _add(_mul(b ^ tokens[-1], 0xC2B2AE3D), a)
    for word in _words(extras):
        a = _mul(_rotated(_add(a, _mul(word, 0x85EBCA77)), 13), 0x9E3779B1)
        b = _add(_mul(_rotated(b ^ word, 17), 0xC2B2AE3D), a)
        a ^= _mul(b, 0x165667B1)
    a = _mul(a ^ (a >> 16) ^ b, 0x85EBCA6B)
    b = _mul(b ^ (b >> 15) ^ a, 0xC2B2AE35)
    a = _mul(a ^ (a >> 13) ^ (b >> 16), 0x9E3779B1)
    b = _mul(b ^ (b >> 14) ^ a, 0x27D4EB2F)
    return f"0x{b ^ (b >> 15):08x}{a ^ (a >> 16) ^ b:08x}"


def _words(extras: tuple[str, ...]) -> list[int]:
    words = [len(extras)] if extras else []
    for text in extras:
        units = text.encode("utf-16-le")
        words += [len(units) // 2, *(unit + 1 for (unit,) in struct.iter_unpack("<H", units))]
    return words


def _add(one: int, other: int) -> int:
    return (one + other) & MASK


def _mul(one: int, other: int) -> int:
    return (one * other) & MASK


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & MASK
