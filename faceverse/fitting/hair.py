"""Hair of a fitted head: style and shape from the outline of the hair in the photograph, colour from its pixels.

Every style of the model's library is drawn as the photograph would show it and compared with the pixels that show
hair. The best ones are shortened or lengthened, their parting is tried on the other side, and their outline is brought
onto the observed one (`hair_outline`). A style that needs less bending wins against one that needs more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter

from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..model.face_model import FaceModel, FaceParams
from ..parts.hair import Hair
from ..parts.hair_clearance import HeadSurface
from ..parts.hair_shape import hair_vertices, mirrored_part
from ..parts.hair_styles import HAIR_STYLES, hair_slots, with_hair_style
from ..parts.part import Part
from ..rendering.render import render
from ..result import FitResult
from ..segmentation import Segmentation
from .hair_outline import (
    DrawnHair,
    HairObservation,
    OutlineSolver,
    agreement,
    draw_hair,
    hidden_volume,
    solid_faces,
)
from .photometric import crop_photo

LENGTHS = (0.6, 0.8, 1.25, 1.6)  # factors that are tried
MESHES = 5  # whose styles are all tried
SHORTLIST = 5  # styles whose length and outline are brought onto the photograph's
OUTLINE_STEPS = 5
CROP_PX = 128  # side of the crop in which outlines are compared
STRAND_PX, LOCK_PX, LEAST_STRANDS_PX = 1.0, 5.0, 150  # in the labelled crop: blur, window, pixels that tell curls
CLOTHES_WEIGHT, FACE_WEIGHT = 0.4, 2.0  # of pixels, see `HairObservation`
LEAST_COLOUR_PX = 30  # pixels that tell a colour
GREY = Hair(color=(0.5, 0.5, 0.5))  # with which the hair is drawn to learn how bright its pixels come out
BENDING_COST = 2.0  # agreement per metre of mean displacement
CURLY = 0.5  # coherence of the hair's texture below which it is curly
CURLS_COST = 1.5  # agreement per unit of coherence on the wrong side of that
HIDDEN_COST = 3.0  # agreement per metre of `hidden_volume`
BALD_SHARE = 0.10  # of the scalp that the photograph shows: less hair than that is none


@dataclass(frozen=True)
class HairView:
    """A photograph of a person and the head that was fitted to it.

    Attributes:
        head: without hair; of any texture.
        photo: (H, W, 3) uint8 sRGB.
        labels: of the photograph.
        camera: in pixels of `photo`.
    """

    head: FitResult
    photo: np.ndarray
    labels: Segmentation
    camera: Camera

    @property
    def box_px(self) -> tuple[float, float, float, float]:
        """The labelled crop."""
        x0, y0, x1, y1 = (float(value) for value in self.labels.box_px)
        return x0, y0, x1, y1


@dataclass(frozen=True)
class FittedHair:
    """Outcome of `fit_hair`.

    Attributes:
        style: a name in `HAIR_STYLES`.
        hair: its shape; colours are those that were given.
        mask: (S, S) bool, where the photograph would show it.
        agreement: weighted intersection over union of the hair in the photograph's view.
    """

    style: str
    hair: Hair
    mask: np.ndarray
    agreement: float


@dataclass(frozen=True)
class _Candidate:
    """A style with a shape, and how well it agrees."""

    style: str
    part: Part | None
    below: np.ndarray
    hair: Hair
    drawn: DrawnHair | None
    agreement: float
    hidden: float = 0.0
    unlikely: float = 0.0

    @property
    def score(self) -> float:
        return self.plain_score - BENDING_COST * float(np.linalg.norm(self.hair.warp, axis=1).mean())

    @property
    def plain_score(self) -> float:
        """The agreement, less what speaks against hair of which the photograph shows nothing."""
        return self.agreement - HIDDEN_COST * self.hidden - self.unlikely


class _Fit:
    """Candidates on one head, before one photograph."""

    def __init__(self, observed: HairObservation, model: FaceModel, neutral: np.ndarray):
        self.observed, self.neutral = observed, neutral
        self.surface = HeadSurface.of(neutral, model.faces, model.regions)
        assert model.parts is not None
        self.library = model.parts
        self.scalps: dict[str, np.ndarray] = {}
        self.faces: dict[str, np.ndarray] = {}
        scalp = neutral[model.regions["scalp"]]
        self.centre = (scalp.min(0) + scalp.max(0)) / 2

    def has(self, style: str) -> bool:
        """Whether the library has the parts of a style."""
        return all(name in self.library.styles(slot) for slot, name in hair_slots(style).items())

    def candidate(self, style: str, hair: Hair) -> _Candidate:
        """A style with a shape."""
        slots = hair_slots(style)
        below = self.scalp_mask(slots["scalp"]) if "scalp" in slots else np.zeros_like(self.observed.hair)
        if "hair" not in slots:
            return _Candidate(style, None, below, hair, None, agreement(self.observed, below))
        part = self.library.get("hair", slots["hair"])
        if hair.mirrored:
            part = mirrored_part(part)
        return self.drawn(style, part, below, hair)

    def drawn(
        self, style: str, part: Part, below: np.ndarray, hair: Hair, *, is_exact: bool = False
    ) -> _Candidate:
        """A style that is drawn; without `is_exact` it may enter the head, which is faster."""
        vertices = hair_vertices(part, hair, self.neutral, self.surface if is_exact else None)
        drawn = draw_hair(self.observed, vertices, self.solid(part), below)
        hidden = hidden_volume(self.observed, drawn, vertices, self.centre)
        agreed = agreement(self.observed, drawn.mask)
        return _Candidate(style, part, below, hair, drawn, agreed, hidden, self.unlikeliness(style))

    def unlikeliness(self, style: str) -> float:
        """What speaks against a curly style for straight hair, and the other way round; and against rare styles."""
        excess, worn = self.observed.coherence - CURLY, HAIR_STYLES[style]
        return worn.rarity + CURLS_COST * max(0.0, excess if worn.is_curly else -excess)

    def solid(self, part: Part) -> np.ndarray:
        """(F, 3) faces that cover."""
        if part.name not in self.faces:
            self.faces[part.name] = solid_faces(part)
        return self.faces[part.name]

    def scalp_mask(self, style: str) -> np.ndarray:
        """(S, S) bool, where the short hairs of a style of the scalp show."""
        if style not in self.scalps:
            part = self.library.get("scalp", style)
            vertices = part.binding.place(self.neutral)
            self.scalps[style] = draw_hair(self.observed, vertices, solid_faces(part)).strands
        return self.scalps[style]

    def changed(self, candidate: _Candidate, *, is_exact: bool = False, **changes) -> _Candidate:
        assert candidate.part is not None
        hair = candidate.hair.replace(**changes)
        return self.drawn(candidate.style, candidate.part, candidate.below, hair, is_exact=is_exact)

    def with_length(self, candidate: _Candidate) -> _Candidate:
        """The best of some lengths."""
        tried = [self.changed(candidate, length=length) for length in LENGTHS]
        return max([candidate, *tried], key=lambda one: one.plain_score)

    def with_outline(self, candidate: _Candidate) -> _Candidate:
        """The outline brought onto the observed one, as far as that helps."""
        assert candidate.part is not None
        solver = OutlineSolver(candidate.part, self.solid(candidate.part))
        candidate = best = self.changed(candidate, is_exact=True)
        for _ in range(OUTLINE_STEPS):
            assert candidate.drawn is not None
            warp = solver.step(self.observed, candidate.drawn, candidate.hair.warp)
            candidate = self.changed(candidate, is_exact=True, warp=warp)
            if candidate.score > best.score:
                best = candidate
        return best


def fit_hair(observed: HairObservation, model: FaceModel, neutral: np.ndarray, hair: Hair | None = None) -> FittedHair:
    """Choose the style and the shape of the hair that a photograph shows.

    Args:
        observed: the photograph's hair.
        model: with hair styles among its parts.
        neutral: (V, 3) of the person, metres.
        hair: colours to keep.
    """
    start, fit = hair or Hair(), _Fit(observed, model, neutral)
    by_mesh: dict[str | None, list[str]] = {}
    for style in HAIR_STYLES:
        if fit.has(style):
            by_mesh.setdefault(HAIR_STYLES[style].mesh, []).append(style)
    plain = max((fit.candidate(style, start) for style in by_mesh.pop(None)), key=lambda one: one.score)
    # Styles that share a mesh are alike: only those of the best meshes are tried one by one.
    drawn = [fit.candidate(styles[0], start) for styles in by_mesh.values()]
    best_meshes = [HAIR_STYLES[one.style].mesh for one in sorted(drawn, key=lambda one: -one.plain_score)[:MESHES]]
    drawn += [fit.candidate(style, start) for mesh in best_meshes for style in by_mesh[mesh][1:]]
    strands = [fit.with_length(one) for one in sorted(drawn, key=lambda one: -one.plain_score)[:SHORTLIST]]
    twins = [fit.candidate(one.style, one.hair.replace(mirrored=not one.hair.mirrored)) for one in strands]
    strands = [max(pair, key=lambda one: one.plain_score) for pair in zip(strands, twins, strict=True)]
    best = max((plain, *(fit.with_outline(one) for one in strands)), key=lambda one: one.score)
    mask = best.below if best.drawn is None else best.drawn.mask
    return FittedHair(best.style, best.hair, mask, best.agreement)


def hair_coherence(luminance: np.ndarray, hair: np.ndarray) -> float:
    """How parallel the strands lie: 1 all alike .. 0 without direction; NaN where too little is seen.

    Reference: the coherence of the structure tensor, Weickert 1999, "Coherence-enhancing diffusion filtering".

    Args:
        luminance: (S, S) of the crop.
        hair: (S, S) bool.
    """
    down, across = np.gradient(gaussian_filter(luminance, STRAND_PX))
    xx, yy, xy = (gaussian_filter(product, LOCK_PX) for product in (across * across, down * down, across * down))
    inner = next((m for n in (8, 3) if (m := binary_erosion(hair, iterations=n)).sum() >= LEAST_STRANDS_PX), None)
    energy = 0.0 if inner is None else float((xx + yy)[inner].sum())
    return float(np.hypot(xx - yy, 2 * xy)[inner].sum()) / energy if energy > 0 else float("nan")


def observe_hair(view: HairView) -> HairObservation:
    """The hair of a photograph and the head that was fitted to it, in a small crop."""
    labels, head = view.labels, view.head
    step = len(labels.labels) // CROP_PX

    def share(values: np.ndarray) -> np.ndarray:
        """(CROP_PX, CROP_PX) means of a map of the labelled crop."""
        values = values[: step * CROP_PX, : step * CROP_PX]
        return values.reshape(CROP_PX, step, CROP_PX, step).mean((1, 3), dtype=np.float32)

    weight = (1 - share(labels.mask("accessory"))) * share(labels.inside)
    weight *= 1 + (CLOTHES_WEIGHT - 1) * share(labels.mask("clothes")) + (FACE_WEIGHT - 1) * share(labels.mask("face"))
    crop, _ = crop_photo(view.photo, view.box_px, len(labels.labels))
    coherence = hair_coherence(crop.mean(2, dtype=np.float32), labels.mask("hair"))
    crop_camera = view.camera.cropped(view.box_px, (CROP_PX, CROP_PX))
    params = head.params
    posed = transform(*(torch.from_numpy(a) for a in (head.vertices, params.rotation, params.translation)))
    return HairObservation(
        share(labels.mask("hair")) > 0.5, np.where(weight < 0.2, 0, weight), crop_camera, params.rotation,
        params.translation, project(posed, crop_camera), torch.from_numpy(head.faces[head.is_skin]), coherence,
    )  # fmt: skip


def fitted_hair(views: list[HairView]) -> FaceParams:
    """Parameters of the first head with the hair of the photographs of one person: style, shape and colour.

    Hair is fitted to each photograph; that which agrees best with all of them is taken.
    """
    first = views[0].head
    observations = [observe_hair(view) for view in views]
    hairy = [k for k, view in enumerate(views) if observations[k].hair.any() and view.labels.scalp_hair >= BALD_SHARE]
    if 2 * len(hairy) < len(views):
        return first.params
    found = [fit_hair(observations[k], first.model, first.neutral_vertices, GREY) for k in hairy]
    votes = [
        sum(one.agreement if k == own else worn_agreement(observations[own], first, one) for own in hairy)
        for k, one in zip(hairy, found, strict=True)
    ]
    best = int(np.argmax(votes))
    fitted, view, observed = found[best], views[hairy[best]], observations[hairy[best]]
    params = first.params.replace(styles=with_hair_style(first.params.styles, fitted.style), hair=fitted.hair)
    worn = view.head.replace(params=view.head.params.replace(styles=params.styles, hair=params.hair))
    colour = hair_colour(worn, observed, fitted, view)
    return params if colour is None else params.replace(hair=fitted.hair.replace(color=colour))


def worn_agreement(observed: HairObservation, head: FitResult, fitted: FittedHair) -> float:
    """How well hair that was fitted to another photograph agrees with this one."""
    return _Fit(observed, head.model, head.neutral_vertices).candidate(fitted.style, fitted.hair).agreement


def hair_colour(
    head: FitResult, observed: HairObservation, fitted: FittedHair, view: HairView
) -> tuple[float, float, float] | None:
    """sRGB colour in 0..1 with which the drawn hair is as bright and as tinted as the photograph's; None if none shows.

    Args:
        head: with the fitted hair, in a colour of its own.
        view: the photograph.
    """
    drawn = render(head, camera=observed.camera, supersample=1).rgb
    seen, _ = crop_photo(view.photo, view.box_px, CROP_PX)
    both = observed.hair & (observed.weight > 0) & fitted.mask
    inner = both & binary_erosion(both)
    both = inner if inner.sum() >= LEAST_COLOUR_PX else both
    if both.sum() < LEAST_COLOUR_PX:
        return None
    target, found = (linear_from_srgb(torch.from_numpy(image[both] / 255.0)).mean(0) for image in (seen, drawn))
    own = linear_from_srgb(torch.tensor(head.params.hair.color, dtype=torch.float64))
    colour = srgb_from_linear((own * target / found.clamp_min(1e-4)).clamp(0.002, 0.95))
    red, green, blue = (float(value) for value in colour)
    return red, green, blue
