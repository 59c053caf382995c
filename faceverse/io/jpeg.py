"""Check the picture data of JPEG files: libjpeg decodes damaged data to wrong colours without a word.

The scans are Huffman-decoded as ITU-T T.81 describes, without inverse transform and colour conversion. What only
damaged data show: bits that are no code, blocks of more than 64 coefficients, coefficients beyond the range of 8-bit
pixels, fewer or more data than the picture has blocks, and colours that change by a constant from the middle of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

_END, _SCAN, _TABLES, _QUANTISATION, _RESTART = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD
_FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman-coded: baseline, extended sequential, progressive
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
_MAX_COEFFICIENT = 1024  # absolute, of 8-bit pixels
# Coefficients may exceed the range by this factor: some encoders let bright edges overshoot to suppress ringing.
_DC_TOLERANCE, _AC_TOLERANCE = 1.4, 2.0
_ZERO_TAIL_BYTES = 64  # more zeros than this at the end of a file without an end marker are no data
_MIN_STEP, _STEP_MARGIN, _STEP_SHARE = 4.0, 3, 0.4  # levels, units, share of a row: see _has_step
_MAX_GRADUAL = 0.4
_PADDING_BYTES = 8  # see _jpeg_kernel
_NO_TABLE = np.zeros(65536, np.uint16)
_MAX_PIXELS, _MAX_PROGRESSIVE_PIXELS = 2**28, 2**26  # which take 0.1 and 0.2 GB
_MAX_SCANS = 100  # programs write about ten; each one takes a pass over the file


@dataclass(frozen=True)
class JpegReport:
    """What the check of a JPEG file found.

    Attributes:
        content: the file up to the end of the picture, with an end marker even where the file lacks it.
        complete: whether the file has an end marker.
        damaged: whether the data have faults other than a missing end.
        present: share of the height, from the top, whose data are there. Progressive files: in their first scans.
        lacks_detail: whether a progressive file ends before its last refinements.
    """

    content: bytes
    complete: bool = True
    damaged: bool = False
    present: float = 1.0
    lacks_detail: bool = False


class _NotCheckedError(Exception):
    """A file that this module cannot follow: the decoder's own checks have to do."""


@dataclass
class _Component:
    index: int
    horizontal: int
    vertical: int
    quantisation: int
    rows: int = 0  # of blocks in a scan of this component alone
    columns: int = 0
    # Of the 64 coefficients: position of the lowest bit in all scans so far, -1 without a scan.
    lowest_bits: np.ndarray = field(default_factory=lambda: np.full(64, -1))
    nonzero: np.ndarray | None = None  # (blocks, 64) bool, by progressive scans so far


@dataclass
class _Frame:
    height: int
    progressive: bool
    components: dict[int, _Component]
    vertical: int
    mcu_rows: int
    mcu_columns: int


@dataclass
class _Scan:
    """Header of a scan, and its entropy-coded data."""

    components: list[_Component]
    tables: list[tuple[int, int]]
    first: int
    last: int
    high: int
    low: int
    bits: np.ndarray
    bounds: np.ndarray
    in_order: bool  # the numbers of its restart markers
    reaches_end: bool  # of the file, because no marker follows


@dataclass
class _Reader:
    quantisation: dict[int, np.ndarray] = field(default_factory=dict)
    tables: dict[int, np.ndarray] = field(default_factory=dict)  # by class << 4 | identifier
    interval: int = 0
    frame: _Frame | None = None
    scans: int = 0
    damaged: bool = False
    present: float = 1.0


