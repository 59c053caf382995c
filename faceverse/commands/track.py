"""The command `python -m faceverse track`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from ..errors import ParameterError
from ..formats.export import export, load_result
from ..model.face_model import FaceModel
from ..tracking import LiveTracker, Track, track
from ..tracking.clips import CLIP_MODES, render_track
from ..tracking.frames import open_source
from ..tracking.motion import TRACK_FORMATS
from ..weights import load_model
from .arguments import add_folder, add_formats, add_model
from .batch import Progress, complain, output_folder


def run_track(options: argparse.Namespace) -> int:
    if (options.input is None) == (options.webcam is None):
        raise ParameterError("command.no_video")
    source = Path("webcam" if options.input is None else options.input)
    with output_folder(options.output) as folder:
        model = load_model(options.model)
        identity = None if options.identity is None else load_result(options.identity, model)
        started = time.perf_counter()
        given = {"identity": identity, "smooth": options.smooth, "focal_px": options.focal_px}
        if options.webcam is not None:
            result = _track_camera(options.webcam, model, given)
        else:
            journal = folder / f"{source.stem}.fvtrack"
            try:
                with Progress() as progress:
                    result = track(
                        source, model, **given, quality=options.quality, on_progress=progress, journal=journal
                    )
            except KeyboardInterrupt:
                if journal.is_file():
                    complain(f"{journal} holds the frames tracked so far; the same command continues from there")
                raise
        for suffix in options.formats:
            print(export(result, folder / f"{source.stem}.{suffix}"))
        if options.video and options.input is None:
            complain("no video is written of a camera, because its frames are not kept")
        elif options.video:
            clip = folder / f"{source.stem}_{options.video}.mp4"
            print(render_track(result, clip, mode=options.video, source=source))
        print(f"{source.stem}: {time.perf_counter() - started:.1f} s")
    return 0


def _track_camera(camera: int, model: FaceModel, given: dict) -> Track:
    """Track a camera until Ctrl+C; a line on the standard error shows the strongest expression of each frame."""
    complain("filming; Ctrl+C ends it and writes the files")
    with LiveTracker(model, **given) as live:
        frames, _ = open_source(camera, 30.0)
        with contextlib.closing(frames), contextlib.suppress(KeyboardInterrupt):
            for seconds, rgb in frames:
                frame = live(rgb, seconds)
                strongest = int(frame.expression.argmax())
                name, weight = model.expression_names[strongest], frame.expression[strongest]
                print(f"\r{seconds:7.1f} s  {name:20s} {weight:.2f}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return live.track()


def add_track(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_track)
    parser.add_argument("input", nargs="?", help="video; a run that was stopped continues where it was")
    text = "track the camera of that number instead (default 0), until Ctrl+C"
    parser.add_argument("--webcam", type=int, nargs="?", const=0, metavar="N", help=text)
    parser.add_argument("--quality", choices=("fast", "high"), default="fast", help="high: about twice the time")
    add_folder(parser)
    parser.add_argument("--identity", type=Path, metavar="JSON", help="result of a fit of the same person")
    parser.add_argument("--no-smooth", dest="smooth", action="store_false", help="no filter over time")
    text = "focal length in pixels of the frames (default: estimated with the person)"
    parser.add_argument("--focal-px", type=float, metavar="F", help=text)
    add_formats(parser, TRACK_FORMATS, "csv,json", "one row or entry for each frame; glb is an animated head")
    modes = "; ".join(f"{name}: {mode.description}" for name, mode in CLIP_MODES.items())
    parser.add_argument("--video", choices=CLIP_MODES, help=f"also write a video. {modes}")
    add_model(parser)
