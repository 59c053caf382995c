"""The commands `python -m faceverse edit|blend|randomize`, and arguments that other commands about a head share."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..edit import DETAIL_LAYERS, edit
from ..errors import ParameterError
from ..formats.export import export, load_result
from ..mixing import MAX_STRENGTH, SKIN, blend, randomize
from ..model.presets import ATTRIBUTE_REGIONS, EXPRESSION_PRESETS
from ..result import FitResult
from ..weights import load_model

_SHARES = ("identity", "expression", "albedo", "detail")


# -- commands ---------------------------------------------------------------------------------------------------------
def run_edit(options: argparse.Namespace) -> int:
    if options.detail_layers is not None and options.detail_from is None:
        raise ParameterError("--detail-layers says which layers --detail-from brings; give --detail-from as well")
    before = load(options)
    names = ("age", "age_years", "gender", "detail", "detail_seed", "detail_layers", "light")
    given = {name: getattr(options, name) for name in names}
    given["rotation"] = rotation(options)
    given["detail_from"] = None if options.detail_from is None else load_result(options.detail_from, before.model)
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in options.set:
        if name not in before.model.attribute_names:
            known = ", ".join(before.model.attribute_names) or "none"
            raise ParameterError(f"there is no attribute {name!r}; this model has: {known}")
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


def load(options: argparse.Namespace) -> FitResult:
    return load_result(options.input, load_model(options.model))


def rotation(options: argparse.Namespace) -> tuple[float, float, float] | None:
    """Yaw, pitch and roll in degrees, those not given as 0; None when none is given, which keeps the fitted pose."""
    angles = (options.yaw, options.pitch, options.roll)
    return None if angles == (None, None, None) else tuple(angle or 0.0 for angle in angles)


# -- arguments --------------------------------------------------------------------------------------------------------
def add_edit(parser: argparse.ArgumentParser) -> None:
    add_result(parser)
    _add_output(parser)
    age = parser.add_mutually_exclusive_group()
    age.add_argument("--age", type=float, metavar="YEARS", help="years to add, such as +20 or -10")
    age.add_argument("--age-years", type=float, metavar="YEARS", help="age to reach, as the model estimates it")
    parser.add_argument("--gender", type=float, metavar="G", help="change towards male, or towards female below 0")
    parser.add_argument("--detail", type=float, metavar="D", help="strength of the skin's detail, 0..3: 1 as fitted")
    skin = parser.add_mutually_exclusive_group()
    skin.add_argument("--detail-seed", type=int, metavar="N", help="other skin of the same age and sex, by number")
    skin.add_argument("--detail-from", type=Path, metavar="JSON", help="the skin of the head of another fit")
    text = "what --detail-from brings: all (default), coarse (creases only) or fine (pores only)"
    parser.add_argument("--detail-layers", choices=tuple(DETAIL_LAYERS), help=text)
    add_pairs = {"action": "append", "default": [], "metavar": "NAME=VALUE", "type": _pair}
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
    parser.add_argument("--target", **add_pairs, help="value that an attribute is to reach; repeatable")
    text = "where the light comes from (degrees), such as yaw=30,pitch=20,intensity=1.2,warmth=0.3"
    parser.add_argument("--light", type=_light, metavar="NAME=VALUE,...", help=text)
    add_angles(parser)
    add_model(parser)


def add_blend(parser: argparse.ArgumentParser) -> None:
    add_result(parser)
    parser.add_argument("second", type=Path, help="the .json of another fit")
    _add_output(parser)
    for name in _SHARES:
        text = "share of the second head, 0..1 (default 0.5)"
        parser.add_argument(f"--{name}", type=float, default=0.5, metavar="SHARE", help=text)
    add_model(parser)


def add_randomize(parser: argparse.ArgumentParser) -> None:
    add_result(parser)
    _add_output(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another number, another face (default 0)")
    text = f"only these parts, of {','.join(ATTRIBUTE_REGIONS)}; default: the whole face, and the skin"
    parser.add_argument("--region", type=_names, metavar="A,B", help=text)
    text = f"attributes or parts that stay, or {SKIN}, such as age,gender"
    parser.add_argument("--keep", type=_names, default=(), metavar="A,B", help=text)
    text = f"0..{MAX_STRENGTH:g}: how far from this face (default 1)"
    parser.add_argument("--strength", type=float, default=1.0, metavar="S", help=text)
    add_model(parser)


def add_result(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="the .json of a fit")


def add_angles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yaw", type=float, metavar="DEG", help="positive turns the face to the picture's right edge")
    parser.add_argument("--pitch", type=float, metavar="DEG", help="positive looks up")
    parser.add_argument("--roll", type=float, metavar="DEG", help="positive tilts counter-clockwise in the picture")


def add_model(parser: argparse.ArgumentParser) -> None:
    text = "open (default), a .safetensors file, or hf://owner/repo@revision"
    parser.add_argument("--model", default="open", metavar="MODEL", help=text)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="new file: .json .glb .obj .ply .stl")


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
