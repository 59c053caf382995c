"""Recover the frames of a damaged journal: records that no tracker writes, and bytes that were lost or added."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

_ROTATION_TOLERANCE = 1e-3
_LARGEST_VALUE = 1e4  # of translation in metres, weights and light in any record
_RESYNC_RECORDS = 4  # with a face, one after the other, show where records begin again
_MOST_RESYNCS = 16
_LONGEST_LOSS_S = 10.0
_LATEST_S = 1e8


@dataclass(frozen=True)
class RecoveredFrames:
    """Frames of a journal.

    Args:
        frames: (T,) records; damaged ones have no face, and times between their neighbours'.
        damaged: (T,) bool.
        intact: number of frames before the first damage.
    """

    frames: np.ndarray
    damaged: np.ndarray
    intact: int


def recover_frames(body: bytes, dtype: np.dtype) -> RecoveredFrames:
    """Recover the frames of a journal's body; an incomplete last record is left out.

    Args:
        body: the records, one after the other.
        dtype: see `journal.record_type`.
    """
    parts = _synchronised(body, dtype)
    frames = np.concatenate(_with_lost_frames(parts))
    damaged = ~(_plausible(frames) & _increasing(frames["seconds"]))
    intact = int(np.argmax(damaged)) if damaged.any() else len(frames)
    if not damaged.any():
        return RecoveredFrames(frames, damaged, min(intact, len(parts[0])))
    repaired, index = frames.copy(), np.arange(len(frames))
    repaired[damaged] = np.zeros((), dtype)
    good, seconds = index[~damaged], frames["seconds"][~damaged]
    if len(good):
        step = float(np.median(np.diff(seconds) / np.diff(good))) if len(good) > 1 else 1.0
        times = np.interp(index, good, seconds)
        times += step * (np.minimum(index - good[0], 0) + np.maximum(index - good[-1], 0))
        repaired["seconds"] = np.where(damaged, times, frames["seconds"])
    return RecoveredFrames(repaired, damaged, min(intact, len(parts[0])))


def _with_lost_frames(parts: list[np.ndarray]) -> list[np.ndarray]:
    """The parts, and between them as many empty records as their times have frames missing."""
    steps = np.concatenate([np.diff(part["seconds"][_plausible(part)]) for part in parts])
    step = float(np.median(steps)) if len(steps) else 0.0
    joined = parts[:1]
    for before, part in zip(parts, parts[1:]):
        gap_s = float(part["seconds"][0] - before["seconds"][-1]) if len(before) else 0.0
        lost = round(gap_s / step) - 1 if 0 < step < gap_s < _LONGEST_LOSS_S else 0
        empty = np.zeros(lost, part.dtype)
        empty["seconds"] = np.nan
        joined += [empty, part]
    return joined


def _records(body: bytes, start: int, dtype: np.dtype, most: int | None = None) -> np.ndarray:
    count = max(len(body) - start, 0) // dtype.itemsize
    return np.frombuffer(body, dtype, count if most is None else min(count, most), min(start, len(body)))


def _synchronised(body: bytes, dtype: np.dtype) -> list[np.ndarray]:
    """Parts of the records (T,): a new one begins where bytes were lost or added."""
    start, parts = 0, list[np.ndarray]()
    while len(parts) < _MOST_RESYNCS:
        frames = _records(body, start, dtype)
        bad = ~_plausible(frames)
        # A single damaged record leaves the next ones where they are.
        gone = np.flatnonzero(bad[:-1] & bad[1:])
        place = None if not len(gone) else _next_start(body, start + int(gone[0]) * dtype.itemsize, dtype)
        if place is None:
            break
        parts.append(frames[: gone[0]])
        start = place
    return [*parts, _records(body, start, dtype)]


def _next_start(body: bytes, after: int, dtype: np.dtype) -> int | None:
    """Where, within two records, records with a face and increasing times begin again."""
    for start in range(after + 1, after + 2 * dtype.itemsize):
        frames = _records(body, start, dtype, _RESYNC_RECORDS)
        if len(frames) < _RESYNC_RECORDS:
            return None
        with_face = frames["confidence"] > 0
        if with_face.all() and _plausible(frames).all() and (np.diff(frames["seconds"]) > 0).all():
            return start
    return None


def _plausible(frames: np.ndarray) -> np.ndarray:
    """(T,) bool: records that a tracker may have written."""
    seconds, confidence = frames["seconds"], frames["confidence"]
    with np.errstate(all="ignore"):  # bytes at random are numbers of any size
        rotation = frames["rotation"].astype(np.float64)
        error = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max((1, 2), initial=0)
        is_rotation = (error < _ROTATION_TOLERANCE) & (np.linalg.det(rotation) > 0)
        values = [frames[name].reshape(len(frames), -1) for name in ("translation", "expression", "light")]
        small = (np.abs(np.concatenate(values, axis=1)) < _LARGEST_VALUE).all(1)
        timely = np.abs(seconds) < _LATEST_S
        return (confidence >= 0) & (confidence <= 1) & ((confidence == 0) | is_rotation) & small & timely


def _increasing(seconds: np.ndarray) -> np.ndarray:
    """(T,) bool: a longest increasing part of the times."""
    ends: list[float] = []  # the least last time of the increasing parts of each length
    rank = np.zeros(len(seconds), np.int64)  # length of the longest part that ends here
    for index, value in enumerate(seconds.tolist()):
        if np.isfinite(value):
            place = bisect_left(ends, value)
            ends[place : place + 1] = [value]
            rank[index] = place + 1
    found, wanted, following = np.zeros(len(seconds), bool), len(ends), np.inf
    for index in range(len(seconds) - 1, -1, -1):
        if rank[index] == wanted > 0 and seconds[index] < following:
            found[index], following, wanted = True, seconds[index], wanted - 1
    return found
