"""Mutations of bytes, text and JSON: functions (data, random generator, other seed files) -> data.

`random.Random` is the source of every choice, so that a case is a function of its generator's seed.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]

INTEGERS = (0, 1, -1, 2, 7, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LONG_INTEGERS = (0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF)
HEADER_BYTES = 256  # half of the integers are written among these
MOST_BYTES = 1 << 23  # files stay small whatever is duplicated
WORDS = (
    "nan", "inf", "-inf", "1e309", "-1e309", "1e-320", "-1", "0", "-0.0", "", "1e38", "99999999999999999999", "0x10",
    "1_000", "1,5", "٣", "true", "null", "None", "a", "\x00", '"', "'", " ", "1e5000000", "9" * 5000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 1e308, -1e308, 2**31, 2**63, -(2**63), 10**400, float("nan"), float("inf"), "",
    "a", "nan", "\x00\x1b[31m\n", "x" * 3000, [], {}, [[]], [None], ["a"], {"a": 1}, [0] * 100, [[1, 2], [3]],
    [float("nan")], "../../../etc/passwd", "\ud800",
)  # fmt: skip
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def _place(data: bytes, rng: Random) -> int:
    """An offset; half of them lie in the header."""
    return rng.randrange(min(len(data), HEADER_BYTES) if rng.random() < 0.5 else len(data)) if data else 0


def _block(data: bytes, rng: Random) -> tuple[int, int]:
    """Start and end of a block, mostly short."""
    start = _place(data, rng)
    longest = max(1, len(data) - start)
    return start, start + min(longest, rng.choice((1, 2, 4, 8, 16, 64, 512, rng.randint(1, longest))))


# -- bytes ------------------------------------------------------------------------------------------------------------
def flip_bits(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if data else 0):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replace_bytes(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    start, end = _block(data, rng)
    filled = rng.randbytes(end - start) if rng.random() < 0.5 else bytes([rng.choice((0, 0xFF, 0x20))]) * (end - start)
    return data[:start] + filled + data[end:]


def truncate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    return data[: rng.randint(0, len(data))] if rng.random() < 0.7 else data[: len(data) - rng.randint(0, 16)]


def extend(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    return data + (rng.randbytes(rng.choice((1, 2, 100, 5000))) if rng.random() < 0.7 else data)


def delete_block(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def duplicate_block(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    start, end = _block(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def swap_blocks(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    (a, b), (c, d) = sorted((_block(data, rng), _block(data, rng)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def write_integer(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Overwrite or insert an interesting integer in either byte order."""
    size = rng.choice((1, 2, 2, 4, 4, 4, 8))
    value = rng.choice(INTEGERS + (LONG_INTEGERS if size == 8 else ()))
    packed = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))
    start = _place(data, rng)
    return data[:start] + packed + data[start + (0 if rng.random() < 0.2 else size) :]


