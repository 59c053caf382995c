"""Reading JSON of unknown origin: what is wrong with it is one sentence."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..messages import Message

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(content: bytes | str, *, constant: Callable[[str], Any] = float) -> Any:
    """Parse a JSON document.

    Args:
        content: text, or bytes in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
        constant: called with "NaN", "Infinity" or "-Infinity", which Python writes though JSON has no such numbers.

    Returns:
        The document. Halves of surrogate pairs, which no file and no terminal takes, are replaced by U+FFFD.

    Raises:
        ValueError: with a `Message`: not a text, not complete JSON, nested too deeply, a number of thousands of digits,
            or an object with two entries of one name.
    """
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
        text = text.removeprefix("\ufeff")
        document = json.loads(text, parse_constant=constant, object_pairs_hook=_object)
        return _without_surrogates(document) if _SURROGATE.search(text) else document
    except UnicodeDecodeError as error:
        raise ValueError(Message("file.no_text")) from error
    except json.JSONDecodeError as error:
        raise ValueError(Message("json.damaged", reason=str(error))) from error
    except RecursionError as error:
        raise ValueError(Message("json.nested")) from error
    except ValueError as error:
        if error.args and isinstance(error.args[0], Message):
            raise
        raise ValueError(Message("json.digits")) from error  # Python limits the digits of integers


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(Message("json.twice", name=repr(name[:60])))
    return entries


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    return value
