"""Parameter regressor: identity and expression from a detected face, with uncertainties, by a small network in NumPy.

The landmark detector is biased towards its mean face, and the bias depends on the yaw of the head; a fixed
correspondence of landmarks cannot express that. `faceverse.training.parameter_regressor` learns from synthetic
portraits with known parameters to regress identity and expression from the detector's output, and estimates the
covariance of its own errors. The fit uses the prediction as its prior in place of the population's, and the detector's
bias, error modes and noise at the yaw of the face as its error model of the landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from ..graphics.camera import Camera, default_camera
from ..landmarks import BLENDSHAPE_NAMES, DetectedFace
from ..model.face_model import FaceModel
from ..weights import read_parameter_regressor

STORED_NAMES = {"error_modes": "habits"}  # names of version 1 of the file format, which files keep
LIMIT = 5.0  # standard deviations to which inputs are clipped: the training data end there
SHARP_PX = 80.0  # pixels per unit of the template; the detector gains nothing from higher resolution
POINTS, SCORES, POSE_VALUES = 478, len(BLENDSHAPE_NAMES), 14  # of a detected face; pose as in `aligned_inputs`
MIRRORS = ("mirrored_points", "mirrored_scores", "mirrored_expression")  # arrays of indices
_OTHER = POSE_VALUES + SCORES
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "template": (POINTS, 3),
    "points_mean": (3 * POINTS,),
    "components": (3 * POINTS, "K"),
    "other_mean": (_OTHER,),
    "other_deviation": (_OTHER,),
    "hidden": (f"K + {_OTHER}", "H"),
    "hidden_bias": ("H",),
    "output": ("H", "I + E"),
    "output_bias": ("I + E",),
    "direct": (f"K + {_OTHER}", "I + E"),
    "mirrored_points": (POINTS,),
    "mirrored_scores": (SCORES,),
    "mirrored_expression": ("E",),
    "mirrored_identity": ("I", "I"),
    "mirrored_offset": ("I",),
    "yaw_deg": ("B",),
    "covariance": ("B", "I", "I"),
    "expression_sigma": ("B", "E"),
    "unit_m": (1,),
    "turned_deg": ("T",),
    "bias": ("T", POINTS, 2),
    "error_modes": ("T", "M", POINTS, 2),
    "sigma": ("T", POINTS),
}


@dataclass(frozen=True)
class InitialEstimate:
    """Normal distributions of a face's coefficients given the detector's output, and its error model. NumPy float64.

    Args:
        identity: (I,) mean.
        covariance: (I, I) of the identity.
        expression: (E,) mean, within 0..1.
        expression_sigma: (E,) standard deviations.
        points_px: (478, 2) the detected landmarks minus the detector's bias at the yaw of this face.
        error_modes: (K, 478, 2) metres, correlated error modes of the detector, scaled by their standard deviations.
        sigma: (478,) metres, standard deviation of each landmark's independent error.
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
    """Network with one hidden layer and a linear skip connection, averaged over a face and its mirror image. NumPy.

    Args:
        template: (478, 3) the mean head's landmarks, head space, centred, with a mean square length of 1.
        points_mean (1434,), components (1434, K): PCA whitening of the aligned points.
        other_mean, other_deviation: (P,) mean and standard deviation of pose and scores.
        hidden (K + P, H), hidden_bias (H,), output (H, I + E), output_bias (I + E,), direct (K + P, I + E): the layers.
        mirrored_points (478,), mirrored_scores (51,), mirrored_expression (E,): index of each one's mirrored partner.
        mirrored_identity (I, I), mirrored_offset (I,): coefficients of a head's mirror image from its own.
        yaw_deg: (B,) least absolute yaw of each of B bins, ascending from 0.
        covariance (B, I, I), expression_sigma (B, E): of the prediction's errors in each bin.
        unit_m: (1,) metres per unit of the template.
        turned_deg: (T,) yaw angles, to the subject's left, of the detector's error model, ascending from about 0.
        bias (T, 478, 2), error_modes (T, K, 478, 2), sigma (T, 478): metres, y up: the detector's mean error at each
            yaw, the principal modes of its correlated errors, and the residual standard deviation of each landmark.
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
        """Regress identity and expression of a detected face.

        Args:
            face: as detected, in pixels of the photograph.
            camera: of the photograph; only its image size is used, because focal length is no input of the network.
        """
        size = camera.image_size
        aligned = aligned_inputs(face, size, self.template)
        reflected = aligned_inputs(self.mirrored(face, size[1]), size, self.template)
        both = self.evaluate(np.stack([aligned.values, reflected.values]))
        identity, expression = self.mean_of_both(both[:1], both[1:])
        yaw_bin = self.bin_of(aligned.yaw_deg)
        bias, error_modes, sigma = self.errors_at(aligned.yaw_deg)
        shift_px = bias * np.array([1, -1], np.float32) * (aligned.scale / float(self.unit_m[0]))
        return InitialEstimate(
            identity[0].astype(np.float64),
            self.covariance[yaw_bin].astype(np.float64),
            np.clip(expression[0], 0, 1).astype(np.float64),
            self.expression_sigma[yaw_bin].astype(np.float64),
            (face.landmarks_px - shift_px).astype(np.float32),
            error_modes.astype(np.float64),
            sigma.astype(np.float64),
        )

    def errors_at(self, yaw_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error model of the detector at a yaw: bias (478, 2), error modes (K, 478, 2), standard deviations (478,).

        The bias is interpolated linearly; modes and standard deviations are those of the nearest known yaw.
        """
        yaw = abs(float(yaw_deg))
        nearest = int(np.abs(self.turned_deg - yaw).argmin())
        position = float(np.interp(yaw, self.turned_deg, np.arange(len(self.turned_deg))))
        low, high = int(np.floor(position)), int(np.ceil(position))
        bias = (1 - (position - low)) * self.bias[low] + (position - low) * self.bias[high]
        if yaw_deg < 0:
            error_modes, sigma = self._mirrored_errors
            return bias[self.mirrored_points] * np.array([-1, 1], np.float32), error_modes[nearest], sigma[nearest]
        return bias, self.error_modes[nearest], self.sigma[nearest]

    @cached_property
    def _mirrored_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """`error_modes` and `sigma` for yaw to the subject's right."""
        other, flip = self.mirrored_points, np.array([-1, 1], np.float32)
        return np.take(self.error_modes, other, axis=2) * flip, self.sigma[:, other]

    def evaluate(self, values: np.ndarray) -> np.ndarray:
        """Evaluate the layers: inputs (N, 1434 + P) -> identity and expression (N, I + E)."""
        inputs = self.standardised(values)
        hidden = np.maximum(inputs @ self.hidden + self.hidden_bias, 0)
        return hidden @ self.output + self.output_bias + inputs @ self.direct

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Standardise inputs (N, 1434 + P) -> (N, K + P): unit variance, clipped to +-LIMIT."""
        count = len(self.points_mean)
        points = (values[:, :count] - self.points_mean) @ self.components
        other = (values[:, count:] - self.other_mean) / self.other_deviation
        return np.clip(np.concatenate([points, other], axis=1), -LIMIT, LIMIT).astype(np.float32)

    def mean_of_both(self, own: np.ndarray, reflected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average outputs (N, I + E) for faces and their mirror images: identity (N, I) and expression (N, E)."""
        count = len(self.mirrored_offset)
        identity = reflected[:, :count] @ self.mirrored_identity.T + self.mirrored_offset
        expression = reflected[:, count:][:, self.mirrored_expression]
        return (own[:, :count] + identity) / 2, (own[:, count:] + expression) / 2

    def mirrored(self, face: DetectedFace, width: float) -> DetectedFace:
        """The detected face in the mirror image of a photograph of this width in pixels."""
        flip, shift = np.array([-1, 1], np.float32), np.array([width, 0], np.float32)
        points = face.landmarks_px[self.mirrored_points] * flip + shift
        scores = [face.blendshapes[name] for name in BLENDSHAPE_NAMES]
        return replace(
            face,
            landmarks_px=points,
            landmarks_depth=face.landmarks_depth[self.mirrored_points],
            blendshapes=dict(zip(BLENDSHAPE_NAMES, (scores[k] for k in self.mirrored_scores), strict=True)),
        )

    def bin_of(self, yaw_deg: np.ndarray | float) -> np.ndarray:
        """Index of the yaw bin, to either side."""
        return np.searchsorted(self.yaw_deg, np.abs(yaw_deg), side="right") - 1