def check_jpeg(content: bytes) -> JpegReport:
    """Check the picture data of a JPEG file.

    Args:
        content: a file that begins with FF D8. What follows the first picture (the further ones of an MPO file, the
            videos of motion photographs) is passed over.
    """
    reader = _Reader()
    try:
        end = _read_segments(reader, content)
    except (_NotCheckedError, IndexError, KeyError, ValueError):
        # Headers that are damaged are the decoder's to report; but a false marker in the data looks like one, too.
        return JpegReport(content, damaged=reader.damaged, present=reader.present)
    if end is not None:
        return JpegReport(content[:end], True, reader.damaged, reader.present)
    content = _without_zeros(content) + bytes((0xFF, _END))
    components = reader.frame.components.values() if reader.frame is not None else ()
    bits = np.stack([part.lowest_bits for part in components])
    present = reader.present if (bits[:, 0] >= 0).all() else 0.0
    return JpegReport(content, False, reader.damaged, present, bool((bits != 0).any()))


def _without_zeros(content: bytes) -> bytes:
    """The file without the zeros that stand for data which never arrived."""
    filled = content.rstrip(b"\0")
    return filled if len(content) - len(filled) > _ZERO_TAIL_BYTES else content


def _read_segments(reader: _Reader, content: bytes) -> int | None:
    """Read up to the end marker and return the position after it; None if there is none."""
    at = 2
    while at < len(content):
        if content[at] != 0xFF:
            raise _NotCheckedError
        while content[at] == 0xFF:
            at += 1
        kind = content[at]
        at += 1
        if kind == _END:
            return at
        if kind in _WITHOUT_LENGTH:
            continue
        length = content[at] << 8 | content[at + 1]
        segment = content[at + 2 : at + length]
        if len(segment) != length - 2 or kind in _OTHER_FRAMES:
            raise _NotCheckedError
        at += length
        if kind == _SCAN:
            scan, at = _read_scan(reader, segment, content, at)
            _check_scan(reader, scan)
        else:
            _read_header(reader, kind, segment)
    if reader.frame is None:
        raise _NotCheckedError
    return None


def _read_header(reader: _Reader, kind: int, segment: bytes) -> None:
    if kind == _QUANTISATION:
        while segment:
            size = 129 if segment[0] >> 4 else 65
            steps = np.frombuffer(segment[1:size], ">u2" if size == 129 else np.uint8).astype(np.int64)
            reader.quantisation[segment[0] & 15] = steps.reshape(64)
            segment = segment[size:]
    elif kind == _TABLES:
        while segment:
            counts = segment[1:17]
            symbols = segment[17 : 17 + sum(counts)]
            reader.tables[segment[0]] = _lookup_table(counts, symbols)
            segment = segment[17 + len(symbols) :]
    elif kind == _RESTART:
        reader.interval = segment[0] << 8 | segment[1]
    elif kind in _FRAMES:
        reader.frame = _read_frame(kind, segment)


def _lookup_table(counts: bytes, symbols: bytes) -> np.ndarray:
    """(65536,) uint16: length of the code << 8 | symbol, for every value of the next 16 bits; 0 for no code."""
    lengths = np.repeat(np.arange(1, 17), list(counts))
    entries = (lengths << 8 | np.frombuffer(symbols, np.uint8)).astype(np.uint16)
    filled = np.repeat(entries, 1 << (16 - lengths))
    if len(filled) > 65536:
        raise _NotCheckedError
    return np.concatenate([filled, np.zeros(65536 - len(filled), np.uint16)])


def _read_frame(kind: int, segment: bytes) -> _Frame:
    precision, height, width = segment[0], segment[1] << 8 | segment[2], segment[3] << 8 | segment[4]
    parts = [segment[at : at + 3] for at in range(6, 6 + 3 * segment[5], 3)]
    most = _MAX_PROGRESSIVE_PIXELS if kind == 0xC2 else _MAX_PIXELS
    if precision != 8 or not 0 < height * width <= most:
        raise _NotCheckedError
    components = {p[0]: _Component(i, p[1] >> 4, p[1] & 15, p[2]) for i, p in enumerate(parts)}
    if any(not 1 <= part.horizontal <= 4 or not 1 <= part.vertical <= 4 for part in components.values()):
        raise _NotCheckedError
    horizontal = max(part.horizontal for part in components.values())
    vertical = max(part.vertical for part in components.values())
    for part in components.values():
        part.rows = math.ceil(math.ceil(height * part.vertical / vertical) / 8)
        part.columns = math.ceil(math.ceil(width * part.horizontal / horizontal) / 8)
    rows, columns = math.ceil(height / (8 * vertical)), math.ceil(width / (8 * horizontal))
    return _Frame(height, kind == 0xC2, components, vertical, rows, columns)


