"""One-euro filters: jitter is smoothed, fast movements pass.

The filters of finished tracks have zero phase: they run forwards and backwards, and the mean of both is taken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..fitting.state import FaceState

_SPEED_CUTOFF_HZ = 8.0  # Casiez et al. take 1, which is too slow for a blink


def smooth_values(values: np.ndarray, times_s: np.ndarray, cutoff_hz: float, beta: float) -> np.ndarray:
    """One-euro filter of values (T, K) at times (T,), each column by itself -> (T, K).

    Args:
        cutoff_hz: cut-off frequency at speed 0.
        beta: added cut-off frequency per unit of speed.
    Reference: Casiez et al. 2012, "1 Euro Filter", equations 2 to 9.
    """
    forwards = _filter_values(values, np.diff(times_s), cutoff_hz, beta)
    backwards = _filter_values(values[::-1], np.diff(times_s)[::-1], cutoff_hz, beta)[::-1]
    return (forwards + backwards) / 2


def smooth_rotations(rotations: Rotation, times_s: np.ndarray, cutoff_hz: float, beta: float) -> Rotation:
    """One-euro filter of T rotations; steps are taken in the tangent space, `beta` is per radian per second."""
    order = np.arange(len(times_s))[::-1]
    forwards = _filter_rotations(rotations, np.diff(times_s), cutoff_hz, beta)
    backwards = _filter_rotations(rotations[order], np.diff(times_s)[::-1], cutoff_hz, beta)[order]
    return forwards * Rotation.from_rotvec((forwards.inv() * backwards).as_rotvec() / 2)


def _filter_values(values: np.ndarray, steps_s: np.ndarray, cutoff_hz: float, beta: float) -> np.ndarray:
    result, speed = values.copy(), np.zeros(values.shape[1:])
    for i, dt in enumerate(steps_s, start=1):
        speed += _share(_SPEED_CUTOFF_HZ, dt) * ((values[i] - values[i - 1]) / dt - speed)
        result[i] = result[i - 1] + _share(cutoff_hz + beta * np.abs(speed), dt) * (values[i] - result[i - 1])
    return result


def _filter_rotations(rotations: Rotation, steps_s: np.ndarray, cutoff_hz: float, beta: float) -> Rotation:
    result = rotations.as_matrix()
    steps = (rotations[:-1].inv() * rotations[1:]).as_rotvec()
    current, speed = rotations[0], np.zeros(3)
    for i, dt in enumerate(steps_s, start=1):
        speed += _share(_SPEED_CUTOFF_HZ, dt) * (steps[i - 1] / dt - speed)
        share = _share(cutoff_hz + beta * np.linalg.norm(speed), dt)
        current = current * Rotation.from_rotvec(share * (current.inv() * rotations[i]).as_rotvec())
        result[i] = current.as_matrix()
    return Rotation.from_matrix(result)


def _share(cutoff_hz, dt: float):
    """Weight of the new value in an exponential filter with that cut-off frequency."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * dt))


class LiveFilter:
    """Causal one-euro filter of pose and expression, frame by frame.

    Args:
        rotation, translation, weights: least cut-off frequency in hertz, and hertz per unit of speed, of each.
    """

    def __init__(self, rotation: tuple[float, float], translation: tuple[float, float], weights: tuple[float, float]):
        self._settings = rotation, translation, weights
        self.reset()

    def reset(self) -> None:
        """Start anew with the next frame."""
        self._last: tuple[Rotation, np.ndarray, np.ndarray] | None = None  # filtered
        self._raw: tuple[Rotation, FaceState] | None = None
        self._speeds: list[np.ndarray] | None = None

    def __call__(self, state: FaceState, seconds: float, limits: np.ndarray) -> FaceState:
        """The state with filtered pose and expression.

        Args:
            seconds: of the frame.
            limits: (E, 2) of the weights.
        """
        rotation = Rotation.from_matrix(state.rotation)
        if self._last is None or self._raw is None or self._speeds is None:
            self._last, self._raw = (rotation, state.translation, state.expression), (rotation, state)
            self._speeds, self._seconds = [np.zeros(3), np.zeros(3), np.zeros(len(state.expression))], seconds
            return state
        dt, self._seconds = max(seconds - self._seconds, 1e-4), seconds
        raw_rotation, raw = self._raw
        steps = (
            (raw_rotation.inv() * rotation).as_rotvec(),
            state.translation - raw.translation,
            state.expression - raw.expression,
        )
        self._speeds = [v + _share(_SPEED_CUTOFF_HZ, dt) * (s / dt - v) for v, s in zip(self._speeds, steps)]
        (r, t, w), shares = self._last, []
        for (cutoff_hz, beta), speed in zip(self._settings, self._speeds):
            fast = np.linalg.norm(speed) if speed is self._speeds[0] else np.abs(speed)
            shares.append(_share(cutoff_hz + beta * fast, dt))
        r = r * Rotation.from_rotvec(shares[0] * (r.inv() * rotation).as_rotvec())
        t, w = t + shares[1] * (state.translation - t), w + shares[2] * (state.expression - w)
        self._last, self._raw = (r, t, w), (rotation, state)
        return replace(state, rotation=r.as_matrix(), translation=t, expression=np.clip(w, *limits.T))
