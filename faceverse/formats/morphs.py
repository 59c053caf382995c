"""Morph targets of a file: the model's expressions, and combinations of them by the names of other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import ParameterError
from ..model.face_model import FaceModel, evaluate
from ..model.visemes import MORPH_RECIPES, MORPH_SETS, SIDE_NAMES, sided_name
from ..result import FitResult


@dataclass(frozen=True)
class Morphs:
    """T morph targets of a head.

    Attributes:
        names: as files have them.
        offsets: (T, V, 3) float32 metres at weight 1.
        weights: (T,) initial weights.
        recipes: weights of other targets of the model by name, for targets that are combinations of them.
    """

    names: tuple[str, ...]
    offsets: np.ndarray
    weights: np.ndarray
    recipes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def names_file(self) -> bytes:
        """JSON that lists the targets, in the order of all meshes, for programs whose importer drops the names."""
        recipes = {name: dict(weights) for name, weights in self.recipes.items()}
        return json.dumps({"targets": self.names, "recipes": recipes}, indent=1).encode()


def check_morphs(model: FaceModel, morphs: str, sides: str) -> tuple[str, ...]:
    """The sets of `MORPH_SETS` that `morphs` names.

    Raises:
        ParameterError: an unknown set, an unknown kind of names, or a model without the expressions of the recipes.
    """
    sets = tuple(dict.fromkeys(morphs.split("+"))) if isinstance(morphs, str) else ()
    if not sets or any(name not in MORPH_SETS for name in sets):
        raise ParameterError("export.morphs", known=", ".join(MORPH_SETS), morphs=repr(morphs))
    if sides not in SIDE_NAMES:
        raise ParameterError("export.sides", known=", ".join(SIDE_NAMES), sides=repr(sides))
    needed = {name for chosen in sets for recipe in MORPH_RECIPES.get(chosen, {}).values() for name in recipe}
    if missing := sorted(needed - set(model.expression_names)):
        raise ParameterError("export.morphs_model", name=model.name, morphs=morphs, missing=", ".join(missing[:3]))
    return sets


def morphs_of(result: FitResult, weights: np.ndarray, morphs: str = "arkit", sides: str = "Left/Right") -> Morphs:
    """The morph targets of a head.

    Args:
        weights: (E,) initial weights of the model's expressions; combinations start at 0.
        morphs: sets of `MORPH_SETS`, joined by "+".
        sides: of `SIDE_NAMES`.

    Raises:
        ParameterError: as `check_morphs`.
    """
    sets = check_morphs(result.model, morphs, sides)
    names: list[str] = []
    offsets, recipes = [], {}
    if "arkit" in sets:
        names += [sided_name(name, sides) for name in result.model.expression_names]
        offsets.append(result.model.expression_modes_of(result.params.identity))
    for chosen in sets:
        for name, recipe in MORPH_RECIPES.get(chosen, {}).items():
            names.append(name)
            recipes[name] = {sided_name(part, sides): weight for part, weight in recipe.items()}
            offsets.append(_combined(result, recipe)[None])
    initial = np.zeros(len(names), np.float32)
    if "arkit" in sets:
        initial[: len(weights)] = weights
    return Morphs(tuple(names), np.concatenate(offsets).astype(np.float32), initial, recipes)


def _combined(result: FitResult, recipe: Mapping[str, float]) -> np.ndarray:
    """Offsets (V, 3) of an expression, with the corrective shapes of its pairs."""
    model = result.model
    expression = np.array([recipe.get(name, 0.0) for name in model.expression_names], np.float32)
    rows = (torch.from_numpy(np.float32(row)[None]).to(model.device) for row in (result.params.identity, expression))
    nothing = torch.zeros_like(model.tensor("mean_vertices"))
    return evaluate(nothing, *model.expression_terms(*rows))[0].numpy(force=True)
