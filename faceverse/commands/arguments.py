"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn

from ..formats.export import EXPORT_FORMATS, load_result
from ..result import FitResult
from ..weights import load_model


class Parser(argparse.ArgumentParser):
    """Report wrong arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


# -- a fitted head ----------------------------------------------------------------------------------------------------
def load(options: argparse.Namespace) -> FitResult:
    return load_result(options.input, load_model(options.model))


def rotation(options: argparse.Namespace) -> tuple[float, float, float] | None:
    """Yaw, pitch and roll in degrees, 0 for those not given; None when none is given, which keeps the fitted pose."""
    angles = (options.yaw, options.pitch, options.roll)
    if angles == (None, None, None):
        return None
    yaw, pitch, roll = (angle or 0.0 for angle in angles)
    return yaw, pitch, roll


def add_result(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="the .json of a fit")


def add_output(parser: argparse.ArgumentParser) -> None:
    suffixes = " ".join(f".{name}" for name in EXPORT_FORMATS)
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"new file: {suffixes}")


def add_angles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yaw", type=float, metavar="DEG", help="positive turns the face to the picture's right edge")
    parser.add_argument("--pitch", type=float, metavar="DEG", help="positive looks up")
    parser.add_argument("--roll", type=float, metavar="DEG", help="positive tilts counter-clockwise in the picture")


def add_model(parser: argparse.ArgumentParser) -> None:
    text = "open (default), a .safetensors file, or hf://owner/repo@revision"
    parser.add_argument("--model", default="open", metavar="MODEL", help=text)


# -- files that are written -------------------------------------------------------------------------------------------
def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the results (default out)")


def add_formats(parser: argparse.ArgumentParser, known: Collection[str], default: str, note: str) -> None:
    """--format A,B; `known` are the suffixes without a dot."""

    def formats(text: str) -> tuple[str, ...]:
        names = [name.strip().lower().removeprefix(".") for name in text.split(",") if name.strip()]
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(f"unknown format {text!r}, choose from {','.join(known)}")
        return tuple(dict.fromkeys(names))

    text = f"files to write, of {','.join(known)} (default {default}); {note}"
    parser.add_argument("--format", dest="formats", type=formats, default=formats(default), metavar="A,B", help=text)


# -- old names --------------------------------------------------------------------------------------------------------
def note_renamed(old: str, new: str) -> None:
    """One line on the standard error about a name that still works."""
    print(f"faceverse: {old} is deprecated, use {new}", file=sys.stderr, flush=True)


class RenamedFlag(argparse.Action):
    """A hidden flag that stands for `const` of another option; `replacement` is what to use instead."""

    def __init__(self, option_strings, dest, const, replacement, **options):
        options = options | {"nargs": 0, "help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        super().__init__(option_strings, dest, const=const, **options)
        self.replacement = replacement

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        note_renamed(option_string, self.replacement)
        setattr(namespace, self.dest, self.const)


def add_command(
    subparsers, name: str, fill: Callable[[argparse.ArgumentParser], None], help: str, old_name: str | None = None
) -> None:
    """Add a subcommand, and its old name, which help texts leave out.

    Args:
        fill: adds the arguments, and `run` as a default.
    """
    fill(subparsers.add_parser(name, help=help, description=help[0].upper() + help[1:] + "."))
    if old_name is not None:
        old = subparsers.add_parser(old_name)
        fill(old)
        run = old.get_default("run")

        def run_renamed(options: argparse.Namespace) -> int:
            note_renamed(old_name, name)
            return run(options)

        old.set_defaults(run=run_renamed)
