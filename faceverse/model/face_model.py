"""The linear face model and its parameters.

Dimensions: N batch, V vertices, F faces, L landmarks, U texture corners, I identity, E expression, A albedo;
H, W image.
Conventions (axes, units, colours): see camera.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ParameterError
from ..graphics.lighting import LUMINANCE, default_light
from ..graphics.mesh import topology_hash
from ..parts.beard import Beard
from ..parts.hair import Hair
from ..parts.part import DEFAULT_STYLES, PartLibrary
from .ages import at_age
from .correctives import corrective_weights
from .data import Landmarks, ModelData, modes_at, on_coarse_mesh
from .hair import with_random_hair
from .linear import LandmarkBases, evaluate, expression_gain, scaled

ARKIT_NAMES = tuple(
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft "
    "cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight "
    "eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft "
    "eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft "
    "mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight "
    "mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft "
    "mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft "
    "noseSneerRight tongueOut".split()
)
AGE_MODES, SEX_MODES = 2, 1  # of growth, of the open model: by age alone; by age, opposite for the sexes
GROWTH_MODES = AGE_MODES + SEX_MODES  # after the identity modes of adults; 0 for adults
SIMILAR_TONES = 0.1  # share of the population, ranked by luminance, from which `FaceModel.random` blends two skins


@dataclass(frozen=True)
class FaceParams:
    """Parameters of a head in one image. NumPy float32.

    Args:
        identity: (I,) coefficients of unit variance.
        expression: (E,) weights named by `FaceModel.expression_names`, in 0..1 (or `FaceModel.expression_limits`).
        albedo: (A,) coefficients of unit variance.
        rotation: (3, 3) head to camera, see camera.py.
        translation: (3,) metres.
        light: (9, 3) spherical harmonics, linear RGB, camera space.
        iris: (3,) colour of the iris, linear RGB.
        warp: (K, 3) metres, the person's own deformation of the mesh, see `warp.py`; (0, 3) for none.
        detail: latents of the detail module by name; empty where none was fitted.
        styles: slot -> style of the parts of the head, see `PartLibrary`; of no effect for models without parts.
        hair: colour and shape of the hair, if `styles` has any.
        beard: likewise of the beard.
    """

    identity: np.ndarray
    expression: np.ndarray
    albedo: np.ndarray
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    translation: np.ndarray = field(default_factory=lambda: np.array([0, 0, -0.6], dtype=np.float32))
    light: np.ndarray = field(default_factory=lambda: default_light().numpy())
    iris: np.ndarray = field(default_factory=lambda: np.array([0.09, 0.045, 0.02], dtype=np.float32))
    warp: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    detail: dict = field(default_factory=dict)
    styles: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_STYLES))
    hair: Hair = field(default_factory=Hair)
    beard: Beard = field(default_factory=Beard)

    def replace(self, **changes: Any) -> FaceParams:
        """A copy with some fields changed."""
        return replace(self, **changes)


# Iris colours, linear RGB, from common to rare; the pale ones occur with pale skin only.
DARK_IRISES = ((0.03, 0.015, 0.008), (0.06, 0.03, 0.013), (0.09, 0.045, 0.02))
PALE_IRISES = ((0.11, 0.075, 0.03), (0.10, 0.11, 0.06), (0.11, 0.14, 0.17))
PALE_SKIN = (0.30, 0.55)  # luminance of the albedo from which pale irises occur, and at which they are half of all


_MODES = ("identity_modes", "expression_modes", "albedo_modes")
# Arrays of `ModelData` that `FaceModel.tensor` gives.
TENSORS = ("mean_vertices", *_MODES[:2], "mean_albedo", _MODES[2], "expression_gain", "corrective_modes", "faces")


class FaceModel(nn.Module):
    """A linear face model: `vertices = mean + identity_modes @ identity + expression_modes @ (gain * expression)`,
    `albedo = mean_albedo + albedo_modes @ albedo` (Wang et al. 2022, equations 1 and 2).

    Models without a stored gain have a gain of 1, and the equation is the paper's. In the others the amplitude of each
    expression depends on the head, `gain = 1 + expression_gain @ identity` (see `gain`): the lids of large eyes move
    further to close. For one person the model stays linear in the expression.

    The model holds no optimisable parameters. Properties return the arrays of `data` as NumPy, `tensor` returns the
    same arrays under the same names as tensors on the model's device; both share their memory, and the modes are
    computed lazily. Build a model with `faceverse.load_model()`.

    Args:
        data: arrays and names.
        load_parts: finds the parts that fit the model's mesh, when they are needed; None for a model without parts.
    """

    _reference: Tensor

    def __init__(self, data: ModelData, load_parts: Callable[[FaceModel], PartLibrary | None] | None = None):
        super().__init__()
        self.data = data
        self._load_parts = load_parts
        self.name = data.name
        vertex_count = len(data.mean_vertices)
        for name in _MODES:
            modes = getattr(data, name)
            if modes.ndim != 3 or modes.shape[1:] != (vertex_count, 3):
                raise ParameterError("model.modes_shape", name=name, vertex_count=vertex_count, shape=modes.shape)
        gain = data.expression_gain
        if gain is not None and gain.shape != (len(data.expression_modes), len(data.identity_modes)):
            raise ParameterError(
                "model.gain_shape", expected=(len(data.expression_modes), len(data.identity_modes)), shape=gain.shape
            )
        self._tensors: dict[str, Tensor] = {}
        self.register_buffer("_reference", torch.zeros(()), persistent=False)  # has the model's device and dtype

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> FaceModel:
        """Move or convert the cached tensors too, for `to`, `double` and similar methods."""
        self._tensors = {name: function(tensor) for name, tensor in self._tensors.items()}
        return super()._apply(function, recurse)

    @property
    def device(self) -> torch.device:
        """Device of the model's tensors."""
        return self._reference.device

    def tensor(self, name: str) -> Tensor:
        """One of TENSORS on the model's device, created lazily and cached; shapes as of the properties.

        Raises:
            ParameterError: no such array, or this model has none (`expression_gain`).
        """
        if name not in self._tensors:
            array = getattr(self.data, name) if name in TENSORS else None
            if array is None:
                raise ParameterError("model.no_array", name=repr(name), known=", ".join(TENSORS))
            dtype = np.int64 if name == "faces" else np.float32
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(self.device)
            # Two threads that create the same tensor both get the first one.
            self._tensors.setdefault(name, tensor.to(self._reference.dtype) if tensor.is_floating_point() else tensor)
        return self._tensors[name]

    # -- arrays -------------------------------------------------------------------------------------------------------
    @property
    def mean_vertices(self) -> np.ndarray:
        """(V, 3) metres, head space."""
        return self.tensor("mean_vertices").numpy(force=True)

    @property
    def identity_modes(self) -> np.ndarray:
        """(I, V, 3) metres per unit of a unit-variance coefficient."""
        return self.tensor("identity_modes").numpy(force=True)

    @property
    def expression_modes(self) -> np.ndarray:
        """(E, V, 3) metres at weight 1."""
        return self.tensor("expression_modes").numpy(force=True)

    @property
    def mean_albedo(self) -> np.ndarray:
        """(V, 3) linear RGB."""
        return self.tensor("mean_albedo").numpy(force=True)

    @property
    def albedo_modes(self) -> np.ndarray:
        """(A, V, 3) linear RGB per unit of a unit-variance coefficient."""
        return self.tensor("albedo_modes").numpy(force=True)

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) vertex indices, counter-clockwise from outside."""
        return self.tensor("faces").numpy(force=True)

    @property
    def uv(self) -> np.ndarray:
        """(U, 2) texture coordinates in 0..1, origin top left; the first V rows belong to the vertices in order."""
        return self.data.uv

    @property
    def uv_faces(self) -> np.ndarray:
        """(F, 3) indices into `uv`, one for each corner of `faces`."""
        return self.data.uv_faces

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Names of the expression modes (ARKit's, in the open model)."""
        return self.data.expression_names

    @property
    def expression_limits(self) -> np.ndarray:
        """(E, 2) float32, least and greatest weight of each expression; 0 and 1 for blendshapes."""
        limits = self.data.expression_limits
        unit = np.array([0, 1], np.float32)
        return np.tile(unit, (len(self.data.expression_modes), 1)) if limits is None else limits

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Vertex indices by name: face, lips, eyelids, eyeballs, scalp, ears, neck, teeth, tongue, mouth_inside ..."""
        return self.data.regions

    @property
    def landmarks_478(self) -> Landmarks | None:
        """MediaPipe's 478 points on the surface; None for models without them."""
        return self.data.landmarks_478

    @property
    def landmarks_68(self) -> Landmarks:
        """The 68 points of the iBUG scheme on the surface."""
        return self.data.landmarks_68

    @property
    def fit_landmarks(self) -> Landmarks:
        """Landmarks for fitting: the 478 points, or the 68 of a model without them."""
        return self.data.landmarks_68 if self.data.landmarks_478 is None else self.data.landmarks_478

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes that `faceverse.edit` can change, such as age."""
        return tuple(a.name for a in self.data.attributes)

    @property
    def info(self) -> dict:
        """Provenance: sources, licence, seeds, figures."""
        return self.data.info

    @cached_property
    def coarse(self) -> FaceModel:
        """The model restricted to its coarse mesh (`data.coarse_vertices`); the model itself if it has none."""
        if self.data.coarse_faces is None:
            return self
        return FaceModel(on_coarse_mesh(self.data), lambda coarse: self.parts)

    @cached_property
    def parts(self) -> PartLibrary | None:
        """Teeth, tongue, eyes, lashes and brows that fit the model; None if it has none.

        Raises:
            WeightsError: the file of parts is damaged.
        """
        return None if self._load_parts is None else self._load_parts(self)

    @property
    def topology(self) -> str:
        """SHA-256 of the coarse mesh, or of the mesh if the model has no coarse one, to which parts belong."""
        vertices, faces = self.data.coarse_vertices, self.data.coarse_faces
        if vertices is None or faces is None:
            return topology_hash(len(self.mean_vertices), self.data.faces)
        return topology_hash(len(vertices), vertices[faces])

    @property
    def light_version(self) -> FaceModel:
        """Deprecated name of `coarse`."""
        warnings.warn("FaceModel.light_version is now FaceModel.coarse", DeprecationWarning, stacklevel=2)
        return self.coarse

    # -- the model ----------------------------------------------------------------------------------------------------
    def vertices(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """Evaluate head-space vertices: identity (N, I), expression (N, E) or None for neutral -> (N, V, 3) metres."""
        neutral = (self.tensor("mean_vertices"), (self.tensor("identity_modes"), identity))
        return evaluate(*neutral, *self.expression_terms(identity, expression))

    def expression_terms(self, identity: Tensor, expression: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        """Modes (M, V, 3) and their coefficients (N, M) that an expression (N, E) adds to heads (N, I): expressions,
        then correctives, where the model has them."""
        weights = scaled(expression, identity, self._gain_tensor)
        terms: list[tuple[Tensor, Tensor | None]] = [(self.tensor("expression_modes"), weights)]
        pairs = self.data.corrective_pairs
        if pairs is None or expression is None or expression.shape[-1] != len(self.data.expression_modes):
            return terms  # `evaluate` reports a wrong number of weights
        gain = None if self._gain_tensor is None else self.gain(identity)
        return [*terms, (self.tensor("corrective_modes"), corrective_weights(pairs, expression, gain))]

    def gain(self, identity: Tensor) -> Tensor:
        """Amplitude of each expression relative to the mean head: identity (N, I) -> (N, E), in GAIN_RANGE.

        Differentiable; ones for a model without gains.
        """
        gain = self._gain_tensor
        if gain is None:
            return identity.new_ones(len(identity), len(self.data.expression_modes))
        return expression_gain(gain, identity)

    @property
    def _gain_tensor(self) -> Tensor | None:
        """(E, I), or None for a model without gains."""
        return None if self.data.expression_gain is None else self.tensor("expression_gain")

    def gain_of(self, identity: np.ndarray) -> np.ndarray:
        """NumPy version of `gain` for one head: coefficients (I,) -> (E,) float32."""
        row = torch.from_numpy(np.array(identity, dtype=np.float32, ndmin=2)).to(self.device)
        return self.gain(row)[0].numpy(force=True)

    def expression_modes_of(self, identity: np.ndarray) -> np.ndarray:
        """Expression modes (E, V, 3) times their gains for the head with coefficients (I,), metres at weight 1."""
        return self.expression_modes * self.gain_of(identity)[:, None, None]

    def albedo(self, coefficients: Tensor) -> Tensor:
        """Linear RGB per vertex, not clipped: coefficients (N, A) -> (N, V, 3)."""
        return evaluate(self.tensor("mean_albedo"), (self.tensor("albedo_modes"), coefficients))

    def landmark_bases(self, landmarks: Landmarks) -> LandmarkBases:
        """Restrict the linear model to surface points; exact, because barycentric interpolation is linear."""
        used, place = np.unique(self.faces[landmarks.triangle], return_inverse=True)
        corners = torch.from_numpy(place.reshape(-1, 3)).to(self.device)
        weights = torch.from_numpy(landmarks.barycentric.astype(np.float32)).to(self.device)[..., None]
        mean_vertices = self.tensor("mean_vertices")[torch.from_numpy(used)]
        bases = mean_vertices, self.modes_at("identity_modes", used), self.modes_at("expression_modes", used)
        mean, identity, expression = ((values[..., corners, :] * weights).sum(-2) for values in bases)
        return LandmarkBases(mean, identity, expression, self._gain_tensor)

    def modes_at(self, name: str, vertices: np.ndarray) -> Tensor:
        """Modes (K, n, 3) of some vertices, without computing those of all.

        Args:
            name: "identity_modes", "expression_modes" or "albedo_modes".
            vertices: (n,) vertex indices.
        """
        cached = self._tensors.get(name)
        if cached is not None:
            return cached[:, torch.from_numpy(vertices)]
        return torch.from_numpy(modes_at(getattr(self.data, name), vertices)).to(self._reference)

    # -- values -------------------------------------------------------------------------------------------------------
    def neutral(self) -> FaceParams:
        """Parameters of the mean head without expression, 0.6 m in front of the camera."""
        identity, expression, albedo = (
            np.zeros(len(getattr(self.data, modes)), dtype=np.float32) for modes in _MODES
        )
        return FaceParams(identity, expression, albedo)

    def random(
        self,
        seed: int,
        *,
        age: float | None = None,
        scale: float = 1.0,
        similar_tone: bool = True,
        hair: bool = True,
        alike: bool | None = None,
    ) -> FaceParams:
        """Sample the parameters of a person, by default of an adult.

        With a stored population, the person resembles one of its heads, so that shape and skin are correlated, and skin
        tones have the population's distribution. Without one, all coefficients are independent and normal.

        Args:
            seed: same seed, same person.
            age: years, in the range of the attribute "age": the same person at this age.
            scale: standard deviations per coefficient; below 1 is closer to the mean head.
            similar_tone: blend the skin with one of similar tone, because a blend of pale and dark skin is neither.
                False blends with any skin, as in the training of the open files: the extremes are half as frequent.
            hair: whether the person gets hair that is usual for age and sex, where the model has any; False: bald.
            alike: deprecated name of `similar_tone`.
        """
        if alike is not None:
            warnings.warn("alike is now similar_tone", DeprecationWarning, stacklevel=2)
            similar_tone = alike
        generator = np.random.default_rng(seed)
        neutral, population = self.neutral(), self.data.population
        count = len(neutral.identity)
        identity = self.random_identity(generator)
        albedo = generator.standard_normal(len(neutral.albedo))
        if population is not None and len(population):
            number, other = generator.integers(len(population), size=2)
            first, second = population[number], population[self._similar(number, other) if similar_tone else other]
            identity = np.sqrt(0.7) * first[:count] + np.sqrt(0.3) * identity
            share = generator.uniform(0, 0.3)  # a convex combination of two skins is plausible, a random sum may not be
            albedo = (1 - share) * first[count:] + share * second[count:]
        albedo = (scale * albedo).astype(np.float32)
        iris = self._random_iris(albedo, generator)
        adult = neutral.replace(identity=(scale * identity).astype(np.float32), albedo=albedo, iris=iris)
        person = adult if age is None else at_age(self, adult, age)
        return with_random_hair(self, person, seed) if hair else person

    def random_identity(self, generator: np.random.Generator, others: np.ndarray | None = None) -> np.ndarray:
        """(I,) float64: independent normal coefficients. Those of growth are 0, as in adults, or those of `others`."""
        identity = np.zeros(len(self.identity_varies)) if others is None else others.astype(np.float64)
        identity[self.identity_varies] = generator.standard_normal(int(self.identity_varies.sum()))
        return identity

    @cached_property
    def identity_varies(self) -> np.ndarray:
        """(I,) bool, False for coefficients that are the same for all heads of the population, such as growth."""
        count, population = len(self.data.identity_modes), self.data.population
        spread = None if population is None or len(population) < 2 else np.ptp(population[:, :count], axis=0)
        return np.ones(count, bool) if spread is None else spread > 0

    def _similar(self, number: int, other: int) -> int:
        """Index of a skin of the population about as pale as skin `number`, chosen by any integer `other`."""
        order = self._luminance_order
        near = round(SIMILAR_TONES * len(order))
        step = other % (2 * near + 1) - near
        return order[np.clip(np.flatnonzero(order == number)[0] + step, 0, len(order) - 1)]

    @cached_property
    def _luminance_order(self) -> np.ndarray:
        """(P,) indices of the population's heads, from dark to pale skin."""
        count, population = len(self.data.identity_modes), self.data.population
        assert population is not None
        return np.argsort([self.skin_luminance(head[count:]) for head in population], kind="stable")

    @cached_property
    def _luminance_of_face(self) -> tuple[float, np.ndarray]:
        """Mean luminance of the mean face, and its change (A,) with each albedo coefficient."""
        skin = self.regions.get("face", np.arange(len(self.data.mean_vertices)))
        weights = np.array(LUMINANCE, np.float32)
        modes = self.modes_at("albedo_modes", skin).numpy(force=True)
        return float(self.mean_albedo[skin].mean(0) @ weights), modes.mean(1) @ weights

    def skin_luminance(self, albedo: np.ndarray) -> float:
        """Mean linear luminance of the face with albedo coefficients (A,)."""
        mean, change = self._luminance_of_face
        return mean + float(change @ albedo)

    def _random_iris(self, albedo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Linear RGB (3,): mostly brown; hazel, green or grey-blue for some people with pale skin."""
        luminance = self.skin_luminance(albedo)
        share = 0.5 * np.clip((luminance - PALE_SKIN[0]) / (PALE_SKIN[1] - PALE_SKIN[0]), 0, 1)
        colours = PALE_IRISES if generator.random() < share else DARK_IRISES
        return (np.array(colours[generator.integers(3)]) * generator.uniform(0.8, 1.2)).astype(np.float32)

    def attributes(self, params: FaceParams) -> dict[str, float]:
        """Estimate the named attributes (age in years, for example) of a head."""
        coefficients = np.concatenate([params.identity, params.albedo]).astype(np.float64)
        return {attribute.name: attribute.value(coefficients) for attribute in self.data.attributes}


def with_growth(identity: np.ndarray, model: FaceModel) -> np.ndarray:
    """Coefficients (I,) from a file that an edition of the model without modes of growth made: 0 for these.

    Others are returned unchanged.
    """
    missing = len(model.data.identity_modes) - len(identity) if identity.ndim == 1 else 0
    return np.pad(identity, (0, missing)) if missing == GROWTH_MODES else identity