@dataclass(frozen=True)
class AlignedInputs:
    """Inputs of the network for one face.

    Args:
        values: (1434 + P,) the aligned points, then pose and blendshape scores.
        rotation: (3, 3) head to camera, estimated with the detector's depth.
        scale: pixels per unit of the template.
    """

    values: np.ndarray
    rotation: np.ndarray
    scale: float

    @property
    def yaw_deg(self) -> float:
        """Yaw of the head, positive to the subject's left, -90..90."""
        return float(np.degrees(np.arcsin(np.clip(-self.rotation[2, 0], -1, 1))))


def aligned_inputs(face: DetectedFace, image_size: tuple[int, int], template: np.ndarray) -> AlignedInputs:
    """Align the landmarks to the template by a similarity transform in 3D, with the detector's depth.

    Args:
        face: in pixels of the photograph.
        image_size: its height and width, to which position and size of the face are relative.
        template: (478, 3), see `ParameterRegressor`.

    Reference: Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".
    """
    points = np.column_stack([face.landmarks_px, face.landmarks_depth]).astype(np.float64) * (1, -1, -1)
    centre = points.mean(0)
    points -= centre
    u, _, vt = np.linalg.svd(points.T @ template)
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    rotated = points @ rotation
    scale = max(float((points**2).sum() / (rotated * template).sum()), 1e-6)
    camera = default_camera(image_size)
    principal_point = np.array(camera.principal_point_px)
    offset = np.append((centre[:2] * (1, -1) - principal_point) * (1, -1) / camera.focal_px, 0) @ rotation
    scores = [face.blendshapes.get(name, 0.0) for name in BLENDSHAPE_NAMES]
    pose = [*rotation.reshape(-1), *offset, np.log(scale / camera.focal_px), np.log(min(scale, SHARP_PX))]
    values = np.concatenate([(rotated / scale).reshape(-1), pose, scores])
    return AlignedInputs(values.astype(np.float32), rotation, scale)


def template_of(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre landmarks (478, 3) and scale them to a mean square length of 1; return them and metres per unit."""
    centred = np.asarray(points, np.float64) - np.mean(points, axis=0)
    unit_m = float(np.sqrt((centred**2).sum(1).mean()))
    return (centred / unit_m).astype(np.float32), unit_m


def load_parameter_regressor(model: FaceModel) -> ParameterRegressor | None:
    """Load the regressor that was trained for a model; None if there is none.

    Raises:
        WeightsError: the file of the network is damaged.
    """
    names = {field.name: STORED_NAMES.get(field.name, field.name) for field in fields(ParameterRegressor)}
    shapes = {names[name]: shape for name, shape in _SHAPES.items()}
    lengths = {"I": len(model.data.identity_modes), "E": len(model.expression_names)}
    arrays = read_parameter_regressor(model.info.get("sha256"), shapes, lengths, MIRRORS)
    return None if arrays is None else ParameterRegressor(**{name: arrays[stored] for name, stored in names.items()})
