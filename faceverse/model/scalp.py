"""Skin of the scalp: the albedo of a linear model contains hair where most people have some.

How much of a vertex' colour is hair follows from the modes alone: hair is what varies with the scalp but not with the
cheeks. There the skin around is continued (a harmonic function on the mesh), so that hair can be a part of its own.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from ..graphics.lighting import LUMINANCE, srgb_from_linear
from ..graphics.mesh import unique_edges
from ..parts.hair_styles import hair_slots, with_hair_style
from .face_model import FaceModel, FaceParams

SHORT = "buzz"
"""The style of `with_short_hair`."""

_LEAST_HAIR, _LEAST_EAR_HAIR = 0.025, 0.25  # share of hair from which a vertex takes the colour of the skin around it
_ALL_HAIR = 0.9  # share of hair from which a vertex shows its colour

_cache: weakref.WeakKeyDictionary[FaceModel, _Scalp | None] = weakref.WeakKeyDictionary()


class _Scalp:
    """Vertices whose albedo contains hair, and the linear system that continues the skin there."""

    def __init__(self, hairy: np.ndarray, edges: np.ndarray, count: int):
        ends = np.concatenate([edges, edges[:, ::-1]])
        adjacency = sparse.csr_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
        self.inside = np.flatnonzero(hairy)
        rows = adjacency[self.inside]
        # Vertices without edges keep their own value: the system stays regular.
        degree = np.maximum(np.asarray(rows.sum(1)).reshape(-1), 1.0)
        self.around = rows[:, np.flatnonzero(~hairy)]
        self.outside = np.flatnonzero(~hairy)
        system = (sparse.diags(degree) - rows[:, self.inside]).tocsc()
        self.solver = splu(system, permc_spec="MMD_AT_PLUS_A")

    def continued(self, albedo: np.ndarray) -> np.ndarray:
        result = albedo.copy()
        result[self.inside] = self.solver.solve((self.around @ albedo[self.outside]).astype(np.float64))
        return result


def hair_share(model: FaceModel) -> np.ndarray:
    """Share (V,) of hair in the colour of each vertex of a model: 0 skin .. 1 as on the scalp.

    All 0 for models without a scalp region or without albedo modes.
    """
    scalp, face = (np.asarray(model.regions.get(name, ()), np.int64) for name in ("scalp", "face"))
    modes = model.tensor("albedo_modes").numpy(force=True) @ np.array(LUMINANCE, np.float32)
    if not len(scalp) or not len(face) or not len(modes):
        return np.zeros(len(model.mean_vertices), np.float32)
    hair, skin = modes[:, scalp].mean(1), modes[:, face].mean(1)
    hair = hair - (hair @ skin) / max(float(skin @ skin), 1e-12) * skin
    return np.clip(hair @ modes / max(float(hair @ hair), 1e-12), 0, 1).astype(np.float32)


def with_short_hair(model: FaceModel, params: FaceParams) -> FaceParams:
    """The parameters with short hair of the colour that the albedo of the head has on the scalp.

    For heads of which nobody saw the hair. Unchanged for models without such a part.
    """
    if model.parts is None or not set(hair_slots(SHORT).values()) <= set(model.parts.styles("scalp")):
        return params
    with torch.no_grad():
        albedo = model.albedo(torch.from_numpy(params.albedo)[None])[0].numpy(force=True)
    mean = albedo[hair_share(model) > _ALL_HAIR].mean(0).clip(0, 1)
    red, green, blue = (float(value) for value in srgb_from_linear(torch.from_numpy(mean)))
    return params.replace(
        styles=with_hair_style(params.styles, SHORT), hair=params.hair.replace(color=(red, green, blue))
    )


def bare_scalp(model: FaceModel, albedo: np.ndarray) -> np.ndarray:
    """The albedo (V, 3) of a head with skin in place of the hair that it contains on the scalp; linear in `albedo`."""
    if model not in _cache:
        _cache[model] = _scalp(model)
    scalp = _cache[model]
    return albedo if scalp is None else scalp.continued(albedo).astype(albedo.dtype)


def _scalp(model: FaceModel) -> _Scalp | None:
    share, count = hair_share(model), len(model.mean_vertices)
    hairy = share > _LEAST_HAIR
    ears = np.asarray(model.regions.get("ears", ()), np.int64)
    hairy[ears] = share[ears] > _LEAST_EAR_HAIR
    edges = unique_edges(model.faces)
    # Brows and lips vary with the hair as well, but are not joined to the scalp.
    joined = edges[hairy[edges].all(1)]
    graph = sparse.coo_matrix((np.ones(len(joined)), (joined[:, 0], joined[:, 1])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    scalp = np.asarray(model.regions.get("scalp", ()), np.int64)
    scalp = scalp[hairy[scalp]]
    if not len(scalp):
        return None
    hairy &= group == np.bincount(group[scalp]).argmax()
    return _Scalp(hairy, edges, count)
