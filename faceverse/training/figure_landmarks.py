"""The 68 landmarks on the base head's own mesh, for figures of expressions before a model has landmarks of its own."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse

from ..graphics.mesh import Subdivision, subdivision_matrix, triangles_from_quads

# Opposite landmark of each landmark.
OPPOSITE = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37,
     36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)  # fmt: skip
# Triangle of the subdivided mesh and first two barycentric weights in thousandths, as the detector of version 0.2 of
# the open model saw them.
_PLACES = np.array([
    (11211, 625, 375), (12257, 0, 250), (11231, 250, 125), (11525, 375, 250), (12129, 0, 500), (12059, 250, 750),
    (11576, 125, 250), (11000, 250, 500), (11266, 875, 125), (28153, 500, 375), (28712, 125, 375), (29180, 500, 0),
    (29248, 250, 0), (28662, 250, 125), (29364, 0, 750), (29376, 250, 625), (29407, 125, 375), (9462, 625, 0),
    (1289, 250, 375), (1095, 375, 125), (1106, 0, 875), (1136, 875, 0), (18208, 875, 125), (18248, 125, 750),
    (18306, 250, 500), (18496, 125, 625), (26618, 750, 0), (17898, 750, 0), (28059, 375, 250), (18593, 250, 250),
    (18544, 750, 0), (1779, 500, 500), (1823, 125, 500), (18720, 750, 0), (19026, 125, 375), (18990, 500, 0),
    (17137, 375, 250), (6501, 375, 250), (6610, 875, 125), (9675, 250, 125), (6513, 250, 500), (12372, 125, 625),
    (26830, 125, 625), (23775, 875, 0), (23660, 500, 500), (23724, 375, 625), (29490, 125, 750), (23672, 125, 500),
    (9404, 375, 250), (13221, 375, 250), (2258, 125, 250), (1864, 875, 125), (19471, 125, 625), (30332, 375, 250),
    (26134, 500, 500), (19681, 750, 250), (19750, 750, 125), (3688, 875, 0), (2539, 625, 0), (2473, 625, 0),
    (2178, 0, 750), (2377, 500, 0), (2392, 875, 0), (19599, 500, 125), (26100, 0, 500), (19861, 250, 0),
    (3487, 125, 125), (2652, 125, 750),
])  # fmt: skip


def landmark_matrix(topology: Subdivision, mirror: np.ndarray) -> sparse.csr_matrix:
    """Matrix (68, Vc) from the vertices of the base mesh to the landmarks on the subdivided one, the mean of the
    landmarks and their mirror images.

    Args:
        topology: subdivision of the base head's quads.
        mirror: (Vc,) reflection of each vertex, see `head_regions.mirror_map`.
    """
    corners = triangles_from_quads(topology.quads)[_PLACES[:, 0]]
    first_two = _PLACES[:, 1:] / 1000
    weights = np.column_stack([first_two, 1 - first_two.sum(axis=1)])
    fine = sparse.csr_matrix(
        (weights.ravel(), (np.repeat(np.arange(68), 3), corners.ravel())), (68, int(topology.quads.max()) + 1)
    )
    rows = (fine @ subdivision_matrix(topology)).tocsr()
    return (0.5 * (rows + rows[OPPOSITE][:, mirror])).tocsr()
