"""Names and phrases that this project no longer uses occur nowhere, and each has a replacement in the field's terms.

The table holds unambiguous names and phrases only; the words in their plain English sense are free. CHANGELOG.md may
name what was renamed. `EXCEPTIONS` lists deprecated aliases, and names that are stored inside file formats.
"""

import json
import re

import pytest
from test_layout import FILES, ROOT

RETIRED = {
    r"light[_ ](?:version|mesh|model)\b": "coarse, coarse mesh, lod='coarse' (light is illumination)",
    r"StartNetwork|open_start|start_network": "ParameterRegressor, open_parameter_regressor, initial estimate",
    r"MovementNetwork|open_movement": "ExpressionRegressor, open_expression_regressor",
    r"\bhabits?\b": "error_modes, PersonBias",
    r"\bspoken_warnings\b|\b[Rr]emarks?\b": "quality checks, quality_warnings",
    r"\bclear_points\b|\bhidden_points\b": "self_occlusion, visible points",
    r"\b(?:identity|expression|albedo)_basis\b|\bface_index\b": "identity_modes, expression_modes, albedo_modes, faces",
    r"(?<!\w)turned\(": "apply_rotation_update()",
    r"(?<![\w])equations\(": "normal_equations()",
    r"(?<!\w)meet\(": "estimate_person()",
    r"\b(?:class )?(?:Look|Sight|Watch|Subject|Reading|MovingPerson)\(": "PhotometricResiduals, "
    "FrameObservation, FaceTracker, FitInput, LandmarkObservation, TrackedPerson",
    r"\bskin_(?:view|stage|reader)\b": "skin_observation, detail_stage, displacement_regressor",
    r"\brelief\b": "displacement (map), normal map",
    r"\bfold_(?:maps?|atlas)\b|\bexpression_folds?\b": "expression wrinkles",
    r"complete or not at all": "written atomically",
    r"\blo(?:se|ses|st|sing) (?:its|their) votes?\b": "down-weighted as outliers",
    r"\berrs by\b": "is biased by, has an error of",
    r"bridged or held": "interpolated, held",
    r"somebody else's skin|skin of somebody else": "sampled detail",
    r"\bfaceverse[./](?:camera|lighting|mesh|images|files|pickles|model_data|model_file|model_arrays|presets|texture_maps"
    r"|drawing|stylegan|stylegan_layers|skin_detail|detail_file|dense|texture|texture_merge|store|gltf|clips|batch"
    r"|train_commands|edit_commands|rasterize)(?:\.py)?\b(?!/)": "the module's package: docs/architecture.md",
}

# Where a retired name must stay: beside the regular expression, the files that may have it and why.
EXCEPTIONS = {
    r"light[_ ](?:version|mesh|model)\b": (
        "benchmarks/bm_official.py",  # an array in reference files of the original code
        "faceverse/model/face_model.py",  # deprecated alias
        "tests/test_model.py",
    ),
    r"\bhabits?\b": (
        "faceverse/fitting/parameter_regressor.py",  # names stored in weight files
        "faceverse/model/arrays.py",
        "faceverse/tracking/journal.py",  # and in journals
        "tests/test_journal.py",
    ),
    r"\brelief\b": (
        "faceverse/commands/bench.py",  # deprecated name of a benchmark
        "tests/test_cli.py",
        "faceverse/formats/store.py",  # name stored in result files
        "tests/test_skin_detail.py",
    ),
}

SKIPPED = ("CHANGELOG.md", "tests/test_retired_words.py")
TEXT = (
    ".py", ".js", ".mjs", ".html", ".css", ".md", ".po", ".toml", ".txt", ".yml", ".yaml", ".ipynb", "Makefile",
    "Dockerfile",
)  # fmt: skip


def text_of(name):
    """A file's text; of a notebook the sources of its cells, because pictures in its outputs are any letters."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".ipynb"):
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def complaints(name, text, pattern, replacement):
    """file:line of each occurrence of a retired name that is no exception."""
    if name in EXCEPTIONS.get(pattern, ()):
        return []
    lines = enumerate(text.splitlines(), start=1)
    found = [(number, re.search(pattern, line)) for number, line in lines]
    return [f"{name}:{number} {match[0]!r}, say: {replacement}" for number, match in found if match]


@pytest.fixture(scope="module")
def texts():
    names = [name for name in FILES if name.endswith(TEXT) and name not in SKIPPED]
    return {name: text_of(name) for name in names}


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_names_occur_nowhere(texts, pattern):
    found = [complaints(name, text, pattern, RETIRED[pattern]) for name, text in texts.items()]
    assert [line for lines in found for line in lines] == []


def test_exceptions_are_needed(texts):
    unneeded = [
        (pattern, name)
        for pattern, names in EXCEPTIONS.items()
        for name in names
        if not re.search(pattern, texts.get(name, ""))
    ]
    assert unneeded == []


@pytest.mark.parametrize(
    ("text", "pattern_holds"),
    [
        ("light = model.light_version", "light[_ ]"),
        ("the detector's habits are stored", r"habits"),
        ("hessian, gradient = term.equations(state)", r"equations"),
        ("class Look(NamedTuple):", r"Look"),
        ("Files appear complete or not at all.", r"complete or not at all"),
        ("from faceverse.camera import project", r"camera"),
        ("see faceverse/skin_detail.py", r"skin_detail"),
        ("hair and hands lose their vote", r"vote"),
    ],
)
def test_the_check_can_fail(text, pattern_holds):
    """Each example breaks exactly one rule."""
    hits = [pattern for pattern in RETIRED if complaints("a.py", text, pattern, "")]
    assert len(hits) == 1 and pattern_holds in hits[0]


@pytest.mark.parametrize(
    "text",
    [
        "hessian, gradient = term.normal_equations(state)",
        "import faceverse.graphics.camera",
        "light = lighting.default_light()",
        "a photograph that is turned (EXIF)",
        "faceverse/model/texture_maps.py",
        "fv.render(head)",
    ],
)
def test_other_words_are_free(text):
    assert [pattern for pattern in RETIRED if complaints("a.py", text, pattern, "")] == []
