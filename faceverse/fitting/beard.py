"""Beard of a fitted head: where it grows, how long it is, its style and its colour, from the labels of the photographs.

Each card of the beard has its root on the skin, so the label at the roots that a photograph shows tells where the beard
grows. Its length is that with which the drawn beard fills the labelled pixels best, beyond the jaw as well. What is
too short to have an outline of its own, stubble, stays in the texture of the skin.

Dimensions: C cards, K control points of `faceverse.parts.beard`, S side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import lsq_linear

from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..graphics.rasterize import rasterize
from ..model.face_model import FaceParams
from ..model.skin_texture import smoothstep
from ..parts.beard import CONTROL_POINTS, Beard, card_scale, cover_scale, coverage_basis, length_scale
from ..parts.beard_layout import CARD_FACES, ROWS, card_faces, is_undercoat, roots_of
from ..parts.beard_styles import BEARD_STYLES, mirrored_mm, scaled_cards, style_scale, with_beard_style
from ..parts.hair_clearance import outward_normals
from ..parts.part import Part
from ..rendering.render import render
from ..result import FitResult
from ..segmentation import Segmentation
from .hair import HairView
from .hair_outline import face_cover
from .photometric import crop_photo

FULL, FULL_LENGTHS = "full", ("full_short", "full", "full_long")
STYLES = (FULL, "moustache", "goatee", "van_dyke", "chinstrap", "chops", "soul_patch")
"""Styles by place, the one for all places first; a full beard is one of `FULL_LENGTHS`."""
LENGTHS = (0.4, 0.7, 1.2, 1.9)  # factors that are tried, then others between the best and its neighbours
LONGEST = 2.6
CROP_PX = 128
CROP_MARGIN = 0.25  # of the size of the longest beard
BLUR_PX = 1.0
LEAST_FACING = 0.25  # cosine from which a root counts
HIDDEN_M = 0.004  # behind what the photograph shows
MIRROR, SMOOTH = 0.05, 0.03  # weights of the twin and of the neighbours of a control point, relative to roots seen
NEIGHBOURHOOD_M = 0.03
SHARPNESS = (0.15, 0.8)  # coverage that is none, and that is full: control points are coarser than edges of beards
STYLE_GAIN = 1.1  # by which a style with places of its own has to agree better than a full beard
LEAST_AGREEMENT, LEAST_COVERED = 0.4, 0.05
LEAST_COVER = 0.12  # mean alpha of a triangle that shows hair
LEAST_COLOUR_PX = 30
GREY = (0.5, 0.5, 0.5)  # with which the beard is drawn to learn how bright its pixels come out


@dataclass(frozen=True)
class BeardObservation:
    """The beard of a photograph in a square crop around the longest beard.

    Attributes:
        view: the photograph.
        beard: (S, S) float32 in 0..1, share of pixels with the label.
        weight: (S, S) float32, 0 where hands hide the beard and outside the photograph.
        box_px: of the crop, in pixels of the photograph.
        camera: of the crop.
        head_depth: (S, S) metres, infinite where the head is not.
        cards: (C, ROWS, 2, 3) metres, the cards of a full beard on the head.
    """

    view: HairView
    beard: np.ndarray
    weight: np.ndarray
    box_px: tuple[float, float, float, float]
    camera: Camera
    head_depth: np.ndarray
    cards: np.ndarray

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Crop coordinates and depth (P, 3) of points (P, 3) of the head with its expression."""
        return _projected(points, self.view.head, self.camera)

    def drawn(self, mesh: BeardMesh, scale: np.ndarray) -> np.ndarray:
        """(S, S) bool, where the photograph would show a beard whose cards have these lengths (C,)."""
        kept = mesh.is_coat & (scale > 0)
        pixels = torch.from_numpy(self.pixels(scaled_cards(self.cards[kept], scale[kept]).reshape(-1, 3)))
        covers = mesh.covers[kept].reshape(-1)
        faces = torch.from_numpy(card_faces(int(kept.sum()))[covers])
        depth = rasterize(pixels[None], faces, self.camera.image_size).depth[0].numpy()
        return (depth > 0) & (depth < self.head_depth + HIDDEN_M / 2)

    def agreement(self, mesh: BeardMesh, scale: np.ndarray) -> float:
        """Weighted intersection over union of a beard with the label."""
        drawn = self.drawn(mesh, scale)
        both = float((self.weight * np.minimum(drawn, self.beard)).sum())
        return both / max(float((self.weight * np.maximum(drawn, self.beard)).sum()), 1e-6)


@dataclass(frozen=True)
class BeardMesh:
    """The mesh of full beards, of which all styles are made.

    Attributes:
        part: as made.
        is_coat: (C,) bool.
        covers: (C, CARD_FACES) bool, triangles whose texture covers on the whole.
    """

    part: Part
    is_coat: np.ndarray
    covers: np.ndarray

    @classmethod
    def of(cls, part: Part) -> BeardMesh:
        return cls(part, ~is_undercoat(part), (face_cover(part) >= LEAST_COVER).reshape(-1, CARD_FACES))


