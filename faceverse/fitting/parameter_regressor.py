"""What the detector's answer says about identity and expression: a small learned network, evaluated in NumPy.

The detector moves all faces towards its own mean, and differently from every side, which no hand-made correspondence
of points knows. `faceverse.training.parameter_regressor` learned from portraits of known truth what is behind its answers, and
how far off such a prediction is: a normal distribution of the identity to start from, in place of the population's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from ..graphics.camera import Camera, default_camera
from ..landmarks import BLENDSHAPE_NAMES, DetectedFace
from ..model.face_model import FaceModel
from ..weights import read_parameter_regressor

STORED_NAMES = {"error_modes": "habits"}  # files keep the name that the first version of the format gave these
LIMIT = 5.0  # deviations at which inputs are cut off: beyond, there was no training
SHARP_PX = 80.0  # pixels per unit of the template from which more pixels show the detector nothing more


@dataclass(frozen=True)
class InitialEstimate:
    """Normal distributions of a face's coefficients, given what the detector answered. NumPy float64.

    Args:
        identity: (I,) mean.
        covariance: (I, I) of the identity.
        expression: (E,) mean, within 0..1.
        expression_sigma: (E,) deviations.
        points_px: (478, 2) the detector's points without what it errs by in faces that are turned like this one.
        error_modes: (K, 478, 2) metres, ways in which it errs with many points at once.
        sigma: (478,) metres, deviation of single points.
    """

    identity: np.ndarray
    covariance: np.ndarray
    expression: np.ndarray
    expression_sigma: np.ndarray
    points_px: np.ndarray
    error_modes: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class ParameterRegressor:
    """One hidden layer beside a linear path; the mean of the answers to a face and to its mirror image. NumPy float32.

    Args:
        template: (478, 3) the mean head's landmarks, head space, centred, with a mean square length of 1.
        points_mean (1434,), components (1434, K): turned points to K independent numbers of unit variance.
        other_mean, other_deviation: (P,) of pose and scores.
        hidden (K + P, H), hidden_bias (H,), output (H, I + E), output_bias (I + E,), direct (K + P, I + E): the layers.
        mirrored_points (478,), mirrored_scores (51,), mirrored_expression (E,): the number of each one's other side.
        mirrored_identity (I, I), mirrored_offset (I,): coefficients of a head's mirror image from its own.
        yaw_deg: (B,) least turn of each of B bins, ascending from 0.
        covariance (B, I, I), expression_sigma (B, E): of the errors in each bin.
        unit_m: (1,) metres per unit of the template.
        turned_deg: (T,) turn to the subject's left for which the detector's errors are known, ascending from about 0.
        bias (T, 478, 2), habits (T, K, 478, 2), sigma (T, 478): metres, y up: its mean errors there, the commonest ways
            in which it errs with many points at once, and the deviation that is left of single points.
    """

    template: np.ndarray
    points_mean: np.ndarray
    components: np.ndarray
    other_mean: np.ndarray
    other_deviation: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray
    direct: np.ndarray
    mirrored_points: np.ndarray
    mirrored_scores: np.ndarray
    mirrored_expression: np.ndarray
    mirrored_identity: np.ndarray
    mirrored_offset: np.ndarray
    yaw_deg: np.ndarray
    covariance: np.ndarray
    expression_sigma: np.ndarray
    unit_m: np.ndarray
    turned_deg: np.ndarray
    bias: np.ndarray
    error_modes: np.ndarray
    sigma: np.ndarray

    def predict(self, face: DetectedFace, camera: Camera) -> InitialEstimate:
        """Identity and expression of a detected face.

        Args:
            face: as found in the photograph, in its pixels.
            camera: of the photograph; only its size is used, because the network was shown no focal lengths.
        """
        size = camera.image_size
        aligned = aligned_inputs(face, size, self.template)
        reflected = aligned_inputs(self.mirrored(face, size[1]), size, self.template)
        both = self.evaluate(np.stack([aligned.values, reflected.values]))
        identity, expression = self.mean_of_both(both[:1], both[1:])
        place = self.bin_of(aligned.yaw_deg)
        bias, error_modes, sigma = self.errors_at(aligned.yaw_deg)
        shift_px = bias * np.float32([1, -1]) * (aligned.scale / float(self.unit_m[0]))
        return InitialEstimate(
            identity[0].astype(np.float64),
            self.covariance[place].astype(np.float64),
            np.clip(expression[0], 0, 1).astype(np.float64),
            self.expression_sigma[place].astype(np.float64),
            (face.landmarks_px - shift_px).astype(np.float32),
            error_modes.astype(np.float64),
            sigma.astype(np.float64),
        )

    def errors_at(self, yaw_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The detector's bias (478, 2), habits (K, 478, 2) and deviations (478,) at a turn to either side.

        The bias is interpolated; the others are those of the nearest turn that is known.
        """
        turn = abs(float(yaw_deg))
        nearest = int(np.abs(self.turned_deg - turn).argmin())
        place = float(np.interp(turn, self.turned_deg, np.arange(len(self.turned_deg))))
        low, high = int(np.floor(place)), int(np.ceil(place))
        bias = (1 - (place - low)) * self.bias[low] + (place - low) * self.bias[high]
        if yaw_deg < 0:
            error_modes, sigma = self._mirrored_errors
            return bias[self.mirrored_points] * np.float32([-1, 1]), error_modes[nearest], sigma[nearest]
        return bias, self.error_modes[nearest], self.sigma[nearest]

    @cached_property
    def _mirrored_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """`error_modes` and `sigma` of turns to the other side."""
        other, flip = self.mirrored_points, np.float32([-1, 1])
        return np.take(self.error_modes, other, axis=2) * flip, self.sigma[:, other]

    def evaluate(self, values: np.ndarray) -> np.ndarray:
        """The layers: inputs (N, 1434 + P) -> (N, I + E), identity and expression."""
        inputs = self.standardised(values)
        hidden = np.maximum(inputs @ self.hidden + self.hidden_bias, 0)
        return hidden @ self.output + self.output_bias + inputs @ self.direct

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Inputs (N, 1434 + P) -> (N, K + P) of unit variance, cut off at LIMIT."""
        count = len(self.points_mean)
        points = (values[:, :count] - self.points_mean) @ self.components
        other = (values[:, count:] - self.other_mean) / self.other_deviation
        return np.clip(np.concatenate([points, other], axis=1), -LIMIT, LIMIT).astype(np.float32)

    def mean_of_both(self, own: np.ndarray, reflected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Identity (N, I) and expression (N, E) from the answers (N, I + E) to faces and to their mirror images."""
        count = len(self.mirrored_offset)
        identity = reflected[:, :count] @ self.mirrored_identity.T + self.mirrored_offset
        expression = reflected[:, count:][:, self.mirrored_expression]
        return (own[:, :count] + identity) / 2, (own[:, count:] + expression) / 2

    def mirrored(self, face: DetectedFace, width: float) -> DetectedFace:
        """The face in the mirror image of a photograph of this width."""
        points = face.landmarks_px[self.mirrored_points] * np.float32([-1, 1]) + np.float32([width, 0])
        scores = [face.blendshapes[name] for name in BLENDSHAPE_NAMES]
        return replace(
            face,
            landmarks_px=points,
            landmarks_depth=face.landmarks_depth[self.mirrored_points],
            blendshapes=dict(zip(BLENDSHAPE_NAMES, (scores[k] for k in self.mirrored_scores), strict=True)),
        )

    def bin_of(self, yaw_deg: np.ndarray | float) -> np.ndarray:
        """The bin of errors that a turn to either side falls into."""
        return np.searchsorted(self.yaw_deg, np.abs(yaw_deg), side="right") - 1


