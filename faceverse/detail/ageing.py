"""Change the skin detail of a head with its age."""

from __future__ import annotations

import numpy as np

from .latents import AGES, factor_direction, open_parts
from .module import DetailModule

FULL_DEPTH_YEARS = 40.0  # ageing by this much brings shallow detail to the typical depth of that age
CHILD_DEPTH = ((6.0, 20.0), (0.35, 1.0))  # years, and depth of a child's detail: the generators know adults


def aged(module: DetailModule, latents: dict[str, np.ndarray], before: float, after: float) -> dict[str, np.ndarray]:
    """Change the skin of a person of some years to that of other years."""
    generator, code = open_parts(module)
    if not latents or "age" not in code.factors or before == after:
        return latents
    years = max(after, AGES[0]) - max(before, AGES[0])
    index, steps = code.factors.index("age"), np.float32(years / code.age[1])
    changes = {"w": latents["w"] + steps * factor_direction(generator, index)}
    smoother = float(np.divide(*np.interp((after, before), *CHILD_DEPTH)))
    depth = smoother * float(latents.get("depth", 1.0))
    if "depth" in latents and years > 0:
        # A photograph of smooth skin carries no information about its depth forty years later.
        depth += min(years / FULL_DEPTH_YEARS, 1.0) * (1 - depth)
    if "depth" in latents or smoother != 1:
        changes["depth"] = np.float32(depth)
    if "expression_w" in latents and module.expression is not None:
        changes["expression_w"] = latents["expression_w"] + steps * factor_direction(module.expression, index)
    return latents | changes
