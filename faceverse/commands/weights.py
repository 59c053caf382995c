"""The commands `python -m faceverse weights info|path|verify|convert`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..detail.file import load_detail, save_detail
from ..errors import ParameterError
from ..model.file import content_hash
from ..weights import convert_model, find_weights, load_model
from .arguments import add_model
from .batch import output_folder


def run_weights(options: argparse.Namespace) -> int:
    path = find_weights(options.model)
    if options.action == "path":
        print(path)
        return 0
    model = load_model(path)
    if options.action == "verify":
        print(f"{path}: complete and readable, sha256 {content_hash(path)}")
        return 0
    coarse = model.coarse
    rows = {
        "name": model.name,
        "found at": path,
        "size": f"{path.stat().st_size / 1e6:.2f} MB",
        "sha256": content_hash(path),
        "mesh": f"{len(model.mean_vertices)} vertices, {len(model.faces)} triangles",
        "coarse mesh": f"{len(coarse.mean_vertices)} vertices, {len(coarse.faces)} triangles",
        "modes": f"{len(model.data.identity_modes)} identity, {len(model.data.expression_modes)} expressions, "
        f"{len(model.data.albedo_modes)} albedo",
        "attributes": ", ".join(f"{a.name} ({a.unit}, {a.minimum:g}..{a.maximum:g})" for a in model.data.attributes),
        **{key: value for key, value in model.info.items() if key != "sha256"},
    }
    for key, value in rows.items():
        print(f"{key:12} {value if isinstance(value, (str, Path)) else json.dumps(value, ensure_ascii=False)}")
    return 0


def run_convert(options: argparse.Namespace) -> int:
    if options.to == "safetensors" and options.output.suffix.lower() != ".safetensors":
        raise ParameterError("file.name_safetensors", name=options.output.name)
    with output_folder(options.output.parent):
        if Path(options.input).suffix.lower() in (".pt", ".pth"):
            print(save_detail(load_detail(options.input), options.output))
            return 0
        model = load_model(options.input, strict=not options.keep_unknown)
        print(convert_model(model, options.output, to="arrays" if options.to == "safetensors" else options.to))
    return 0


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_weights)
    actions = parser.add_subparsers(metavar="action", dest="action", required=True)
    for name, what in (
        ("info", "contents of the model file"),
        ("path", "path of the model file"),
        ("verify", "read the whole file and print its hash"),
    ):
        add_model(actions.add_parser(name, help=what))
    what = "a model or detail file in another format: official .npy and .pt to .safetensors, any model to official-v2"
    convert = actions.add_parser("convert", help=what, description=what[0].upper() + what[1:] + ".")
    convert.add_argument("input", help="official .npy or .pt, .safetensors, or the word open")
    convert.add_argument("output", type=Path, help="new file: .safetensors, or .npy with --to official-v2")
    convert.add_argument("--to", choices=("safetensors", "official-v2"), default="safetensors", help="format to write")
    convert.add_argument("--keep-unknown", action="store_true", help="accept keys that the format does not define")
    convert.set_defaults(run=run_convert)
