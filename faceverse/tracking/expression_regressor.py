"""Expression regressor: weights of a detected face, given the same person's neutral face; evaluated in NumPy.

The detector's scores depend on the person: one neutral mouth scores like another one's smile. A tracked person can be
compared with their own neutral face. `faceverse.training.expression_regressor` trains the network on synthetic clips;
tracking uses its output as the mean and the deviation of the expression prior.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..fitting.parameter_regressor import (
    LIMIT,
    MIRRORS,
    POINTS,
    POSE_VALUES,
    SCORES,
    AlignedInputs,
    aligned_inputs,
)
from ..landmarks import DetectedFace
from ..model.face_model import FaceModel
from ..weights import read_expression_regressor

# Arrays whose names in the file are those of its first version.
STORED_NAMES = {
    "neutral_points_mean": "rest_mean",
    "neutral_components": "rest_components",
    "neutral_inputs_mean": "usual_rest",
}
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "template": (POINTS, 3),
    "components": (3 * POINTS, "K"),
    "neutral_points_mean": (3 * POINTS,),
    "neutral_components": (3 * POINTS, "R"),
    "neutral_inputs_mean": (3 * POINTS + POSE_VALUES + SCORES,),
    "mean": (f"K + R + {2 * (POSE_VALUES + SCORES)}",),
    "deviation": (f"K + R + {2 * (POSE_VALUES + SCORES)}",),
    "hidden": (f"K + R + {2 * (POSE_VALUES + SCORES)}", "H"),
    "hidden_bias": ("H",),
    "output": ("H", "E"),
    "output_bias": ("E",),
    "direct": (f"K + R + {2 * (POSE_VALUES + SCORES)}", "E"),
    "mirrored_points": (POINTS,),
    "mirrored_scores": (SCORES,),
    "mirrored_expression": ("E",),
    "yaw_deg": ("B",),
    "sigma": ("B", "E"),
}


@dataclass(frozen=True)
class ExpressionRegressor:
    """One hidden layer with a linear skip connection, averaged over a face and its mirror image. NumPy float32.

    Args:
        template: (478, 3), see `ParameterRegressor`.
        components: (1434, K) principal components of the points less those of the neutral face.
        neutral_points_mean (1434,), neutral_components (1434, R): mean and components of the neutral face's points.
        neutral_inputs_mean: (1434 + P,) mean inputs of neutral faces, for a person whose neutral face is unknown.
        mean, deviation: (C,) of the features, see `features`.
        hidden (C, H), hidden_bias (H,), output (H, E), output_bias (E,), direct (C, E): the layers.
        mirrored_points (478,), mirrored_scores (51,), mirrored_expression (E,): index of each one's other side.
        yaw_deg: (B,) lower edge of each of B bins of yaw, ascending from 0.
        sigma: (B, E) standard deviation of the weights' errors in each bin.
    """

    template: np.ndarray
    components: np.ndarray
    neutral_points_mean: np.ndarray
    neutral_components: np.ndarray
    neutral_inputs_mean: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray
    direct: np.ndarray
    mirrored_points: np.ndarray
    mirrored_scores: np.ndarray
    mirrored_expression: np.ndarray
    yaw_deg: np.ndarray
    sigma: np.ndarray

    def inputs_of(self, face: DetectedFace, image_size: tuple[int, int]) -> AlignedInputs:
        """Network inputs of a detected face in an image of (height, width)."""
        return aligned_inputs(face, image_size, self.template)

    def predict(self, inputs: AlignedInputs, neutral: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the weights (E,) float64 of a face, and their standard deviations (E,).

        Args:
            inputs: of the frame.
            neutral: (1434 + P,) input values of the same person's neutral face; means over several frames are fine.
        """
        both = np.stack([inputs.values, self.mirrored(inputs.values)]), np.stack([neutral, self.mirrored(neutral)])
        own, reflected = self.evaluate(*both)
        expression = (own + reflected[self.mirrored_expression]) / 2
        place = np.searchsorted(self.yaw_deg, abs(inputs.yaw_deg), side="right") - 1
        return np.clip(expression, 0, 1).astype(np.float64), self.sigma[place].astype(np.float64)

    def evaluate(self, values: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        """The layers: input values (N, 1434 + P) of faces and of the same persons' neutral faces -> (N, E)."""
        features = self.standardised(values, neutral)
        hidden = np.maximum(features @ self.hidden + self.hidden_bias, 0)
        return hidden @ self.output + self.output_bias + features @ self.direct

    def standardised(self, values: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        """Features (N, C) of unit variance, clipped at LIMIT."""
        features = (self.features(values, neutral) - self.mean) / self.deviation
        return np.clip(features, -LIMIT, LIMIT).astype(np.float32)

    def features(self, values: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        """(N, C): components of the movement and of the neutral face, both poses, scores, and change of the scores."""
        count = self.template.size
        pose, scores = slice(count, count + POSE_VALUES), slice(count + POSE_VALUES, None)
        movement = (values[:, :count] - neutral[:, :count]) @ self.components
        shape = (neutral[:, :count] - self.neutral_points_mean) @ self.neutral_components
        change = values[:, scores] - neutral[:, scores]
        others = [values[:, pose], neutral[:, pose], values[:, scores], change]
        return np.concatenate([movement, shape, *others], axis=1).astype(np.float32)

    def mirrored(self, values: np.ndarray) -> np.ndarray:
        """Input values (..., 1434 + P) of the mirror image of a face."""
        count = self.template.size
        points = values[..., :count].reshape(*values.shape[:-1], -1, 3)[..., self.mirrored_points, :]
        flipped = (points * np.array([-1, 1, 1], np.float32)).reshape(*values.shape[:-1], -1)
        pose = values[..., count : count + POSE_VALUES] * _MIRRORED_POSE
        scores = values[..., count + POSE_VALUES :][..., self.mirrored_scores]
        return np.concatenate([flipped, pose, scores], axis=-1)


# The mirror image of a rotation matrix M is F M F with F = diag(-1, 1, 1); the offset from the image centre follows it
# as a vector.
_FLIP = np.array([-1, 1, 1], np.float32)
_MIRRORED_POSE = np.concatenate([np.outer(_FLIP, _FLIP).reshape(-1), _FLIP, np.ones(2, np.float32)])


def load_expression_regressor(model: FaceModel) -> ExpressionRegressor | None:
    """The expression regressor that was trained for a model, or None without one.

    Raises:
        WeightsError: its file is damaged.
    """
    names = {field.name: STORED_NAMES.get(field.name, field.name) for field in fields(ExpressionRegressor)}
    shapes = {names[name]: shape for name, shape in _SHAPES.items()}
    lengths = {"E": len(model.expression_names)}
    arrays = read_expression_regressor(model.info.get("sha256"), shapes, lengths, MIRRORS)
    if arrays is None:
        return None
    # The file stores half floats, with which products are slow.
    wide = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}
    return ExpressionRegressor(**{name: wide[stored] for name, stored in names.items()})