def _read_scan(reader: _Reader, segment: bytes, content: bytes, at: int) -> tuple[_Scan, int]:
    """A scan, and the position of the marker after it."""
    reader.scans += 1
    if reader.frame is None or reader.scans > _MAX_SCANS:
        raise _NotCheckedError
    count = segment[0]
    parts = [reader.frame.components[segment[1 + 2 * i]] for i in range(count)]
    tables = [(segment[2 + 2 * i] >> 4, segment[2 + 2 * i] & 15) for i in range(count)]
    first, last, approximation = segment[1 + 2 * count : 4 + 2 * count]
    data = np.frombuffer(content, np.uint8, offset=at)
    markers = np.flatnonzero((data[:-1] == 0xFF) & (data[1:] != 0))
    kinds = data[markers + 1]
    real = kinds != 0xFF  # FF FF is a fill byte before a marker
    markers, kinds = markers[real], kinds[real]
    others = np.flatnonzero((kinds & 0xF8) != 0xD0)
    stop = int(markers[others[0]]) if len(others) else len(data)
    restarts = markers[: others[0]] if len(others) else markers
    numbers = kinds[: len(restarts)] & 7
    in_order = bool((numbers == np.arange(len(numbers)) % 8).all())
    data = data[:stop]
    if not len(others):
        data = data[: len(_without_zeros(content)) - at]
        restarts = restarts[restarts + 1 < len(data)]
    stuffed = np.flatnonzero((data[:-1] == 0xFF) & (data[1:] == 0)) + 1
    removed = np.sort(np.concatenate([stuffed, restarts, restarts + 1]))
    edges = np.stack([np.r_[0, restarts], np.r_[restarts, len(data)]], axis=1)
    bounds = 8 * (edges - np.searchsorted(removed, edges))
    bits = np.concatenate([np.delete(data, removed), np.zeros(_PADDING_BYTES, np.uint8)])
    high, low = approximation >> 4, approximation & 15
    return _Scan(parts, tables, first, last, high, low, bits, bounds, in_order, not len(others)), at + stop