def fitted_beard(views: list[HairView], params: FaceParams) -> FaceParams:
    """Parameters with the beard of the photographs of one person; unchanged where most of them show none.

    Args:
        views: photographs and heads.
        params: of the first head, with its hair.
    """
    library = views[0].head.model.parts
    bearded = [view for view in views if view.labels.mask("beard").any()]
    if library is None or f"beard/{FULL}" not in library.parts or 2 * len(bearded) < len(views) or not bearded:
        return params
    mesh = BeardMesh.of(library.get("beard", FULL))
    observed = [observe_beard(view, mesh.part) for view in bearded]
    seen = [seen_roots(one, mesh.part) for one in observed]
    coverage = fitted_coverage(roots_of(mesh.part), seen)
    if coverage.max(initial=0) < LEAST_COVERED:
        return params
    style = place_style(mesh.part, seen)
    best, beard, agreement = fitted_length(mesh, observed, style, coverage)
    if agreement < LEAST_AGREEMENT:
        return params
    worn = params.replace(styles=with_beard_style(params.styles, best), beard=beard)
    scale = card_scale(mesh.part, beard) * style_scale(mesh.part, best)
    colours = [beard_colour(one, worn, one.drawn(mesh, scale)) for one in observed]
    known = [colour for colour in colours if colour is not None]
    if known:
        red, green, blue = (float(value) for value in np.median(known, axis=0))
        worn = worn.replace(beard=beard.replace(color=(red, green, blue)))
    return worn


def fitted_length(
    mesh: BeardMesh, observed: list[BeardObservation], style: str, coverage: np.ndarray
) -> tuple[str, Beard, float]:
    """Style, beard and agreement of the length with which the beard fills the label best."""

    cover = cover_scale(mesh.part, coverage)

    def tried(name: str, length: float) -> tuple[float, str, Beard]:
        scale = cover * length_scale(mesh.part, length) * style_scale(mesh.part, name)
        beard = Beard(length=float(length), coverage=coverage, in_skin=True)
        return float(np.mean([one.agreement(mesh, scale) for one in observed])), name, beard

    best = max((tried(style, length) for length in LENGTHS), key=lambda one: one[0])
    if style == FULL:
        best = max([best, *(tried(name, best[2].length) for name in FULL_LENGTHS if name != FULL)], key=lambda o: o[0])
    step = (LENGTHS[-1] / LENGTHS[0]) ** (1 / (len(LENGTHS) - 1))
    for _ in range(2):
        step **= 0.5
        near = [best[2].length / step, best[2].length * step]
        best = max([best, *(tried(best[1], length) for length in near if length <= LONGEST)], key=lambda one: one[0])
    return best[1], best[2], best[0]


def observe_beard(view: HairView, part: Part) -> BeardObservation:
    """The beard of a photograph, in a crop that has room for a long one.

    Args:
        part: a full beard.
    """
    head, labels = view.head, view.labels
    cards = part.binding.follow(head.vertices, head.neutral_vertices).reshape(-1, ROWS, 2, 3)
    longest = scaled_cards(cards, card_scale(part, Beard(length=LONGEST)))
    points = _projected(longest.reshape(-1, 3), head, view.camera)[:, :2]
    low, high = points.min(0), points.max(0)
    centre, half = (low + high) / 2, (0.5 + CROP_MARGIN) * float((high - low).max())
    box = (*(centre - half).tolist(), *(centre + half).tolist())
    camera = view.camera.cropped(box, (CROP_PX, CROP_PX))
    pixels = torch.from_numpy(_projected(head.vertices, head, camera))[None]
    faces = torch.from_numpy(np.ascontiguousarray(head.faces[head.is_skin]))
    depth = rasterize(pixels, faces, camera.image_size).depth[0].numpy()
    beard, hidden, inside = (
        resampled(labels, mask.astype(np.float32), box)
        for mask in (labels.mask("beard"), labels.mask("accessory"), labels.inside)
    )
    return BeardObservation(view, beard, (1 - hidden) * inside, box, camera, np.where(depth > 0, depth, np.inf), cards)


def resampled(labels: Segmentation, values: np.ndarray, box_px: tuple[float, float, float, float]) -> np.ndarray:
    """Values (L, L) of the labelled crop in a square box of the photograph, (CROP_PX, CROP_PX); 0 outside."""
    x0, y0, x1, _ = labels.box_px
    scale = len(values) / (x1 - x0)
    step = (box_px[2] - box_px[0]) / CROP_PX * scale
    smooth = gaussian_filter(values, 0.5 * step * BLUR_PX) if step > 1 else values
    x, y = (
        (start - origin) * scale + (np.arange(CROP_PX) + 0.5) * step - 0.5
        for start, origin in ((box_px[0], x0), (box_px[1], y0))
    )
    rows, columns = np.meshgrid(y, x, indexing="ij")
    return map_coordinates(smooth, [rows, columns], order=1, mode="constant", cval=0.0)


