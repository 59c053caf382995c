"""HTML snippets of the page; all foreign text is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import faceverse as fv

from .heads import downloaded_lod
from .tracking_jobs import Motion
from .view_files import file_url
from .words import say, sentence, term

STAGES = {
    "photo": "stage.photo",
    "landmarks": "stage.landmark_points",
    "base": "stage.base",
    "detail": "stage.with_detail",
    "final": "stage.final",
}
MAPS = {
    "texture": "map.texture",
    "smooth": "map.smooth",
    "normal": "map.normal",
    "displacement": "map.displacement",
    "confidence": "map.confidence",
}


def error_line(text: str) -> str:
    """An error message, or nothing."""
    return f'<p class="fv-error" role="alert">{html.escape(text)}</p>' if text else ""


def samples(files: Sequence[Path]) -> str:
    """A button for each sample photograph."""
    buttons = [
        f'<button type="button" data-sample="{number}" aria-label="{html.escape(path.stem)}">'
        f'<img src="{html.escape(file_url(path))}" alt=""></button>'
        for number, path in enumerate(files)
    ]
    return f'<div class="fv-samples">{"".join(buttons)}</div>'


def figures(files: Mapping[str, Path], captions: Mapping[str, str], language: str) -> str:
    """A row of pictures with captions; a click opens a picture in full size."""
    parts = []
    for name, path in files.items():
        address, caption = html.escape(file_url(path)), html.escape(say(captions[name], language))
        parts.append(
            f'<figure><a href="{address}" target="_blank" rel="noopener"><img src="{address}" alt="{caption}"></a>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="fv-figures">{"".join(parts)}</div>'


def stage_times(result: fv.FitResult, language: str) -> str:
    """Table of the stages of a fit: time, steps, change of the loss."""
    rows = []
    for stage in result.stages:
        change = f"{stage.before:.3g} → {stage.after:.3g}" if stage.before else ""
        steps = f"{stage.iterations} {say('page.steps', language)}" if stage.iterations > 1 else ""
        cells = "".join(f"<dd>{html.escape(cell)}</dd>" for cell in (f"{stage.seconds:.2f} s", steps, change))
        rows.append(f"<div><dt>{html.escape(term(f'stage.{stage.name}', stage.name, language))}</dt>{cells}</div>")
    return f'<dl class="fv-times">{"".join(rows)}</dl>' if rows else ""


def report(result: fv.FitResult, is_final: bool, language: str) -> str:
    """Report of a fit as Markdown: time, warnings.

    Args:
        is_final: False where its detail is still to come.
    """
    first = say("page.done", language, seconds=result.seconds) if is_final else say("page.base_done", language)
    return "\n".join([first, *(f"- {sentence(warning, language)}" for warning in result.warnings)])


def saved_report(result: fv.FitResult, language: str) -> str:
    """Report of a head that was opened from a file."""
    return "\n".join([say("page.opened", language), *(f"- {sentence(w, language)}" for w in result.warnings)])


def download(path: Path, kind: str, result: fv.FitResult, lod: str, language: str) -> str:
    """Link to a file with its size and number of triangles; the page starts the download through it.

    Args:
        kind: format of the file, a key of `faceverse.EXPORT_FORMATS`.
        lod: level of detail that the visitor chose.
    """
    link = f'<a href="{html.escape(file_url(path))}" download="{path.name}">{path.name}</a>'
    lod = downloaded_lod(result, kind, lod)
    polygons = len(result.model.coarse.faces if lod == "coarse" else result.faces)
    held = f", {polygons:,} {say('page.triangles', language)}" if fv.EXPORT_FORMATS[kind].levels_of_detail else ""
    if lod == "dense":
        held = f", {say('page.dense_mesh', language)}"
    return f"<p>{link} ({path.stat().st_size / 1e6:.1f} MB{held})</p>"


def motion(motion: Motion, language: str) -> str:
    """Summary and warnings of a motion, as Markdown."""
    track = motion.track
    frames, share = len(track), round(100 * float((track.confidence > 0).mean()))
    text = say("page.motion", language, frames=frames, seconds=motion.seconds, share=share)
    name = motion.name.replace("*", "").replace("`", "")
    warnings = [f"- {sentence(warning, language)}" for warning in track.warnings]
    return "\n".join([f"**{html.escape(name)}**: {text}", *warnings])


def video(path: Path, language: str) -> str:
    """A video to watch, and a link to take it along."""
    address, label = html.escape(file_url(path)), html.escape(say("page.overlay", language))
    shown = f'<video src="{address}" controls autoplay muted loop playsinline aria-label="{label}">'
    return f"{shown}</video>{file_line(path, 'overlay.mp4')}"


def file_line(path: Path, name: str = "") -> str:
    """Link to a file with its size; the page starts the download through it."""
    name = name or path.name
    link = f'<a href="{html.escape(file_url(path))}" download="{name}">{name}</a>'
    return f"<p>{link} ({path.stat().st_size / 1e6:.1f} MB)</p>"


def about(result: fv.FitResult, language: str) -> str:
    """Table of the estimated attributes of a head, each within its range."""
    values = result.model.attributes(result.params)
    rows = []
    for attribute in result.model.data.attributes:
        if attribute.unit == "share":  # of ancestry: useful as sliders, not to be printed as an estimate
            continue
        value = float(values[attribute.name])
        span = attribute.maximum - attribute.minimum
        place = min(max((value - attribute.minimum) / span, 0.0), 1.0)
        name = term(f"attribute.name.{attribute.name}", attribute.name, language).replace("_", " ").capitalize()
        unit = {"years": f" {say('unit.years', language)}", "mm": f" {say('unit.mm', language)}", "degrees": "°"}
        shown = f"{value:.0f}" if attribute.unit == "years" else f"{value:+.1f}"
        rows.append(
            f'<div><dt>{html.escape(name)}</dt><dd><i style="left:{100 * place:.1f}%"></i></dd>'
            f"<dd>{shown}{html.escape(unit.get(attribute.unit, ''))}</dd></div>"
        )
    note = say("page.estimates_note", language)
    return f'<p class="fv-note-small">{html.escape(note)}</p><dl class="fv-about">{"".join(rows)}</dl>'
