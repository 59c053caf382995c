"""Choice of a hair style for a head by the outline of the hair in a photograph.

Every style of the model's library is drawn as the photograph would show it and compared with the pixels that show
hair. The best ones are shaped until their outline is the observed one (`hair_outline`). A style that needs less bending
wins against one that needs more, a usual one against a rare one; the less of the hair is seen, the more that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..model.face_model import FaceModel
from ..parts.hair import Hair
from ..parts.hair_clearance import HeadSurface
from ..parts.hair_shape import HairOnHead, mirrored_part
from ..parts.hair_styles import HAIR_STYLES, hair_slots
from .hair_outline import (
    DrawnHair,
    HairObservation,
    OutlineSolver,
    agreement,
    draw_hair,
    hidden_volume,
    solid_faces,
)

MESHES = 5  # whose styles are all tried
FRINGES, HANGING_FRINGES = (1.0, 0.5), (1.0, 0.15)  # lengths of a fringe that are tried, of short and of long hair
FRINGE_COST = 0.04  # agreement per length of the fringe that short hair lacks
ALIKE = 2  # of the short list that may share a mesh
SHORTLIST, FINALISTS = 6, 3  # styles whose outline is brought onto the photograph's: a few steps, and all the way
FIRST_STEPS, LAST_STEPS = 2, 3
BENDING_COST = 3.0  # agreement per metre of mean displacement
CURLY, STRAIGHT = 0.5, 0.75  # coherence of the hair's texture below which it is curly, and above which it is straight
# Agreement per unit of coherence on the wrong side of these, of curls, straight and wavy hair.
CURLS_COST, NO_CURLS_COST, WAVES_COST = 1.5, 0.3, 0.4
HIDDEN_COST = 3.0  # agreement per metre of `hidden_volume`
HANGING_COST, HANGING_SHARE = 0.15, (0.10, 0.30)  # of short hair where that much, of the head's area, hangs
UNSEEN_RARITY = 4.0  # by how much more rarity counts where nothing of the hair is seen


@dataclass(frozen=True)
class FittedHair:
    """Outcome of `fit_hair`.

    Attributes:
        style: a name in `HAIR_STYLES`.
        hair: its shape; colours are those that were given.
        agreement: with the hair in the photograph, see `hair_outline.agreement`.
        on_head: its mesh; None for a style of short hairs on the scalp alone.
        drawn: as the photograph would show it; None likewise.
    """

    style: str
    hair: Hair
    agreement: float
    on_head: HairOnHead | None
    drawn: DrawnHair | None


@dataclass(frozen=True)
class _Candidate:
    """A style with a shape, and how well it agrees."""

    style: str
    on_head: HairOnHead | None
    below: np.ndarray
    hair: Hair
    drawn: DrawnHair | None
    agreement: float
    unlikely: float = 0.0

    @property
    def score(self) -> float:
        """The agreement, less what speaks against the hair."""
        bent = BENDING_COST * float(np.linalg.norm(self.hair.warp, axis=1).mean())
        return self.agreement - self.unlikely - bent


class Candidates:
    """Hair styles on one head, before one photograph.

    Args:
        observed: the photograph's hair.
        model: with hair styles among its parts.
        neutral: (V, 3) of the person, metres.
    """

    def __init__(self, observed: HairObservation, model: FaceModel, neutral: np.ndarray):
        self.observed, self.neutral = observed, neutral
        self.surface = HeadSurface.of(neutral, model.faces, model.regions)
        assert model.parts is not None
        self.parts = model.parts.parts
        self.scalps: dict[str, np.ndarray] = {}
        self.on_head: dict[tuple[str | None, bool], HairOnHead] = {}

    def has(self, style: str) -> bool:
        """Whether the library has the parts of a style."""
        return all(f"{slot}/{name}" in self.parts for slot, name in hair_slots(style).items())

    def candidate(self, style: str, hair: Hair) -> _Candidate:
        """A style with a shape."""
        slots = hair_slots(style)
        below = self.scalp_mask(slots["scalp"]) if "scalp" in slots else np.zeros_like(self.observed.hair)
        if "hair" not in slots:
            rarity = self.rarity(style)
            return _Candidate(style, None, below, hair, None, agreement(self.observed, below), rarity)
        return self.drawn(style, self.placed(style, hair.mirrored), below, hair)

    def placed(self, style: str, is_mirrored: bool) -> HairOnHead:
        """The mesh of a style on the head, with the shape of the style."""
        part = self.parts[f"hair/{style}"]
        key = HAIR_STYLES[style].mesh, is_mirrored
        if key not in self.on_head:
            self.on_head[key] = HairOnHead(mirrored_part(part) if is_mirrored else part, self.neutral)
        return self.on_head[key].with_shape(part.shape)

    def drawn(self, style: str, on_head: HairOnHead, below: np.ndarray, hair: Hair) -> _Candidate:
        """A style that is drawn."""
        vertices = on_head.vertices(hair, self.surface, is_exact=False)
        drawn = draw_hair(self.observed, vertices, self.solid(style), below)
        hidden = hidden_volume(self.observed, drawn)
        unlikely = self.rarity(style) + self.wrong_curls(style) + HIDDEN_COST * hidden
        if not is_hanging(on_head):
            unlikely += self.too_short + FRINGE_COST * (1 - hair.fringe)
        return _Candidate(style, on_head, below, hair, drawn, agreement(self.observed, drawn.mask), unlikely)

    def rarity(self, style: str) -> float:
        """What speaks against rare styles."""
        return HAIR_STYLES[style].rarity * (1 + UNSEEN_RARITY * (1 - self.observed.known))

    def wrong_curls(self, style: str) -> float:
        """What speaks against a curly style for straight hair, and the other way round."""
        coherence = self.observed.coherence
        if np.isnan(coherence):
            return 0.0
        if HAIR_STYLES[style].is_curly:
            return CURLS_COST * max(0.0, coherence - CURLY)
        if "wave" in HAIR_STYLES[style].shape:
            return WAVES_COST * max(0.0, coherence - STRAIGHT)
        return NO_CURLS_COST * max(0.0, CURLY - coherence)

    @cached_property
    def too_short(self) -> float:
        """What speaks against short hair: hair that hangs beside the neck."""
        head = max(np.count_nonzero(np.isfinite(self.observed.head_depth)), 1)
        hangs = np.bincount(self.observed.sector[self.observed.hair & (self.observed.weight > 0)], minlength=6)[4:]
        low, high = HANGING_SHARE
        return HANGING_COST * float(np.clip((hangs.max() / head - low) / (high - low), 0, 1))

    def solid(self, style: str) -> np.ndarray:
        """(F, 3) faces that cover."""
        return solid_faces(self.parts[f"hair/{style}"])

    def scalp_mask(self, style: str) -> np.ndarray:
        """(S, S) bool, where the short hairs of a style of the scalp show."""
        if style not in self.scalps:
            part = self.parts[f"scalp/{style}"]
            vertices = part.binding.place(self.neutral)
            self.scalps[style] = draw_hair(self.observed, vertices, solid_faces(part)).strands
        return self.scalps[style]

    def with_fringe(self, candidate: _Candidate) -> _Candidate:
        """The best of some lengths of the hair before the forehead."""
        assert candidate.on_head is not None
        tried = [
            self.drawn(candidate.style, candidate.on_head, candidate.below, candidate.hair.replace(fringe=fringe))
            for fringe in _fringes(candidate.on_head)
            if fringe != candidate.hair.fringe
        ]
        return max([candidate, *tried], key=_score)

    def with_outline(self, candidate: _Candidate, steps: int) -> _Candidate:
        """The outline brought onto the observed one, as far as that helps."""
        assert candidate.on_head is not None
        solver, best = OutlineSolver(candidate.on_head, self.solid(candidate.style)), candidate
        for _ in range(steps):
            assert candidate.drawn is not None
            hair = solver.step(self.observed, candidate.drawn, candidate.hair)
            candidate = self.drawn(candidate.style, solver.style, candidate.below, hair)
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
    start, fit = hair or Hair(), Candidates(observed, model, neutral)
    by_mesh: dict[str | None, list[str]] = {}
    for style in HAIR_STYLES:
        if fit.has(style):
            by_mesh.setdefault(HAIR_STYLES[style].mesh, []).append(style)
    plain = max((fit.candidate(style, start) for style in by_mesh.pop(None)), key=_score)
    # Styles that share a mesh are alike: only those of the best meshes are tried one by one.
    drawn = [
        max(
            (
                fit.candidate(styles[0], start.replace(fringe=fringe))
                for fringe in _fringes(fit.placed(styles[0], start.mirrored))
            ),
            key=_score,
        )
        for styles in by_mesh.values()
    ]
    for one in _best(drawn, MESHES):
        drawn += [fit.candidate(style, one.hair) for style in by_mesh[HAIR_STYLES[one.style].mesh][1:]]
    strands = _best(drawn, SHORTLIST, ALIKE)
    twins = [fit.candidate(one.style, one.hair.replace(mirrored=True)) for one in strands]
    strands = [fit.with_outline(max(pair, key=_score), FIRST_STEPS) for pair in zip(strands, twins, strict=True)]
    strands = [fit.with_fringe(one) for one in strands]
    strands = [fit.with_outline(one, LAST_STEPS) for one in _best(strands, FINALISTS)]
    best = max((plain, *strands), key=_score)
    return FittedHair(best.style, best.hair, best.agreement, best.on_head, best.drawn)


def is_hanging(on_head: HairOnHead) -> bool:
    """Whether a style hangs below the ears."""
    return on_head.fields.shortness < 0.5


def _fringes(on_head: HairOnHead) -> tuple[float, ...]:
    return HANGING_FRINGES if is_hanging(on_head) else FRINGES


def _score(candidate: _Candidate) -> float:
    return candidate.score


def _best(candidates: list[_Candidate], count: int, alike: int = 99) -> list[_Candidate]:
    """The best ones, at most `alike` of them with the same mesh."""
    chosen: list[_Candidate] = []
    for one in sorted(candidates, key=_score, reverse=True):
        mesh = HAIR_STYLES[one.style].mesh
        if len(chosen) < count and sum(HAIR_STYLES[other.style].mesh == mesh for other in chosen) < alike:
            chosen.append(one)
    return chosen
