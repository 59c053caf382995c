"""The commands `python -m faceverse edit|blend|randomize|render|export` of a fitted head."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..edit import DETAIL_LAYERS, edit
from ..edit_styles import NO_BROWS
from ..edit_values import EYE_COLORS
from ..errors import ParameterError
from ..formats.export import EXPORT_FORMATS, LEVELS_OF_DETAIL, export, load_result
from ..graphics.lighting import LIGHT_PARAMETERS
from ..io.images import save_image
from ..messages import Message
from ..mixing import HAIR, MAX_STRENGTH, SKIN, blend, randomize
from ..model.presets import ATTRIBUTE_REGIONS, EXPRESSION_PRESETS
from ..model.visemes import MORPH_SETS, SIDE_NAMES
from ..parts.beard_styles import BEARD_STYLES
from ..parts.hair_choice import HAIR_COLORS
from ..parts.hair_styles import HAIR_STYLES
from ..rendering.drawing import RENDER_MODES
from ..rendering.render import render, turntable
from ..result import FitResult
from .arguments import RenamedFlag, add_angles, add_model, add_output, add_result, load, rotation

_HAIR = ("hair", "hair_color", "hair_length", "hair_volume", "hair_fringe", "hair_wave", "hair_grey", "hair_mirrored")
_FACIAL_HAIR = ("beard", "beard_length", "beard_color", "beard_density", "brows", "brow_color")
_SHARES = ("identity", "expression", "albedo", "detail")


# -- commands ---------------------------------------------------------------------------------------------------------
def run_edit(options: argparse.Namespace) -> int:
    if options.detail_layers is not None and options.detail_from is None:
        raise ParameterError("command.detail_layers_alone")
    before = load(options)
    names = ("age", "age_years", "gender", "detail", "detail_seed", "detail_layers", "light", "eye_color")
    given = {name: getattr(options, name) for name in (*names, *_FACIAL_HAIR, *_HAIR)}
    given["rotation"] = rotation(options)
    for name in ("detail_from", "hair_from"):
        path = getattr(options, name)
        given[name] = None if path is None else load_result(path, before.model)
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in options.set:
        if name not in before.model.attribute_names:
            known = ", ".join(before.model.attribute_names) or Message("word.none")
            raise ParameterError("attribute.unknown", name=repr(name), known=known)
        changes[name] = value
    if options.target:
        changes["targets"] = dict(options.target)
    if options.expression:
        changes["expression"] = dict(options.expression)
    return _written(before, edit(before, **changes), options.output)


def run_blend(options: argparse.Namespace) -> int:
    first = load(options)
    shares = {name: getattr(options, name) for name in _SHARES}
    after = blend(first, load_result(options.second, first.model), **shares)
    return _written(first, after, options.output)


def run_randomize(options: argparse.Namespace) -> int:
    before = load(options)
    given = {"region": options.region, "keep": options.keep, "strength": options.strength}
    return _written(before, randomize(before, options.seed, **given), options.output)


def _written(before: FitResult, after: FitResult, output: Path) -> int:
    print(export(after, output))
    for warning in after.warnings[len(before.warnings) :]:
        print(f"{output.stem}: warning: {warning}")
    return 0


def run_render(options: argparse.Namespace) -> int:
    result = load(options)
    if options.turntable:
        rgb = turntable(result, options.size, mode=options.mode)
    else:
        rgb = render(result, options.size, options.mode, rotation=rotation(options), background=options.background).rgb
    print(save_image(options.output, rgb))
    return 0


def run_export(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in ("lod", "rig", "morphs", "sides")}
    print(export(load(options), options.output, hair=not options.no_hair, **given))
    return 0


# -- arguments --------------------------------------------------------------------------------------------------------
def add_edit(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_edit)
    add_result(parser)
    add_output(parser)
    age = parser.add_mutually_exclusive_group()
    age.add_argument("--age", type=float, metavar="YEARS", help="years to add, such as +20 or -10")
    age.add_argument("--age-years", type=float, metavar="YEARS", help="age to reach, as the model estimates it")
    parser.add_argument("--gender", type=float, metavar="G", help="change towards male, or towards female below 0")
    parser.add_argument("--detail", type=float, metavar="D", help="strength of the skin's detail, 0..3: 1 as fitted")
    skin = parser.add_mutually_exclusive_group()
    text = "sample new skin detail for the same age and sex, by number"
    skin.add_argument("--detail-seed", type=int, metavar="N", help=text)
    skin.add_argument("--detail-from", type=Path, metavar="JSON", help="take the skin detail of another fitted head")
    text = "layers of --detail-from: all (default), coarse (creases only) or fine (pores only)"
    parser.add_argument("--detail-layers", choices=tuple(DETAIL_LAYERS), help=text)
    add_pairs: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE", "type": _pair}
    text = f"a weight 0..1, such as jawOpen=0.5, or a whole expression ({', '.join(EXPRESSION_PRESETS)}), "
    parser.add_argument(
        "--expression",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        type=_expression,
        help=text + "also in part: smile=0.7; repeatable",
    )
    text = "change of any attribute that `weights info` lists; repeatable"
    parser.add_argument("--set", **add_pairs, help=text)
    parser.add_argument("--target", **add_pairs, help="value of an attribute to reach; repeatable")
    names = "; ".join(f"{name} {p.minimum:g}..{p.maximum:g}: {p.description}" for name, p in LIGHT_PARAMETERS.items())
    text = f"light by its direction in degrees, such as yaw=30,pitch=20,intensity=1.2,warmth=0.3. {names}"
    parser.add_argument("--light", type=_light, metavar="NAME=VALUE,...", help=text)
    text = f"colour of the irises: {', '.join(EYE_COLORS)}, or #rrggbb"
    parser.add_argument("--eye-color", metavar="NAME", help=text)
    _add_facial_hair(parser)
    _add_hair(parser)
    add_angles(parser)
    add_model(parser)


def _add_facial_hair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--beard", metavar="STYLE", help=f"beard: {', '.join(BEARD_STYLES)}")
    parser.add_argument("--beard-length", type=float, metavar="F", help="factor of the beard's length, 0.1..3")
    parser.add_argument("--beard-color", metavar="NAME", help="colour as for hair, or hair: like the hair (default)")
    parser.add_argument("--beard-density", type=float, metavar="D", help="share of the beard's hairs, 0..1")
    text = f"brows as strips of hairs, by number of their style, or {NO_BROWS}: in the skin's texture only (default)"
    parser.add_argument("--brows", metavar="STYLE", help=text)
    parser.add_argument("--brow-color", metavar="NAME", help="colour of these brows, or hair (default)")


def _add_hair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hair", metavar="STYLE", help=f"style: {', '.join(HAIR_STYLES)}")
    text = f"colour of the hair: {', '.join(HAIR_COLORS)}, or #rrggbb"
    parser.add_argument("--hair-color", metavar="NAME", help=text)
    for name, what in (
        ("length", "factor of the style's length, 0.2..2"),
        ("volume", "factor of the style's volume, 0..3"),
        ("fringe", "factor of the length of the hair before the forehead, 0..2"),
        ("wave", "0 as made .. 1 curly"),
        ("grey", "share of grey hairs, 0..1"),
    ):
        parser.add_argument(f"--hair-{name}", type=float, metavar=name[0].upper(), help=what)
    text = "exchange left and right of the style"
    parser.add_argument("--hair-mirrored", action=argparse.BooleanOptionalAction, help=text)
    parser.add_argument("--hair-from", type=Path, metavar="JSON", help="take the hair of another fitted head")


def add_blend(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_blend)
    add_result(parser)
    parser.add_argument("second", type=Path, help="the .json of another fit")
    add_output(parser)
    for name in _SHARES:
        text = "share of the second head, 0..1 (default 0.5)"
        parser.add_argument(f"--{name}", type=float, default=0.5, metavar="SHARE", help=text)
    add_model(parser)


def add_randomize(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_randomize)
    add_result(parser)
    add_output(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another face (default 0)")
    text = f"change only these parts, of {','.join(ATTRIBUTE_REGIONS)}; default: the whole face, skin and hair"
    parser.add_argument("--region", type=_names, metavar="A,B", help=text)
    text = f"attributes or parts that keep their values, {SKIN} or {HAIR}, such as age,gender"
    parser.add_argument("--keep", type=_names, default=(), metavar="A,B", help=text)
    text = f"0..{MAX_STRENGTH:g}: size of the change (default 1)"
    parser.add_argument("--strength", type=float, default=1.0, metavar="S", help=text)
    add_model(parser)


def add_render(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_render)
    add_result(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture: .png .jpg .webp")
    modes = "; ".join(f"{name}: {mode.description}" for name, mode in RENDER_MODES.items())
    parser.add_argument("--mode", choices=RENDER_MODES, default="color", help=modes)
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="side of the picture (default 512)")
    parser.add_argument("--background", type=_colour, default=(255, 255, 255), metavar="RRGGBB", help="default ffffff")
    parser.add_argument("--turntable", action="store_true", help="five views side by side")
    add_angles(parser)
    add_model(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_export)
    add_result(parser)
    formats = "; ".join(f".{name}: {entry.description}" for name, entry in EXPORT_FORMATS.items())
    parser.add_argument("output", type=Path, help=f"new file. {formats}")
    dense = " ".join(f".{name}" for name, entry in EXPORT_FORMATS.items() if "dense" in entry.levels_of_detail)
    text = f"level of detail of the mesh (default standard); dense has wrinkles and pores as geometry ({dense})"
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument("--lod", choices=LEVELS_OF_DETAIL, default="standard", help=text)
    levels.add_argument("--light", action=RenamedFlag, dest="lod", const="coarse", replacement="--lod coarse")
    levels.add_argument("--dense", action=RenamedFlag, dest="lod", const="dense", replacement="--lod dense")
    parser.add_argument("--no-hair", action="store_true", help="the head without its hair")
    parser.add_argument("--rig", action="store_true", help="bones of neck, head, jaw and eyes (.glb)")
    text = f"sets of morph targets, joined by +: {', '.join(MORPH_SETS)} (.glb; default arkit)"
    parser.add_argument("--morphs", metavar="A+B", help=text)
    parser.add_argument("--sides", choices=SIDE_NAMES, help="how names of targets of one side end (default Left/Right)")
    add_model(parser)


def _colour(text: str) -> tuple[int, int, int]:
    try:
        if len(digits := text.removeprefix("#")) == 6:
            red, green, blue = bytes.fromhex(digits)
            return red, green, blue
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected a colour as six hexadecimal digits, got {text!r}")


def _pair(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if name.strip() and equals:
            return name.strip(), float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=VALUE with a number as value, got {text!r}")


def _expression(text: str) -> tuple[str, float]:
    return (text, 1.0) if text in EXPRESSION_PRESETS else _pair(text)


def _light(text: str) -> dict[str, float]:
    return dict(_pair(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
