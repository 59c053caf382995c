"""What a detected face does, given what it looks like at rest: a small learned network, evaluated in NumPy.

The detector sees people differently: somebody's resting mouth looks to it like another one's smile. Who is seen for a
while can be compared with himself. `faceverse.training.expression_regressor` learned from clips of known truth what has moved when
the detector's answer changes; tracking takes it as what to expect.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..fitting.parameter_regressor import LIMIT, AlignedInputs, aligned_inputs
from ..landmarks import DetectedFace
from ..model.face_model import FaceModel
from ..weights import read_expression_regressor

POSE_VALUES = 14  # numbers of pose among the inputs, see `start.aligned_inputs`


@dataclass(frozen=True)
class ExpressionRegressor:
    """One hidden layer beside a linear path; the mean of the answers to a face and to its mirror image. NumPy float32.

    Args:
        template: (478, 3), see `ParameterRegressor`.
        components (1434, K), rest_mean (1434,), rest_components (1434, R): of points less those at rest, and of these.
        mean, deviation: (C,) of all inputs behind the points' components.
        usual_rest: (1434 + P,) mean values of faces at rest, for who has not been seen there.
        hidden (C, H), hidden_bias (H,), output (H, E), output_bias (E,), direct (C, E): the layers; see `raw_inputs`
            for C.
        mirrored_points (478,), mirrored_scores (51,), mirrored_expression (E,): the number of each one's other side.
        yaw_deg: (B,) least turn of each of B bins, ascending from 0.
        sigma: (B, E) deviations of the weights' errors in each bin.
    """

    template: np.ndarray
    components: np.ndarray
    rest_mean: np.ndarray
    rest_components: np.ndarray
    usual_rest: np.ndarray
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

    def inputs_from(self, face: DetectedFace, image_size: tuple[int, int]) -> AlignedInputs:
        """A detected face as the network takes it."""
        return aligned_inputs(face, image_size, self.template)

    def predict(self, inputs: AlignedInputs, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (E,) float64 of a face, and their deviations (E,).

        Args:
            inputs: of the frame.
            rest: (1434 + P,) values of the same face at rest; means over several frames are fine.
        """
        both = np.stack([inputs.values, self.mirrored(inputs.values)]), np.stack([rest, self.mirrored(rest)])
        own, reflected = self.evaluate(*both)
        expression = (own + reflected[self.mirrored_expression]) / 2
        place = np.searchsorted(self.yaw_deg, abs(inputs.yaw_deg), side="right") - 1
        return np.clip(expression, 0, 1).astype(np.float64), self.sigma[place].astype(np.float64)

    def evaluate(self, now: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """The layers: values (N, 1434 + P) of faces and of the same at rest -> (N, E)."""
        inputs = self.inputs_of(now, rest)
        hidden = np.maximum(inputs @ self.hidden + self.hidden_bias, 0)
        return hidden @ self.output + self.output_bias + inputs @ self.direct

    def inputs_of(self, now: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(N, C) of unit variance, cut off at LIMIT, see `raw_inputs`."""
        inputs = (self.raw_inputs(now, rest) - self.mean) / self.deviation
        return np.clip(inputs, -LIMIT, LIMIT).astype(np.float32)

    def raw_inputs(self, now: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(N, C): what has moved, what rests, both poses, scores, and how these changed."""
        count = self.template.size
        pose, scores = slice(count, count + POSE_VALUES), slice(count + POSE_VALUES, None)
        moved = (now[:, :count] - rest[:, :count]) @ self.components
        resting = (rest[:, :count] - self.rest_mean) @ self.rest_components
        others = [now[:, pose], rest[:, pose], now[:, scores], now[:, scores] - rest[:, scores]]
        return np.concatenate([moved, resting, *others], axis=1).astype(np.float32)

    def mirrored(self, values: np.ndarray) -> np.ndarray:
        """Values (..., 1434 + P) of the mirror image of a face."""
        count = self.template.size
        points = values[..., :count].reshape(*values.shape[:-1], -1, 3)[..., self.mirrored_points, :]
        flipped = (points * np.float32([-1, 1, 1])).reshape(*values.shape[:-1], -1)
        pose = values[..., count : count + POSE_VALUES] * _MIRRORED_POSE
        scores = values[..., count + POSE_VALUES :][..., self.mirrored_scores]
        return np.concatenate([flipped, pose, scores], axis=-1)


# Of a rotation matrix M the mirror image is F M F with F = diag(-1, 1, 1); the place beside the middle is a vector.
_FLIP = np.array([-1, 1, 1], np.float32)
_MIRRORED_POSE = np.concatenate([np.outer(_FLIP, _FLIP).reshape(-1), _FLIP, np.ones(2, np.float32)])


def load_expression_regressor(model: FaceModel) -> ExpressionRegressor | None:
    """The network that was trained for a model, or None where there is none for this one.

    Raises:
        WeightsError: the network's file is damaged.
    """
    arrays = read_expression_regressor(model.info.get("sha256"))
    if arrays is None:
        return None
    # Half floats are for the file: a product with them is slow.
    wide = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}
    return ExpressionRegressor(**{field.name: wide[field.name] for field in fields(ExpressionRegressor)})