def _check_scan(reader: _Reader, scan: _Scan) -> None:
    from . import _jpeg_kernel as kernel  # imports numba

    frame, first = reader.frame, scan.components[0]
    assert frame is not None
    alone = len(scan.components) == 1
    rows, columns = (first.rows, first.columns) if alone else (frame.mcu_rows, frame.mcu_columns)
    units = rows * columns
    interval = reader.interval or units
    spectrum = (scan.low, int(scan.high > 0), scan.first, min(scan.last, 63))
    common = (scan.bits, scan.bounds, np.array((units, interval, *spectrum)), *_blocks_and_tables(reader, scan, alone))
    steps = np.stack([reader.quantisation[part.quantisation] for part in frame.components.values()]).clip(1)
    limits = (_DC_TOLERANCE * _MAX_COEFFICIENT / steps[:, 0] + 1).astype(np.int64)
    sizes = np.floor(np.log2(np.maximum(_AC_TOLERANCE * _MAX_COEFFICIENT / steps, 1))).astype(np.int64) + 1
    dc = np.zeros((len(frame.components), units), np.int64)
    if not frame.progressive:
        fault, unit = kernel.check_sequential(*common, limits, sizes, dc)
    elif scan.first == 0:
        fault, unit = kernel.check_dc(*common, limits, dc)
    else:
        if first.nonzero is None:
            first.nonzero = np.zeros((units, 64), np.bool_)
        fault, unit = kernel.check_ac(*common, sizes, first.nonzero)
    is_cut = fault == kernel.TOO_SHORT and unit >= (len(scan.bounds) - 1) * interval
    if fault != kernel.NO_FAULT and not (is_cut and scan.reaches_end) or not scan.in_order:
        reader.damaged = True
    if scan.first == 0 and scan.high == 0:
        for part in scan.components:
            count = 1 if alone else part.horizontal * part.vertical
            quantum = steps[part.index, 0] / 8
            levels = dc[part.index].reshape(rows, columns)[: unit // columns] * (quantum / count)
            reader.damaged |= _has_step(levels, max(_MIN_STEP, 3 * quantum))
    if is_cut and scan.reaches_end and frame.progressive and (scan.first > 0 or scan.high > 0):
        return  # what is missing are refinements
    if is_cut and (scan.reaches_end or unit < units - 2 * columns):
        height_of_unit = 8 * frame.vertical // (first.vertical if alone else 1)
        reader.present = min(reader.present, unit // columns * height_of_unit / frame.height)
    for part in scan.components:
        part.lowest_bits[scan.first : scan.last + 1] = scan.low if frame.progressive else 0


def _blocks_and_tables(reader: _Reader, scan: _Scan, alone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Arguments `blocks` and `tables` of the kernels; a table that the scan does not use may be missing."""
    assert reader.frame is not None
    needs_dc = scan.first == 0 and scan.high == 0
    needs_ac = scan.last > 0
    rows: list[np.ndarray] = []
    blocks = []
    for part, (dc, ac) in zip(scan.components, scan.tables):
        block = [part.index, len(rows), len(rows) + 1]
        rows += [reader.tables[dc] if needs_dc else _NO_TABLE, reader.tables[16 | ac] if needs_ac else _NO_TABLE]
        blocks += [block] * (1 if alone else part.horizontal * part.vertical)
    return np.array(blocks, np.int64), np.stack(rows)


def _has_step(levels: np.ndarray, least: float) -> bool:
    """Whether the mean colour changes by the same amount from one unit on, in the middle of a row.

    Each DC coefficient is stored as the difference from the one before it. Damage that leaves valid codes thus adds a
    constant to all units that follow: in the row of the damage from its column on, in the next row up to it.

    Args:
        levels: (rows, columns) means of one component, in levels 0..255 with any offset.
        least: change in levels from which on it counts.
    """
    if min(levels.shape) < 3 * _STEP_MARGIN:
        return False
    down = np.diff(levels, axis=0)
    # The rows around tell what the picture itself changes by.
    slope = (down[:-3] + down[3:]) / 2
    upper, lower = down[1:-2] - slope, down[2:-1] - slope
    step = np.median(upper + lower, axis=1)[:, None]
    candidates = np.flatnonzero(np.abs(step[:, 0]) >= least)
    upper, lower, step = upper[candidates], lower[candidates], step[candidates]
    slack = np.maximum(1.0, 0.25 * np.abs(step))
    before = (np.abs(upper) < slack) & (np.abs(lower - step) < slack)  # as left of the damage
    after = (np.abs(upper - step) < slack) & (np.abs(lower) < slack)
    # A slanted edge in the picture passes gradually from one row to the next.
    between = (np.abs(upper + lower - step) < slack) & ~before & ~after
    sudden = between.sum(axis=1) < _MAX_GRADUAL * (before | after).sum(axis=1)
    before, after = before & sudden[:, None], after & sudden[:, None]
    columns = levels.shape[1]
    count = np.arange(1, columns)
    share_before = np.cumsum(before, axis=1)[:, :-1] / count
    share_after = np.cumsum(after[:, ::-1], axis=1)[:, :-1][:, ::-1] / (columns - count)
    fits = np.minimum(share_before, share_after)[:, _STEP_MARGIN - 1 : 1 - _STEP_MARGIN]
    return bool((fits >= _STEP_SHARE).any())
