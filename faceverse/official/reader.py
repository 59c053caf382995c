"""Checking the keys of an official dictionary: everything that is wrong ends in one message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..messages import Message, joined

_SHOWN = 12


class CheckedDict:
    """Takes arrays out of a dictionary and remembers what was missing or misshapen, and which keys were asked for."""

    def __init__(self, raw: Mapping, where: str):
        self.raw, self.where = raw, where
        self.problems: list[Message] = []
        self._missing: list[str] = []
        self._known: set[str] = set()

    def array(self, key: str, shape: tuple[int | None, ...], below: int | None = None, required: bool = True) -> Any:
        """An array in the given shape (None: any length), finite; indices are int64 in 0..below - 1.

        Files differ in (1, 3V), (3V,) and (V, 3): any shape with the right number of elements will do. What is missing
        or wrong is noted, and something of the right rank is returned so that reading can go on.
        """
        self._known.add(key)
        empty = np.zeros([1 if size is None else size for size in shape], np.int64 if below is not None else np.float32)
        if key not in self.raw:
            if required:
                self._missing.append(key)
                return empty
            return None
        value = self.raw[key]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            return self._wrong(key, shape, f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip(), empty)
        try:
            array = value.reshape([-1 if size is None else size for size in shape])
        except ValueError:
            return self._wrong(key, shape, f"shape {value.shape}", empty)
        if not array.size or not _same_order(value.squeeze(), array):
            return self._wrong(key, shape, f"shape {value.shape}", empty)
        if below is None:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                self.problems.append(Message("array.not_finite", key=key))
            return array
        index = np.asarray(array, np.float64).round().astype(np.int64) if array.dtype.kind == "f" else array
        if (index != array).any() or index.min() < 0 or index.max() >= max(below, 1):
            self.problems.append(Message("array.indices", key=key, last=below - 1, low=array.min(), high=array.max()))
            return empty
        return np.ascontiguousarray(index, dtype=np.int64)

    def names(self, key: str, count: int, required: bool) -> tuple[str, ...] | None:
        """A list of `count` different names."""
        self._known.add(key)
        if key not in self.raw:
            if required:
                self._missing.append(key)
            return None
        value = self.raw[key]
        names = tuple(map(str, np.asarray(value).reshape(-1))) if isinstance(value, (list, tuple, np.ndarray)) else ()
        if len(names) != count or len(set(names)) < count:
            self.problems.append(Message("array.names", key=key, expected=count, found=len(set(names))))
            return None
        return names

    def parts(self, count: int) -> np.ndarray:
        """`ver_inds`: where the eyeballs and further parts begin and end, rising, the last at most the vertex count."""
        found = self.array("ver_inds", (None,), below=count + 1, required=False)
        if found is None:
            return np.zeros(0, np.int64)
        if (np.diff(found) < 0).any() or len(found) < 3:
            self.problems.append(Message("array.rising", found=found.tolist()[:8]))
            return np.zeros(0, np.int64)
        return found

    def has_any(self, *keys: str) -> bool:
        return any(key in self.raw for key in keys)

    def ignore(self, *keys: str) -> None:
        """Accept keys that belong to the layout but are not needed here."""
        self._known.update(keys)

    def unread(self, *own: str) -> list:
        """Keys that were neither read nor ignored."""
        return [key for key in self.raw if key not in self._known and key not in own]

    def finish(self, extra: Iterable = ()) -> None:
        """Raise one WeightsError with all problems, if there are any."""
        parts: list[Message] = []
        if self._missing:
            parts.append(Message("official.missing_keys", keys=_listed(self._missing)))
        if extra := list(extra):
            parts.append(Message("official.extra_keys", keys=_listed(extra)))
        if self.problems:
            parts += self.problems
        if parts:
            only_extra = extra and len(parts) == 1
            code = "official.only_extra_keys" if only_extra else "file.problems"
            raise WeightsError(code, path=self.where, problems=joined(parts))

    def _wrong(self, key: str, shape: tuple, found: str, empty: np.ndarray) -> np.ndarray:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        self.problems.append(Message("array.numbers", key=key, expected=wanted, found=found))
        return empty


def _same_order(value: np.ndarray, array: np.ndarray) -> bool:
    """Whether reshaping only joined or split axes as the files' own variants do: (3V,) is (V, 3), (V, 3, K) is (3V, K);
    a transposed array is neither."""
    if value.ndim <= 1:
        return array.shape[-1] in (1, 3, array.size)
    joined = value.ndim == 3 and (value.shape[0] * value.shape[1], value.shape[2]) == array.shape
    return value.shape == array.squeeze().shape or joined


def _listed(keys: list) -> str:
    shown = ", ".join(map(str, keys[:_SHOWN]))
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"
