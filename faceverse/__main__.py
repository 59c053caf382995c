"""The command line: `python -m faceverse COMMAND`, see --help and COMMAND --help.

Results go to the standard output, progress and errors to the standard error. Exit code 0: all is well; 1: one line
says what was wrong; 2: wrong arguments; 130: interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from . import (
    FaceModel,
    FaceVerseError,
    LiveTracker,
    ParameterError,
    Track,
    __version__,
    export,
    load_detail,
    load_model,
    load_result,
    render,
    save_image,
    track,
    turntable,
)
from .commands.batch import (
    FORMATS,
    SAMPLE,
    FitOptions,
    Progress,
    complain,
    find_photos,
    fit_each,
    fit_person,
    output_folder,
)
from .commands.edit import (
    add_angles,
    add_blend,
    add_edit,
    add_model,
    add_randomize,
    add_result,
    load,
    rotation,
    run_blend,
    run_edit,
    run_randomize,
)
from .commands.train import add_train, run_train
from .detail.file import save_detail
from .fitting.face_selection import FaceSelector, check_face_selector
from .model.file import content_hash
from .tracking.clips import CLIP_MODES, render_track
from .tracking.frames import open_source
from .weights import convert_model, find_weights

_BENCHMARKS = ("rasterize", "fit", "base", "track", "registration", "detail", "displacement", "page")
_OLD_BENCHMARKS = {"relief": "displacement"}  # deprecated names
TRACK_FORMATS = ("csv", "json", "npz", "glb")
RENDER_MODES = ("color", "albedo", "clay", "normal", "depth", "uv", "wireframe")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Raises:
        SystemExit: wrong arguments (code 2), or --help and --version (code 0).
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    try:
        options = _parser().parse_args(argv)
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
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter would complain again when it closes the stream.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


# -- commands ---------------------------------------------------------------------------------------------------------
def _run_fit(options: argparse.Namespace) -> int:
    faces = tuple(options.face or [0])
    chosen = FitOptions(options.model, faces, options.detail, options.seed, options.focal_px, formats=options.formats)
    with output_folder(options.output) as folder:
        photos = find_photos(options.inputs, folder)
        one_file = options.inputs == [SAMPLE] or len(options.inputs) == 1 and not Path(options.inputs[0]).is_dir()
        if options.together or one_file:
            fit_person(photos, folder, chosen)
            return 0
        return 1 if fit_each(photos, folder, chosen) else 0


def _run_render(options: argparse.Namespace) -> int:
    result = load(options)
    if options.turntable:
        rgb = turntable(result, options.size, mode=options.mode)
    else:
        turned = rotation(options)
        rgb = render(result, options.size, options.mode, rotation=turned, background=options.background).rgb
    print(save_image(options.output, rgb))
    return 0


def _run_export(options: argparse.Namespace) -> int:
    print(export(load(options), options.output, light=options.light, dense=options.dense))
    return 0


def _run_track(options: argparse.Namespace) -> int:
    if (options.input is None) == (options.webcam is None):
        raise ParameterError("give a video, or --webcam for the camera of this computer")
    source = Path("webcam" if options.input is None else options.input)
    with output_folder(options.output) as folder:
        model = load_model(options.model)
        identity = None if options.identity is None else load_result(options.identity, model)
        started = time.perf_counter()
        given = {"identity": identity, "smooth": options.smooth, "focal_px": options.focal_px}
        if options.webcam is not None:
            found = _filmed(options.webcam, model, given)
        else:
            book = folder / f"{source.stem}.fvtrack"
            try:
                with Progress() as progress:
                    found = track(
                        source, model, **given, quality=options.quality, on_progress=progress, journal=book
                    )
            except KeyboardInterrupt:
                if book.is_file():
                    complain(f"{book} holds what is done; the same command goes on from there")
                raise
        for suffix in options.formats:
            print(export(found, folder / f"{source.stem}.{suffix}"))
        if options.video and options.input is None:
            complain("no video is written of what was filmed, because its frames are not kept")
        elif options.video:
            clip = folder / f"{source.stem}_{options.video}.mp4"
            print(render_track(found, clip, mode=options.video, source=source))
        print(f"{source.stem}: {time.perf_counter() - started:.1f} s")
    return 0


def _filmed(camera: int, model: FaceModel, given: dict) -> Track:
    """What a camera sees until Ctrl+C, told line by line."""
    complain("filming; Ctrl+C ends it and writes the files")
    with LiveTracker(model, **given) as live:
        frames, _ = open_source(camera, 30.0)
        with contextlib.closing(frames), contextlib.suppress(KeyboardInterrupt):
            for seconds, rgb in frames:
                answer = live(rgb, seconds)
                strongest = int(answer.expression.argmax())
                name, weight = model.expression_names[strongest], answer.expression[strongest]
                print(f"\r{seconds:7.1f} s  {name:20s} {weight:.2f}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return live.track()


def _run_weights(options: argparse.Namespace) -> int:
    path = find_weights(options.model)
    if options.action == "path":
        print(path)
        return 0
    model = load_model(path)
    if options.action == "verify":
        print(f"{path}: complete and readable, sha256 {content_hash(path)}")
        return 0
    light = model.coarse
    rows = {
        "name": model.name,
        "found at": path,
        "size": f"{path.stat().st_size / 1e6:.2f} MB",
        "sha256": content_hash(path),
        "mesh": f"{len(model.mean_vertices)} vertices, {len(model.faces)} triangles",
        "light mesh": f"{len(light.mean_vertices)} vertices, {len(light.faces)} triangles",
        "modes": f"{len(model.data.identity_modes)} identity, {len(model.data.expression_modes)} expressions, "
        f"{len(model.data.albedo_modes)} albedo",
        "attributes": ", ".join(f"{a.name} ({a.unit}, {a.minimum:g}..{a.maximum:g})" for a in model.data.attributes),
        **{key: value for key, value in model.info.items() if key != "sha256"},
    }
    for key, value in rows.items():
        print(f"{key:12} {value if isinstance(value, (str, Path)) else json.dumps(value, ensure_ascii=False)}")
    return 0


def _run_convert(options: argparse.Namespace) -> int:
    if options.to == "safetensors" and options.output.suffix.lower() != ".safetensors":
        raise ParameterError(f"the new file's name must end in .safetensors, got {options.output.name}")
    with output_folder(options.output.parent):
        if Path(options.input).suffix.lower() in (".pt", ".pth"):
            print(save_detail(load_detail(options.input), options.output))
            return 0
        model = load_model(options.input, strict=not options.keep_unknown)
        print(convert_model(model, options.output, to="arrays" if options.to == "safetensors" else options.to))
    return 0


def _run_bench(options: argparse.Namespace) -> int:
    what = _OLD_BENCHMARKS.get(options.what, options.what)
    if what != options.what:
        warnings.warn(f"bench {options.what} is now named bench {what}", DeprecationWarning, stacklevel=2)
    script = Path(__file__).resolve().parent.parent / "benchmarks" / f"bm_{what}.py"
    if not script.is_file():
        raise ParameterError(
            f"there is no benchmarks/{script.name} beside the package; benchmarks come with the source repository only"
        )
    paths = [str(script.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, str(script), *options.arguments], env=environment, check=False).returncode


# -- arguments --------------------------------------------------------------------------------------------------------
class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="faceverse", description="One photograph in, an editable and textured 3D head out.")
    parser.add_argument("--version", action="version", version=f"faceverse {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(name: str, run: Callable, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        added.set_defaults(run=run)
        return added

    _add_fit(command("fit", _run_fit, "head from a photograph, from each of many, or from several of one person"))
    add_edit(command("edit", run_edit, "change a fitted head"))
    add_blend(command("blend", run_blend, "a head between two fitted heads of one model"))
    add_randomize(command("randomize", run_randomize, "another face made of a fitted one by chance"))
    _add_render(command("render", _run_render, "picture of a fitted head"))
    _add_export(command("export", _run_export, "model file of a fitted head for other programs"))
    _add_track(command("track", _run_track, "pose, expression and light in each frame of a video"))
    _add_weights(command("weights", _run_weights, "which model file is used and what it holds"))
    add_train(command("train", run_train, "build model files from their open sources, or from scans"))
    _add_bench(command("bench", _run_bench, "run a benchmark of the source repository"))
    return parser


def _add_fit(parser: argparse.ArgumentParser) -> None:
    text = f"photographs, folders of photographs, or the word {SAMPLE}"
    parser.add_argument("inputs", nargs="+", metavar="input", help=text)
    _add_folder(parser)
    text = "all photographs show one person: one head, named after the first photograph"
    parser.add_argument("--together", action="store_true", help=text)
    text = "which face: 0 or largest (default), 1, 2 ..., or a place in pixels; once, or once for each photograph"
    parser.add_argument("--face", action="append", type=_face, metavar="N|X,Y", help=text)
    parser.add_argument("--no-detail", dest="detail", action="store_false", help="base model only, no wrinkles")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same result (default 0)")
    parser.add_argument("--focal-px", type=float, metavar="F", help="focal length in pixels of the photograph")
    _add_formats(parser, FORMATS, "glb,json,png", "png is the overview")
    add_model(parser)


def _add_render(parser: argparse.ArgumentParser) -> None:
    add_result(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture: .png .jpg .webp")
    parser.add_argument("--mode", choices=RENDER_MODES, default="color")
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="side of the picture (default 512)")
    parser.add_argument("--background", type=_colour, default=(255, 255, 255), metavar="RRGGBB", help="default ffffff")
    parser.add_argument("--turntable", action="store_true", help="five views side by side")
    add_angles(parser)
    add_model(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    add_result(parser)
    parser.add_argument("output", type=Path, help="new file: .glb .obj .ply .stl .json, .npy for the original's code")
    parser.add_argument("--light", action="store_true", help="the coarse mesh")
    text = "wrinkles and pores in the mesh itself, some 600,000 triangles: .obj .ply .stl"
    parser.add_argument("--dense", action="store_true", help=text)
    add_model(parser)


def _add_track(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="?", help="video; a run that was stopped goes on where it was")
    text = "film instead, with the camera of that number (default 0), until Ctrl+C"
    parser.add_argument("--webcam", type=int, nargs="?", const=0, metavar="N", help=text)
    parser.add_argument("--quality", choices=("fast", "high"), default="fast", help="high: about twice the time")
    _add_folder(parser)
    parser.add_argument("--identity", type=Path, metavar="JSON", help="result of a fit of the same person")
    parser.add_argument("--no-smooth", dest="smooth", action="store_false", help="each frame for itself")
    text = "focal length in pixels of the frames (default: found with the person)"
    parser.add_argument("--focal-px", type=float, metavar="F", help=text)
    _add_formats(parser, TRACK_FORMATS, "csv,json", "one row or entry for each frame; glb is an animated head")
    parser.add_argument("--video", choices=CLIP_MODES, help="also write a video, such as overlay: head over frames")
    add_model(parser)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="action", dest="action", required=True)
    for name, what in (
        ("info", "what the model file holds"),
        ("path", "where the model file lies"),
        ("verify", "read the whole file and print its hash"),
    ):
        add_model(actions.add_parser(name, help=what))
    what = "a model or detail file in another format: official .npy and .pt to .safetensors, any model to official-v2"
    convert = actions.add_parser("convert", help=what, description=what[0].upper() + what[1:] + ".")
    convert.add_argument("input", help="official .npy or .pt, .safetensors, or the word open")
    convert.add_argument("output", type=Path, help="new file: .safetensors, or .npy with --to official-v2")
    convert.add_argument("--to", choices=("safetensors", "official-v2"), default="safetensors", help="format to write")
    convert.add_argument("--keep-unknown", action="store_true", help="leave keys alone that a version does not have")
    convert.set_defaults(run=_run_convert)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=(*_BENCHMARKS, *_OLD_BENCHMARKS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the benchmark itself")


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the results (default out)")


def _add_formats(parser: argparse.ArgumentParser, known: tuple[str, ...], default: str, note: str) -> None:
    def formats(text: str) -> tuple[str, ...]:
        names = [name.strip().lower().removeprefix(".") for name in text.split(",") if name.strip()]
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise argparse.ArgumentTypeError(f"unknown format {text!r}, choose from {','.join(known)}")
        return tuple(dict.fromkeys(names))

    help = f"files to write, of {','.join(known)} (default {default}); {note}"
    parser.add_argument("--format", dest="formats", type=formats, default=formats(default), metavar="A,B", help=help)


def _face(text: str) -> FaceSelector:
    if text == "largest":
        return text
    try:
        face = tuple(float(part) for part in text.split(",")) if "," in text else int(text)
        check_face_selector(face)
        return face
    except (ValueError, ParameterError):
        message = f"expected 0 (the largest), 1, 2 ..., largest, or a place X,Y in pixels, got {text!r}"
    raise argparse.ArgumentTypeError(message)


def _colour(text: str) -> tuple[int, int, int]:
    try:
        if len(digits := text.removeprefix("#")) == 6:
            return tuple(bytes.fromhex(digits))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected a colour as six hexadecimal digits, got {text!r}")


if __name__ == "__main__":
    sys.exit(main())
