"""Read rows of points as scanners and editors write them: x y z, then colours, an intensity or normals.

Nothing in such a file says what its columns are, unless its first line names them. They are told apart by their values:
normals have negative components; colours end at 1, 255 or 65535.
"""

from __future__ import annotations

import io
import re

import numpy as np

from ..messages import Message
from .obj_text import color_scale

_COMMENT = re.compile(r"(?:#|//).*")
_HEAD = 8  # lines that may hold a count and names
_COLOR_NAMES = (("r", "g", "b"), ("red", "green", "blue"))
_DECIMAL_COMMAS = re.compile(r"\s*[-+]?\d+(?:,\d+)?(?:[eE][-+]?\d+)?(?:\s+[-+]?\d+(?:,\d+)?(?:[eE][-+]?\d+)?){2,}\s*")


def parse_cloud(text: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Parse a point cloud.

    Args:
        text: one point a line, numbers apart by spaces, tabs, commas or semicolons; comments after # or //. The first
            line may be the number of points, or the names of the columns, also in a comment.

    Returns:
        points (N, 3) float64, and colours (N, 3) sRGB levels 0..255, or None.

    Raises:
        ValueError: rows of other lengths, words in place of numbers, fewer points than announced.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    names, announced = None, None
    rows = [line for line in lines if line.strip()]
    for row in rows[:_HEAD]:
        names = names or _names(row)
        count = row.strip()
        if announced is None and count.isascii() and count.isdecimal() and len(count) < 12 and len(rows) > 1:
            announced = int(count)
    rows = [words for row in rows[:_HEAD] if _is_data(words := _COMMENT.sub("", row).strip())] + [
        words for row in rows[_HEAD:] if (words := _COMMENT.sub("", row).strip())
    ]
    if announced is not None and announced > len(rows):
        raise ValueError(Message("scan.fewer_points", announced=announced, found=len(rows)))
    if not rows:
        return np.zeros((0, 3)), None
    values = _numbers(rows)
    if values.shape[1] < 3:
        raise ValueError(Message("scan.rows", found=values.shape[1]))
    return values[:, :3], _levels(_colors(values, names))


def _names(row: str) -> list[str] | None:
    """Names of the columns; None for any other row."""
    words = re.split(r"[\s,;]+", row.strip().lstrip("#/ \t").lower())
    return words if {"x", "y", "z"} <= set(words) else None


def _is_data(row: str) -> bool:
    return bool(row) and not row.isdecimal() and _names(row) is None


def _numbers(rows: list[str]) -> np.ndarray:
    if ";" in rows[0]:
        rows = [row.replace(",", ".").replace(";", " ") for row in rows]
    elif "," in rows[0]:
        decimal = _DECIMAL_COMMAS.fullmatch(rows[0]) is not None
        rows = [row.replace(",", "." if decimal else " ") for row in rows]
    if not any(row.strip() for row in rows):  # separators alone
        return np.zeros((0, 3))
    return np.loadtxt(io.StringIO("\n".join(rows)), ndmin=2, comments=None)


def _colors(values: np.ndarray, names: list[str] | None) -> np.ndarray | None:
    """The columns (N, 3) of colours, if there are any."""
    count = values.shape[1]
    if names is not None and len(names) == count:
        found = [wanted for wanted in _COLOR_NAMES if set(wanted) <= set(names)]
        return values[:, [names.index(name) for name in found[0]]] if found else None
    groups = {3: (), 4: (), 6: (3,), 7: (_after_intensity(values, 3),), 9: (3, 6), 10: (_after_intensity(values, 3), 7)}
    if count == 10 and values[:, 7:].min() >= 0 > values[:, 3:6].min():  # normals first
        groups[10] = (_after_intensity(values, 6),)
    if count not in groups:
        raise ValueError(Message("scan.rows", found=count))
    colors = [values[:, first : first + 3] for first in groups[count]]
    colors = [columns for columns in colors if np.nan_to_num(columns).min() >= 0]
    return max(colors, key=lambda columns: color_scale(np.nan_to_num(columns).max()), default=None)


def _after_intensity(values: np.ndarray, first: int) -> int:
    """Where the colour begins among four columns: an intensity before it, or an opacity or another value after it."""
    four = values[:, first : first + 4]
    if four.shape[1] < 4:
        return first
    before, after = four[:, 0], four[:, 3]
    is_after = np.ptp(after) == 0 or (_is_level(before) and not _is_level(after))
    return first if is_after else first + 1


def _is_level(column: np.ndarray) -> bool:
    return bool(((column >= 0) & (column <= 255) & (column == np.floor(column))).all())


def _levels(colors: np.ndarray | None) -> np.ndarray | None:
    if colors is None:
        return None
    colors = np.nan_to_num(colors)
    scale = color_scale(float(colors.max(initial=0)))
    return np.clip(colors if scale == 255 else np.round(colors * (255 / scale)), 0, 255).astype(int)
