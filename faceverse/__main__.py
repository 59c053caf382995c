"""The command line: `python -m faceverse COMMAND`, see --help and COMMAND --help.

Results go to the standard output, progress and errors to the standard error. Exit codes: 0 success; 1 failure, with one
line that says why; 2 wrong arguments; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

from . import FaceVerseError, __version__
from .commands.arguments import Parser, add_command
from .commands.batch import add_fit, complain
from .commands.bench import add_bench
from .commands.edit import add_blend, add_edit, add_export, add_randomize, add_render
from .commands.track import add_track
from .commands.train import add_train
from .commands.weights import add_weights
from .messages import Message, reason_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Raises:
        SystemExit: wrong arguments (code 2), or --help and --version (code 0).
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are not text
    try:
        options = build_parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: complain(f"warning: {message}")
            code = options.run(options)
        sys.stdout.flush()
        return code
    except FaceVerseError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except OSError as error:
        if error.filename is not None:  # of another file than the output: a fault of this library
            raise
        if not isinstance(error, BrokenPipeError):
            complain(Message("command.output_fails", reason=reason_of(error)))
        # The interpreter would report the output's fault again when it closes the stream.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The command line's parser, with all commands."""
    parser = Parser(prog="faceverse", description="One photograph in, an editable and textured 3D head out.")
    parser.add_argument("--version", action="version", version=f"faceverse {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, fill, text in (
        ("fit", add_fit, "head from a photograph, from each of many, or from several of one person"),
        ("edit", add_edit, "change a fitted head"),
        ("blend", add_blend, "a head between two fitted heads of one model"),
        ("randomize", add_randomize, "another face, drawn at random around a fitted one"),
        ("render", add_render, "picture of a fitted head"),
        ("export", add_export, "model file of a fitted head for other programs"),
        ("track", add_track, "pose, expression and light in each frame of a video"),
        ("weights", add_weights, "which model file is used, and its contents"),
        ("train", add_train, "build model files from their open sources, or from scans"),
        ("bench", add_bench, "run a benchmark of the source repository"),
    ):
        add_command(commands, name, fill, text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
