"""Read tables of expression weights as other programs write them: encodings, separators, time codes, units.

Spreadsheets change what a recorder wrote: semicolons or tabs between the cells, decimal commas, UTF-16, line ends of
another system, empty lines and columns. A recorder that is switched off leaves half a line.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from dataclasses import dataclass

import numpy as np

from ..messages import Message
from .timeline import interpolation

TIMES = ("time_s", "timecode")
FACE_COUNT = "blendshapecount"  # in tables of Live Link Face; 0 in frames without a face
HEAD_ANGLES = ("headyaw", "headpitch", "headroll")

_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_SEPARATORS = (",", ";", "\t")
_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:[.,]\d+)?)")
_CLOCK_RATE = 60.0  # of Live Link Face, frames a second
_CLOCK_RATES = (_CLOCK_RATE, 24.0, 25.0, 30.0, 48.0, 50.0, 90.0, 100.0, 120.0, 240.0)
_LARGEST_WEIGHT = 4.0  # weights are exaggerated on purpose, but larger ones are percentages
_LARGEST_RADIANS = 3.2


@dataclass(frozen=True)
class Table:
    """A table of T frames.

    Args:
        columns: (T,) float64 by lower-case name. Times in seconds: time_s as it stands in the file; timecode from the
            first row on. They increase.
        has_face: (T,) bool; the other rows are interpolated in short gaps, else repeat the last row with a face.
        warnings: in words.
    """

    columns: dict[str, np.ndarray]
    has_face: np.ndarray
    warnings: tuple[Message, ...]


def read_table(content: bytes) -> Table:
    """Read a table with a column time_s or Timecode.

    Raises:
        ValueError: with a `Message`: not a text, no such column, two columns of one name, or a cell that is no number.
    """
    text = _decoded(content)
    rows, header, separator = _lines(text), list[str](), ","
    for line, row in rows:
        if not row.lower().startswith("sep="):  # a line by which spreadsheets name the separator
            separator = max(_SEPARATORS, key=row.count)
            header = [cell.strip().lower() for cell in _cells(row, separator, line)]
            break
    while header and not header[-1]:
        header.pop()
    time_column = next((name for name in TIMES if name in header), None)
    if time_column is None:
        raise ValueError(Message("trackfile.no_clock"))
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(Message("trackfile.column_twice", name=doubled[0]))
    values, has_face, clock, warnings = list[np.ndarray](), list[bool](), list[tuple[float, ...]](), list[Message]()
    is_whole = text.endswith(("\n", "\r"))
    remaining = list(rows)
    for index, (line, row) in enumerate(remaining):
        try:
            numbers, face, time = _numbers(_cells(row, separator, line), header, line)
        except ValueError:
            if is_whole or index < len(remaining) - 1 or not values:
                raise
            warnings.append(Message("trackfile.last_line"))
            break
        values.append(np.array(numbers))
        has_face.append(face)
        clock.append(time)
    return _table(header, np.array(values).reshape(-1, len(header)), np.array(has_face, bool), clock, warnings)


def _table(
    header: list[str],
    values: np.ndarray,
    has_face: np.ndarray,
    clock: list[tuple[float, ...]],
    warnings: list[Message],
) -> Table:
    """The table of all values (T, K), without rows that repeat the time of an earlier one."""
    later = np.ones(len(values), dtype=bool)
    if "time_s" in header:
        times = values[:, header.index("time_s")]
    else:
        times = _elapsed(np.array(clock).reshape(-1, 4))
        values[:, header.index("timecode")] = times
        later[1:] = times[1:] > np.maximum.accumulate(times)[:-1]  # recorders repeat a frame when the phone is busy
    if dropped := np.count_nonzero(~later):
        warnings.append(Message("trackfile.rows_left_out", rows=dropped))
    values, has_face, times = values[later], has_face[later], times[later]
    if not has_face.all():
        if not has_face.any():
            raise ValueError(Message("trackfile.rows_no_face"))
        before, share = interpolation(times, has_face)
        after = np.minimum(before + 1, np.count_nonzero(has_face) - 1)
        known = values[has_face]
        filled = (1 - share[:, None]) * known[before] + share[:, None] * known[after]
        values = np.where(has_face[:, None], values, filled)
        values[:, header.index("time_s" if "time_s" in header else "timecode")] = times
    return Table(dict(zip(header, values.T)), has_face, tuple(warnings))


def radians_of_head(columns: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[Message]]:
    """Take yaw, pitch and roll (T,) of Live Link Face out of the columns; angles of degrees are recognised by size."""
    count = len(next(iter(columns.values()), ()))
    angles = [columns.pop(name, np.zeros(count)) for name in HEAD_ANGLES]
    if max(np.abs(values).max(initial=0) for values in angles) <= _LARGEST_RADIANS:
        return angles, []
    return [np.radians(values) for values in angles], [Message("trackfile.degrees")]


def fractions_of_weights(weights: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, list[Message]]:
    """Weights (T, K) with upper limits (K,), divided by 100 if their size shows that they are percentages."""
    if not weights.size or limits.max() > 1 or weights.max() <= _LARGEST_WEIGHT:
        return weights, []
    return weights / 100, [Message("trackfile.percent")]


# -- text --------------------------------------------------------------------------------------------------------------
def _decoded(content: bytes) -> str:
    encodings = [name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)]
    # Every second byte of UTF-16 without a mark is 0. Spreadsheets of Western Europe write Windows-1252.
    guesses = ["utf-16-le", "utf-16-be"] if b"\0" in content[:4] else ["utf-8", "cp1252"]
    for encoding in encodings or guesses:
        try:
            text = content.decode(encoding).rstrip("\0")  # a disk that lost its power leaves zeros at the end
        except UnicodeDecodeError:
            continue
        if not _CONTROL.search(text):
            return text
    raise ValueError(Message("file.no_text"))


def _lines(text: str):
    """Numbers and texts of the lines that hold something."""
    stream = io.StringIO(text, newline=None)  # line ends of Unix, Windows and old Macs
    return ((number, line) for number, row in enumerate(stream, start=1) if (line := row.rstrip("\n")).strip(" ,;\t"))


def _cells(line: str, separator: str, number: int) -> list[str]:
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(Message("trackfile.cells", line=number, reason=str(error))) from error


# -- numbers -----------------------------------------------------------------------------------------------------------
def _numbers(row: list[str], header: list[str], line: int) -> tuple[list[float], bool, tuple[float, ...]]:
    """Numbers of a row, whether it shows a face, and its timecode, if any, as hours, minutes, seconds and frames."""
    while len(row) > len(header) and not row[-1].strip():
        row.pop()
    cells = dict(zip(header, row))
    if not _shows_face(cells):
        row = [cells.get(name, "") if name in (*TIMES, FACE_COUNT) else "0" for name in header]
    if len(row) != len(header):
        raise ValueError(Message("trackfile.columns", line=line, found=len(row), expected=len(header)))
    clock: tuple[float, ...] = ()
    numbers = []
    for name, cell in zip(header, row):
        if name == "timecode":
            clock, number = _clock(cell), 0.0
        else:
            number = _number(cell)
        if not (math.isfinite(number) and all(map(math.isfinite, clock))):
            raise ValueError(Message("trackfile.cell", line=line, name=name, value=repr(cell[:30])))
        numbers.append(number)
    return numbers, _shows_face(cells), clock


def _shows_face(cells: dict[str, str]) -> bool:
    return FACE_COUNT not in cells or _number(cells[FACE_COUNT]) != 0


def _number(cell: str) -> float:
    """The number of a cell, which may have a decimal comma or a percent sign; NaN for anything else."""
    try:
        return float(cell)
    except ValueError:
        pass
    cell, scale = (cell.rstrip()[:-1], 100.0) if cell.rstrip().endswith("%") else (cell, 1.0)
    try:
        return float(cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell) / scale
    except ValueError:
        return math.nan


def _clock(timecode: str) -> tuple[float, ...]:
    """Hours, minutes, seconds and frames; NaN for anything else than HH:MM:SS:FF.sss."""
    match = _TIMECODE.fullmatch(timecode.strip())
    return (math.nan,) * 4 if match is None else tuple(float(part.replace(",", ".")) for part in match.groups())


def _elapsed(clock: np.ndarray) -> np.ndarray:
    """Seconds (T,) since the first row, across midnight too, from hours, minutes, seconds and frames (T, 4)."""
    if not len(clock):
        return np.zeros(0)
    hours, minutes, seconds, frame = clock.T
    times = 3600 * hours + 60 * minutes + seconds + frame / _clock_rate(3600 * hours + 60 * minutes + seconds, frame)
    midnight = np.concatenate([[0], np.cumsum(np.diff(times) < -12 * 3600)])
    return times - times[0] + 24 * 3600 * midnight


def _clock_rate(seconds: np.ndarray, frame: np.ndarray) -> float:
    """Frames a second of the clock: the rate at which a new second is as far away as any other next frame."""
    rates = [rate for rate in _CLOCK_RATES if rate > frame.max()] or [np.floor(frame.max()) + 1]
    steps, new_second = np.diff(frame), np.diff(seconds) == 1
    within = steps[(np.diff(seconds) == 0) & (steps > 0)]
    if not new_second.any() or not len(within):
        return rates[0]
    usual, across = np.median(within), np.median(steps[new_second])
    best = min(rates, key=lambda rate: abs(across + rate - usual))
    return rates[0] if abs(rates[0] - best) < 0.5 else best