def splice(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """The beginning of this file and the end of another one of the same format."""
    other = rng.choice(others) if others else data
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


BINARY: tuple[Mutation, ...] = (
    flip_bits, replace_bytes, truncate, extend, delete_block, duplicate_block, swap_blocks, splice, write_integer,
    write_integer,
)  # fmt: skip


# -- text -------------------------------------------------------------------------------------------------------------
def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass" if "\ud800" in text else "surrogateescape")


def swap_number(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Replace a number by an odd one."""
    text = _text(data)
    found = [*_NUMBER.finditer(text)]
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 3)))), key=lambda m: -m.start()):
        text = text[: match.start()] + rng.choice(WORDS) + text[match.end() :]
    return _bytes(text)


def change_lines(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Drop, repeat, swap, join, cut or empty a line."""
    lines = data.split(b"\n")
    k, other = (rng.randrange(min(len(lines), 4) if rng.random() < 0.3 else len(lines)) for _ in range(2))
    match rng.randrange(6):
        case 0:
            del lines[k]
        case 1:
            lines[k:k] = [lines[k]] * rng.choice((1, 1, 20))
        case 2:
            lines[k], lines[other] = lines[other], lines[k]
        case 3:
            lines[k] += lines[other]
            del lines[other]
        case 4:
            lines[k] = lines[k][: rng.randint(0, len(lines[k]))]
        case _:
            lines[k] = rng.choice((b"", b" ", b"\t", b"#", b",,,,"))
    return b"\n".join(lines)


def change_token(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Drop, repeat or replace what stands between two separators."""
    tokens = re.split(rb"([\s,;:/]+)", data)
    k, other = (2 * rng.randrange((len(tokens) + 1) // 2) for _ in range(2))
    tokens[k] = rng.choice((b"", tokens[k] * 2, tokens[other], _bytes(rng.choice(WORDS)), b"-" + tokens[k]))
    return b"".join(tokens)


def insert_quote(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    start = _place(data, rng)
    return (
        data[:start]
        + rng.choice((b'"', b"'", b'""', b'"\n', b"\\", b",", b";", b"\t", b"{", b"]", b"\x1b[31m"))
        + data[start:]
    )


def change_encoding(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Line ends of another system, another encoding, or bytes that no encoding has."""
    start = _place(data, rng)
    text = data.decode("latin-1")
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: data.replace(b"\n", b"\r"),
        lambda: b"\xef\xbb\xbf" + data,
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-16-be"),
        lambda: text.encode("utf-32"),
        lambda: data[:start] + b"\xe4\xff" + data[start:],
        lambda: data[:start] + b"\x00" + data[start:],
        lambda: data[:start] + "\u2028\u00a0é".encode() + data[start:],
    )
    return rng.choice(choices)()


TEXT: tuple[Mutation, ...] = (
    swap_number, swap_number, swap_number, change_lines, change_lines, change_token, change_token, insert_quote,
    change_encoding,
)  # fmt: skip


# -- JSON -------------------------------------------------------------------------------------------------------------
def places(document: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value below the root."""
    found, open_ = [], [document]
    while open_:
        value = open_.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        found += [(value, key) for key in keys]
        open_ += [value[key] for key in keys]
    return found


def odd_value(rng: Random, *others: Any) -> Any:
    """One of VALUES or of others, as a copy, because documents are changed in place."""
    return copy.deepcopy(rng.choice((*VALUES, *others)))


def mutate_document(document: Any, rng: Random) -> Any:
    """Change one value, key or list of a JSON document, in place where it can be."""
    # Long lists of numbers would take nearly all hits: half of the choices are among the entries of dictionaries.
    found = places(document)
    named = [(container, key) for container, key in found if isinstance(container, dict)]
    if not found:
        return odd_value(rng)
    container, key = rng.choice(named if named and rng.random() < 0.5 else found)
    value = container[key]
    match rng.randrange(8):
        case 0:
            del container[key]
        case 1 | 2 | 3:
            container[key] = odd_value(rng)
        case 4:
            container[key] = _of_another_type(value)
        case 5:
            container[key] = [value] if rng.random() < 0.5 else {"a": value}
        case 6 if isinstance(value, list):
            container[key] = rng.choice((value * 2, value[:-1], value[::-1], value + [odd_value(rng)], value[:1]))
        case 6 if isinstance(container, dict):
            container[rng.choice(("", "a", "x" * 2000, key.upper(), key + " "))] = container.pop(key)
        case _:
            other, other_key = rng.choice(found)
            container[key] = copy.deepcopy(other[other_key])
    return document


def _of_another_type(value: Any) -> Any:
    if isinstance(value, str):
        return {"text": value} if len(value) % 2 else [value]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        return {str(k): item for k, item in enumerate(value)}
    return str(value)


def change_json(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate the document; what is no JSON (any more) is mutated as text."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return rng.choice(TEXT)(data, rng, others)
    if rng.random() < 0.03:
        return b"[" * 100_000 if rng.random() < 0.5 else b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for _ in range(rng.choice((1, 1, 2))):
        document = mutate_document(document, rng)
    try:
        return json.dumps(document).encode()
    except ValueError:  # integers beyond the digits that Python converts
        return data


JSON: tuple[Mutation, ...] = (change_json,) * 6 + (swap_number, insert_quote, change_encoding, truncate)


def mutated(data: bytes, rng: Random, others: Sequence[bytes], kinds: Sequence[Mutation]) -> bytes:
    """One to three mutations, one after the other."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(kinds)(data, rng, others)[:MOST_BYTES]
    return data
