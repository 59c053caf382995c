"""What is expected of identity and expression: where they lie before the picture is seen, and how surely."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..model.face_model import ARKIT_NAMES, FaceModel

SCORED_SIGMA = 0.15  # how far a weight may lie from the detector's score
GAZE_SIGMA = 0.35
# Scores that the detector is good at; without these the jaw and the gaze explain what lips and lids did.
SURE_SIGMA = {
    "jawOpen": 0.04, "jawLeft": 0.05, "jawRight": 0.05, "jawForward": 0.06, "mouthLeft": 0.08, "mouthRight": 0.08,
    "mouthClose": 0.10, "cheekPuff": 0.08, "tongueOut": 0.02, "eyeBlinkLeft": 0.08, "eyeBlinkRight": 0.08,
}  # fmt: skip
# Of these a learned start is believed. Mouths move in combinations that its portraits, drawn at random, do not have: it
# takes a smile that shows teeth for one with an open jaw, and the detector, which learned from people, knows better.
LEARNED = ("brow", "eye", "cheek", "nose")
UNSCORED_SIGMA = 1.0  # at most, and a sixth of the range where that is less
REFINED_SIGMA = 0.06  # of scored weights around the landmark stage's, when the picture is compared
REFINED_SHARE = 0.4  # the same for the others, as a share of their deviation in the landmark stage


@dataclass(frozen=True)
class ExpressionPrior:
    """Normal distributions of a model's expression weights, and the limits that cut them off. NumPy float64.

    Args:
        names: E names.
        scored: (E,) bool, True where the detector's score is the mean; elsewhere it is 0.
        limits: (E, 2) least and greatest weight.
        sigma: (E,) deviation around the mean.
        refined_sigma: (E,) deviation around the landmark stage's weights in the photometric stage.
    """

    names: tuple[str, ...]
    scored: np.ndarray
    limits: np.ndarray
    sigma: np.ndarray
    refined_sigma: np.ndarray

    def mean(self, scores: dict[str, float]) -> np.ndarray:
        """(E,) weights to expect with the detector's scores by name; 0 where it gives none."""
        expected = [scores.get(name, 0.0) if scored else 0.0 for name, scored in zip(self.names, self.scored)]
        return self.clipped(np.array(expected, np.float64))

    def surer(self, sigma: np.ndarray) -> np.ndarray:
        """(E,) bool, where a learned start with these deviations (E,) knows more than the detector's score."""
        learned = np.array([name.startswith(LEARNED) for name in self.names])
        return self.scored & learned & (sigma < self.sigma)

    def with_initial_estimate(self, sigma: np.ndarray) -> ExpressionPrior:
        """The prior with the deviations (E,) of a learned start where it is surer."""
        return replace(self, sigma=np.where(self.surer(sigma), sigma, self.sigma))

    def clipped(self, weights: np.ndarray) -> np.ndarray:
        """Weights (..., E) held within their limits."""
        return np.clip(weights, self.limits[:, 0], self.limits[:, 1])


@dataclass(frozen=True)
class IdentityPrior:
    """Normal distribution of the identity coefficients before the picture is seen. NumPy float64.

    Args:
        mean: (I,).
        precision: (I, I) inverse covariance.
    """

    mean: np.ndarray
    precision: np.ndarray

    @classmethod
    def of_anybody(cls, count: int) -> IdentityPrior:
        """What the model says: independent, mean 0, variance 1."""
        return cls(np.zeros(count), np.eye(count))

    def loss(self, identity: np.ndarray) -> float:
        """Half the squared distance (I,) in deviations."""
        off = identity - self.mean
        return 0.5 * float(off @ self.precision @ off)


def expression_prior(model: FaceModel) -> ExpressionPrior:
    """The prior of each expression; the only place where it is chosen.

    Blendshapes by ARKit's names follow the detector's scores. Of anything else (unnamed components of a statistic,
    eyeballs that turn) the detector knows nothing: such weights lie around 0, with the unit variance of a component,
    or three deviations within their limits where these are narrower.
    """
    names, limits = model.expression_names, model.expression_limits.astype(np.float64)
    scored = np.array([model.data.named_expressions and name in ARKIT_NAMES for name in names], bool)
    known = [SURE_SIGMA.get(name, GAZE_SIGMA if name.startswith("eyeLook") else SCORED_SIGMA) for name in names]
    free = np.minimum(UNSCORED_SIGMA, np.ptp(limits, axis=1) / 6)
    sigma = np.where(scored, known, np.maximum(free, 1e-6))
    return ExpressionPrior(names, scored, limits, sigma, np.where(scored, REFINED_SIGMA, REFINED_SHARE * sigma))