@dataclass(frozen=True)
class AlignedInputs:
    """What the network is shown of a face.

    Args:
        values: (1434 + P,) the turned points, then pose and scores.
        rotation: (3, 3) head to camera, by the detector's own depth.
        scale: pixels per unit of the template.
    """

    values: np.ndarray
    rotation: np.ndarray
    scale: float

    @property
    def yaw_deg(self) -> float:
        """Turn of the head, positive to the subject's left, -90..90."""
        return float(np.degrees(np.arcsin(np.clip(-self.rotation[2, 0], -1, 1))))


def aligned_inputs(face: DetectedFace, image_size: tuple[int, int], template: np.ndarray) -> AlignedInputs:
    """Points turned, moved and scaled onto the template by the detector's own depth, and how they had to be turned.

    Args:
        face: in pixels of the photograph.
        image_size: its height and width, which say how far from the middle and how large the face is in it.
        template: (478, 3), see `ParameterRegressor`.
    """
    points = np.column_stack([face.landmarks_px, face.landmarks_depth]).astype(np.float64) * (1, -1, -1)
    centre = points.mean(0)
    points -= centre
    u, _, vt = np.linalg.svd(points.T @ template)
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    rotated = points @ rotation
    scale = max(float((points**2).sum() / (rotated * template).sum()), 1e-6)
    camera = default_camera(image_size)
    middle = np.array(camera.principal_point_px)
    beside = np.append((centre[:2] * (1, -1) - middle) * (1, -1) / camera.focal_px, 0) @ rotation
    scores = [face.blendshapes.get(name, 0.0) for name in BLENDSHAPE_NAMES]
    pose = [*rotation.reshape(-1), *beside, np.log(scale / camera.focal_px), np.log(min(scale, SHARP_PX))]
    values = np.concatenate([(rotated / scale).reshape(-1), pose, scores])
    return AlignedInputs(values.astype(np.float32), rotation, scale)


def template_of(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Landmarks (478, 3) of a mean head, centred and scaled to a mean square length of 1; and metres per unit."""
    centred = np.asarray(points, np.float64) - np.mean(points, axis=0)
    unit_m = float(np.sqrt((centred**2).sum(1).mean()))
    return (centred / unit_m).astype(np.float32), unit_m


def load_parameter_regressor(model: FaceModel) -> ParameterRegressor | None:
    """The network that was trained for a model, or None where there is none for this one.

    Raises:
        WeightsError: the network's file is damaged.
    """
    arrays = read_parameter_regressor(model.info.get("sha256"))
    if arrays is None:
        return None
    names = [field.name for field in fields(ParameterRegressor)]
    return ParameterRegressor(**{name: arrays[STORED_NAMES.get(name, name)] for name in names})