def seen_roots(observed: BeardObservation, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Label (C,) in 0..1 at the roots of the cards in a photograph, and how well it shows each root, (C,) in 0..1."""
    head, binding = observed.view.head, part.binding
    vertices = head.vertices.astype(np.float64)
    first = binding.triangle.reshape(-1, 2 * ROWS, 3)[:, 0], binding.weights.reshape(-1, 2 * ROWS, 3)[:, 0]
    roots = np.einsum("ck,ckd->cd", first[1], vertices[first[0]])
    normals = np.einsum("ck,ckd->cd", first[1], outward_normals(vertices, head.faces)[first[0]])
    x, y, depth = observed.pixels(roots).T
    column, row = (np.clip(values.astype(int), 0, CROP_PX - 1) for values in (x, y))
    place = roots @ head.params.rotation.T + head.params.translation
    rotated = normals @ head.params.rotation.T
    facing = -(rotated * place).sum(1) / np.linalg.norm(place, axis=1) / np.linalg.norm(rotated, axis=1).clip(1e-9)
    visible = (depth < observed.head_depth[row, column] + HIDDEN_M) & (facing > LEAST_FACING)
    at = [y - 0.5, x - 0.5]
    maps = (observed.beard, observed.weight)
    label, weight = (map_coordinates(values, at, order=1, mode="nearest") for values in maps)
    return label, np.where(visible, facing * weight, 0)


def fitted_coverage(roots: np.ndarray, seen: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Coverage (K,) that agrees with the labels at the roots; where none is seen, that of twins and neighbours.

    Args:
        roots: (C, 3) on the mean head.
        seen: from `seen_roots`, one for each photograph.
    """
    basis, count = coverage_basis(roots), len(CONTROL_POINTS)
    normal, right = np.zeros((count, count)), np.zeros(count)
    for label, weight in seen:
        normal += (basis.T * weight) @ basis
        right += basis.T @ (weight * label)
    scale = max(float(np.diag(normal).max()), 1e-6)
    points = CONTROL_POINTS.astype(np.float64)
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    twin = np.linalg.norm(points[:, None] - points * (-1, 1, 1), axis=2).argmin(1)
    uneven = np.eye(count) - np.eye(count)[twin]
    close = np.exp(-0.5 * (distance / NEIGHBOURHOOD_M) ** 2)
    laplacian = np.diag(close.sum(1)) - close
    normal = normal / scale + MIRROR * uneven.T @ uneven + SMOOTH * laplacian + 1e-6 * np.eye(count)
    lower = np.linalg.cholesky(normal)
    found = lsq_linear(lower.T, np.linalg.solve(lower, right / scale), (0, 1))
    return smoothstep((found.x - SHARPNESS[0]) / (SHARPNESS[1] - SHARPNESS[0])).astype(np.float32)


def place_style(part: Part, seen: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """The style whose places agree best with the labels at the roots (C,)."""
    label, weight = (np.concatenate([one[k] for one in seen]) for k in (0, 1))
    place = mirrored_mm(roots_of(part))

    def agreement(name: str) -> float:
        style = BEARD_STYLES[name]
        assert style is not None
        share = np.tile(style.coverage(place), len(seen))
        return float((weight * np.minimum(share, label)).sum() / max((weight * np.maximum(share, label)).sum(), 1e-9))

    agreements = {name: agreement(name) / (1 if name == FULL else STYLE_GAIN) for name in STYLES}
    return max(agreements, key=lambda name: agreements[name])


def beard_colour(observed: BeardObservation, worn: FaceParams, mask: np.ndarray) -> np.ndarray | None:
    """(3,) sRGB colour in 0..1 with which the drawn beard looks as in the photograph; None if none shows.

    Args:
        worn: parameters of the head with the beard.
        mask: (S, S) bool, where it shows.
    """
    head = observed.view.head
    params = head.params.replace(styles={"beard": worn.styles["beard"]}, beard=worn.beard.replace(color=GREY))
    drawn = render(head.replace(params=params), camera=observed.camera, supersample=1).rgb
    seen, _ = crop_photo(observed.view.photo, observed.box_px, CROP_PX)
    both = (observed.beard > 0.7) & (observed.weight > 0.5) & mask
    if both.sum() < LEAST_COLOUR_PX:
        return None
    # The mean of logarithms: a few bright hairs do not make a beard bright.
    logs = (linear_from_srgb(torch.from_numpy(image[both] / 255.0)).clamp_min(2e-3).log() for image in (seen, drawn))
    target, found = (log.mean(0).exp() for log in logs)
    own = linear_from_srgb(torch.tensor(GREY, dtype=torch.float64))
    return srgb_from_linear((own * target / found.clamp_min(1e-4)).clamp(0.002, 0.95)).numpy()


def _projected(points: np.ndarray, head: FitResult, camera: Camera) -> np.ndarray:
    arrays = (np.float32(points), head.params.rotation, head.params.translation)
    return project(transform(*(torch.from_numpy(values) for values in arrays)), camera).numpy()
