"""Prior distributions of identity and expression: normal distributions, and bounds on the expression weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..model.face_model import ARKIT_NAMES, FaceModel

BLENDSHAPE_SIGMA = 0.15  # standard deviation of a weight around the detector's score
GAZE_SIGMA = 0.35
# Scores that the detector estimates well. With wider ones, jaw and gaze would explain movements of lips and lids.
RELIABLE_SIGMA = {
    "jawOpen": 0.04, "jawLeft": 0.05, "jawRight": 0.05, "jawForward": 0.06, "mouthLeft": 0.08, "mouthRight": 0.08,
    "mouthClose": 0.10, "cheekPuff": 0.08, "tongueOut": 0.02, "eyeBlinkLeft": 0.08, "eyeBlinkRight": 0.08,
}  # fmt: skip
# Groups whose weights come from the parameter regressor where it is more certain than the detector's score. The mouth
# is not among them: real mouths move in combinations that the regressor's randomly drawn training portraits lack. It
# takes a smile that shows teeth for an open jaw; the detector was trained on people and is right more often.
REGRESSED_GROUPS = ("brow", "eye", "cheek", "nose")
MAX_UNSCORED_SIGMA = 1.0  # or a sixth of the range between the limits where that is less
REFINED_SIGMA = 0.06  # of scored weights in the photometric stage, around those of the landmark stage
REFINED_SHARE = 0.4  # of the landmark stage's standard deviation, for weights without a score in the photometric stage


@dataclass(frozen=True)
class ExpressionPrior:
    """Truncated normal distributions of a model's expression weights. NumPy float64.

    Args:
        names: of the E expressions.
        scored: (E,) bool, True where the mean is the detector's blendshape score; elsewhere the mean is 0.
        limits: (E, 2) least and greatest weight.
        sigma: (E,) standard deviation around the mean, in the landmark stage.
        refined_sigma: (E,) standard deviation around the landmark stage's weights, in the photometric stage.
    """

    names: tuple[str, ...]
    scored: np.ndarray
    limits: np.ndarray
    sigma: np.ndarray
    refined_sigma: np.ndarray

    def mean(self, scores: dict[str, float]) -> np.ndarray:
        """(E,) mean weights for the detector's blendshape scores, 0..1 by name; 0 where there is no score."""
        expected = [scores.get(name, 0.0) if scored else 0.0 for name, scored in zip(self.names, self.scored)]
        return self.clipped(np.array(expected, np.float64))

    def prefers_estimate(self, sigma: np.ndarray) -> np.ndarray:
        """(E,) bool, where a regressed weight with these standard deviations (E,) replaces the detector's score."""
        regressed = np.array([name.startswith(REGRESSED_GROUPS) for name in self.names])
        return self.scored & regressed & (sigma < self.sigma)

    def with_initial_estimate(self, sigma: np.ndarray) -> ExpressionPrior:
        """Return the prior with the standard deviations (E,) of regressed weights where `prefers_estimate` is True."""
        return replace(self, sigma=np.where(self.prefers_estimate(sigma), sigma, self.sigma))

    def clipped(self, weights: np.ndarray) -> np.ndarray:
        """Clip weights (..., E) to their limits."""
        return np.clip(weights, self.limits[:, 0], self.limits[:, 1])


@dataclass(frozen=True)
class IdentityPrior:
    """Multivariate normal prior of the identity coefficients. NumPy float64.

    Args:
        mean: (I,).
        precision: (I, I) inverse of the covariance.
    """

    mean: np.ndarray
    precision: np.ndarray

    @classmethod
    def of_population(cls, count: int) -> IdentityPrior:
        """The population's distribution, to which the model's modes are scaled: independent, mean 0, variance 1."""
        return cls(np.zeros(count), np.eye(count))

    def loss(self, identity: np.ndarray) -> float:
        """Half the squared Mahalanobis distance of coefficients (I,) from the mean."""
        off = identity - self.mean
        return 0.5 * float(off @ self.precision @ off)


def expression_prior(model: FaceModel) -> ExpressionPrior:
    """Build the prior of a model's expression weights.

    Blendshapes with ARKit's names have the detector's scores as means. The detector has no score for other weights
    (principal components without names, rotations of the eyeballs): their mean is 0 and their variance that of a unit
    component, or such that three standard deviations lie within the limits where these are narrower.
    """
    names, limits = model.expression_names, model.expression_limits.astype(np.float64)
    scored = np.array([model.data.named_expressions and name in ARKIT_NAMES for name in names], bool)
    known = [RELIABLE_SIGMA.get(name, GAZE_SIGMA if name.startswith("eyeLook") else BLENDSHAPE_SIGMA) for name in names]
    free = np.minimum(MAX_UNSCORED_SIGMA, np.ptp(limits, axis=1) / 6)
    sigma = np.where(scored, known, np.maximum(free, 1e-6))
    return ExpressionPrior(names, scored, limits, sigma, np.where(scored, REFINED_SIGMA, REFINED_SHARE * sigma))
