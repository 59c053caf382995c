"""The rules of the house, checked on the source text: who imports whom, what files may hold, how long code may be.

The tables below are the layout that docs/architecture.md explains. Every check is a function from source text to a list
of complaints; the last tests of this file feed each of them a text that breaks its rule.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "faceverse"

# A unit is a module or a subpackage of faceverse; it imports only from floors below its own. Floor 0 knows no face.
ROWS = [
    {"errors", "messages", "memory", "threads", "kernels", "mediapipe_tasks", "io", "graphics"},
    {"face_score", "landmarks", "segmentation", "parts", "model", "result"},
    {"official", "weights"},
    {"detail"},
    {"rendering", "formats"},
    {"fitting", "edit", "edit_styles", "edit_values", "edit_hair", "mixing"},
    {"tracking", "training"},
    {"commands", "viewer", "__init__", "__main__"},
]
WITHIN_A_ROW = {
    ("errors", "messages"),
    ("mediapipe_tasks", "errors"),
    ("graphics", "errors"),
    ("graphics", "messages"),
    ("graphics", "kernels"),
    ("io", "errors"),
    ("io", "messages"),
    ("io", "kernels"),
    ("io", "graphics"),
    ("landmarks", "face_score"),
    ("landmarks", "model"),
    ("segmentation", "landmarks"),
    ("model", "parts"),
    ("result", "model"),
    ("result", "parts"),
    ("weights", "official"),
    ("edit", "edit_hair"),
    ("edit", "edit_values"),
    ("edit", "edit_styles"),
    ("edit_hair", "edit_values"),
    ("edit_styles", "edit_hair"),
    ("mixing", "edit_hair"),
    ("mixing", "edit_values"),
    ("mixing", "edit"),
    ("training", "tracking"),
    ("__init__", "viewer"),
    ("__main__", "__init__"),
    ("__main__", "commands"),
}

# Where a package may be imported; every other file of the repository, tests apart, does without it.
HOMES = {
    "mediapipe": ("faceverse/mediapipe_tasks.py",),
    "dlib": ("benchmarks/",),
    "threadpoolctl": ("faceverse/threads.py",),
    "numba": ("faceverse/kernels.py", "benchmarks/"),
    "pytorch3d": ("faceverse/graphics/rasterize.py", "faceverse/graphics/_raster_kernel.py", "benchmarks/"),
    "huggingface_hub": ("faceverse/weights.py",),
    "safetensors": (
        "faceverse/weights.py",
        "faceverse/model/file.py",
        "faceverse/parts/file.py",
        "faceverse/detail/",
        "faceverse/training/",
    ),
    "imageio_ffmpeg": ("faceverse/tracking/clips.py", "benchmarks/"),
    "babel": ("faceverse/messages/",),
    "anny": ("faceverse/training/",),
    "igl": ("faceverse/training/", "benchmarks/"),
    "gradio": ("app.py", "demo/"),
    "plotly": ("demo/", "notebooks/"),
    "argparse": (
        "faceverse/__main__.py",
        "faceverse/commands/",
        "benchmarks/",
    ),
}

OUTSIDE = ("app.py", "demo/", "notebooks/", "benchmarks/")
MAY_IMPORT_SUBMODULES = ("benchmarks/", "notebooks/")  # they time and show the parts, not only the whole

MAX_FILE_BYTES = 10_000_000
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 80
MAX_ARGUMENTS = 8
WIDE = {
    ("faceverse/official/evaluate.py", "evaluate"),  # takes the original's coefficients one by one
    ("faceverse/tracking/__init__.py", "track"),  # all options of a video and a run
    ("faceverse/edit.py", "edit"),  # all that can be changed, by name
    ("faceverse/formats/export.py", "export"),  # all that files can hold, by name
}
MAX_APP_LINES = 30

PUBLIC_NAMES = {
    "load_model", "detect", "fit", "edit", "render", "export", "load_result", "load_track", "track",
    "FaceModel", "FaceParams", "FitResult", "DetectedFace", "Rendering",
    "FaceVerseError", "NoFaceError", "ImageError", "WeightsError", "ParameterError",
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- files


def repository_files():
    """Paths, relative to the repository, of all files that are or will be tracked."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode == 0:
        names = sorted(name for name in answer.stdout.split("\0") if name)
    else:
        folders = ["app.py", "demo", "faceverse", "notebooks", "benchmarks", "weights", "docs", "tests"]
        found = [path for folder in folders for path in [ROOT / folder, *(ROOT / folder).rglob("*")]]
        names = sorted(path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts)
    return [name for name in names if (ROOT / name).is_file()]


FILES = repository_files()


def source_text(name):
    """Python source of a .py file, or of the code cells of a notebook without its magic lines."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".ipynb"):
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in [*"".join(cell["source"]).splitlines(), ""]]
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def is_in(name, places):
    return any(name == place or (place.endswith("/") and name.startswith(place)) for place in places)


PYTHON_FILES = [name for name in FILES if name.endswith((".py", ".ipynb")) and not name.startswith("tests/")]
LIBRARY_FILES = [name for name in PYTHON_FILES if name.startswith("faceverse/")]
CODE_FILES = [name for name in PYTHON_FILES if name.endswith(".py") and not name.startswith("notebooks/")]
OUTSIDE_FILES = [name for name in PYTHON_FILES if is_in(name, OUTSIDE)]
UNITS = {Path(name).parts[1].removesuffix(".py") for name in LIBRARY_FILES}


# --------------------------------------------------------------------------------------------------------------- checks


def unit_of(name):
    """faceverse/fitting/stages.py -> fitting; faceverse/landmarks.py -> landmarks."""
    return Path(name).parts[1].removesuffix(".py")


def imported_names(text, package=()):
    """Dotted names that the text imports anywhere, with each name of a `from` import appended to its module.

    Args:
        text: Python source.
        package: parts of the package that the file lies in, to resolve relative imports.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            found += [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return found


def imported_units(name, text, units):
    """Units of faceverse that a file of faceverse imports; `import faceverse` itself counts as `__init__`."""
    found = set()
    for dotted in imported_names(text, package=Path(name).parts[:-1]):
        parts = dotted.split(".")
        if parts[0] == "faceverse":
            found.add(parts[1] if len(parts) > 1 and parts[1] in units else "__init__")
    return found - {unit_of(name)}


def row_of(unit):
    return next((index for index, row in enumerate(ROWS) if unit in row), None)


def row_complaints(name, text, units):
    unit = unit_of(name)
    if row_of(unit) is None:
        return [f"{name}: {unit} is in no row of the layout"]
    wrong = []
    for other in sorted(imported_units(name, text, units)):
        row = row_of(other)
        if row is None or (row >= row_of(unit) and (unit, other) not in WITHIN_A_ROW):
            wrong.append(f"{name} (row {row_of(unit)}) imports {other} (row {row})")
    return wrong


def home_complaints(name, text):
    roots = {dotted.split(".")[0] for dotted in imported_names(text)}
    return [f"{name} imports {root}" for root in sorted(roots & set(HOMES)) if not is_in(name, HOMES[root])]


def outside_complaints(name, text, public):
    """Code outside the package uses `import faceverse` or `from faceverse import <public name>`, nothing deeper."""
    if is_in(name, MAY_IMPORT_SUBMODULES):
        return []
    allowed = {"faceverse", *(f"faceverse.{public_name}" for public_name in public)}
    # `import faceverse.render` is the submodule, even where `from faceverse import render` is the function.
    plain = [alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names]
    submodules = {dotted for dotted in plain if dotted.startswith("faceverse.")}
    used = {dotted for dotted in imported_names(text) if dotted.split(".")[0] == "faceverse"}
    return [f"{name} imports {dotted}" for dotted in sorted((used - allowed) | submodules)]


def pickle_complaints(name, text):
    wrong = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        if options.get("allow_pickle", False) is not False:
            wrong.append(f"{name}:{node.lineno} allow_pickle")
        if ast.unparse(node.func) == "torch.load" and options.get("weights_only") is not True:
            wrong.append(f"{name}:{node.lineno} torch.load without weights_only=True")
    return wrong


def size_complaints(name, text):
    wrong = []
    if len(text.splitlines()) > MAX_MODULE_LINES:
        wrong.append(f"{name}: {len(text.splitlines())} lines, at most {MAX_MODULE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= node.body[0].end_lineno - node.body[0].lineno + 1
        arguments = [argument.arg for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        count = len([argument for argument in arguments if argument not in ("self", "cls")])
        if lines > MAX_FUNCTION_LINES:
            wrong.append(f"{name}:{node.lineno} {node.name}: {lines} lines, at most {MAX_FUNCTION_LINES}")
        if count > MAX_ARGUMENTS and (name, node.name) not in WIDE:
            wrong.append(f"{name}:{node.lineno} {node.name}: {count} arguments, at most {MAX_ARGUMENTS}")
    return wrong


def script_complaints(name, text, scripts):
    """A benchmark script imports no other script; what scripts share is in modules without a `main`."""
    own = Path(name).stem
    roots = {dotted.removeprefix("benchmarks.").split(".")[0] for dotted in imported_names(text)}
    return [f"{name} imports {root}" for root in sorted(roots & (set(scripts) - {own}))]


MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|farm|root|home|Users)/\w")


def path_complaints(name, text):
    lines = enumerate(text.splitlines(), start=1)
    return [f"{name}:{number} {line.strip()[:100]}" for number, line in lines if MACHINE_PATH.search(line)]


# ---------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("name", LIBRARY_FILES)
def test_library_files_import_only_from_rows_above(name):
    assert row_complaints(name, source_text(name), UNITS) == []


@pytest.mark.parametrize("name", PYTHON_FILES)
def test_optional_packages_stay_at_home(name):
    assert home_complaints(name, source_text(name)) == []


@pytest.mark.parametrize("name", OUTSIDE_FILES)
def test_outside_code_uses_only_public_names(name):
    import faceverse

    assert outside_complaints(name, source_text(name), getattr(faceverse, "__all__", [])) == []


BENCHMARKS = [name for name in CODE_FILES if name.startswith("benchmarks/")]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_scripts_import_no_other_script(name):
    scripts = [Path(other).stem for other in BENCHMARKS if "def main(" in source_text(other)]
    assert "bm_fit" in scripts and "common" not in scripts
    assert script_complaints(name, source_text(name), scripts) == []


def test_app_is_short():
    app = ROOT / "app.py"
    if not app.exists():
        pytest.skip("no app.py")
    assert len(app.read_text(encoding="utf-8").splitlines()) < MAX_APP_LINES


def test_no_large_files():
    large = {name: (ROOT / name).stat().st_size for name in FILES if (ROOT / name).stat().st_size > MAX_FILE_BYTES}
    assert large == {}


def test_no_paths_of_one_machine():
    wrong = []
    for name in FILES:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += path_complaints(name, text)
    assert wrong == []


@pytest.mark.parametrize("name", LIBRARY_FILES)
def test_library_names_no_device(name):
    assert "cuda" not in source_text(name)


@pytest.mark.parametrize("name", CODE_FILES)
def test_no_pickles_are_opened(name):
    assert pickle_complaints(name, source_text(name)) == []


@pytest.mark.parametrize("name", CODE_FILES)
def test_code_is_short(name):
    assert size_complaints(name, source_text(name)) == []


def test_public_surface():
    import faceverse

    assert PUBLIC_NAMES - set(faceverse.__all__) == set()
    assert [name for name in faceverse.__all__ if not hasattr(faceverse, name)] == []
    assert sorted(faceverse.__all__) == sorted(set(faceverse.__all__))


def test_public_names_have_docstrings():
    import faceverse

    objects = {name: getattr(faceverse, name) for name in faceverse.__all__}
    described = {name for name, value in objects.items() if not callable(value) or (value.__doc__ or "").strip()}
    # A dataclass without a docstring gets its signature as one.
    signatures = {name for name, value in objects.items() if (value.__doc__ or "").startswith(f"{name}(")}
    assert set(objects) - (described - signatures) == set()


# ---------------------------------------------------------------------------------------------- the checks can fail


UNITS_OF_THE_EXAMPLES = {"edit", "errors", "graphics", "model", "rendering", "fitting", "__init__"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("faceverse/edit.py", "from .graphics.camera import project", {"graphics"}),
        ("faceverse/edit.py", "from . import graphics, model", {"graphics", "model"}),
        ("faceverse/edit.py", "def f():\n    import faceverse.fitting.stages", {"fitting"}),
        ("faceverse/fitting/loop.py", "from ..model.face_model import FaceModel\nfrom .stages import A", {"model"}),
        ("faceverse/fitting/__init__.py", "from .loop import run\nfrom .. import graphics", {"graphics"}),
        ("faceverse/graphics/camera.py", "from faceverse import fit", {"__init__"}),
        ("faceverse/edit.py", "import importlib\nimportlib.import_module('faceverse.graphics.mesh')", {"graphics"}),
        ("faceverse/graphics/camera.py", "import torch\nfrom math import pi", set()),
    ],
)
def test_imports_are_understood(name, text, expected):
    assert imported_units(name, text, UNITS_OF_THE_EXAMPLES) == expected


@pytest.mark.parametrize(
    ("name", "text", "fine"),
    [
        ("faceverse/rendering/render.py", "from ..graphics.camera import project", True),
        ("faceverse/graphics/camera.py", "from ..rendering.render import render", False),
        ("faceverse/model/face_model.py", "from ..result import FitResult", False),
        ("faceverse/fitting/loop.py", "from .stages import A", True),
        ("faceverse/model/face_model.py", "def f():\n    from .. import fitting", False),
        ("faceverse/helpers.py", "", False),
    ],
)
def test_rows_are_enforced(name, text, fine):
    assert (row_complaints(name, text, UNITS_OF_THE_EXAMPLES) == []) is fine


def test_the_layout_has_no_cycle():
    # The exceptions within a row must not undo what the rows promise.
    order = ["messages", "errors", "kernels", "mediapipe_tasks", "graphics", "io", "parts", "model"]
    order += ["face_score", "landmarks", "segmentation", "result"]
    order += ["official", "weights", "edit_values", "edit_hair", "edit_styles", "edit"]
    order += ["mixing", "tracking", "training", "viewer", "commands", "__init__", "__main__"]
    assert all(order.index(unit) > order.index(other) for unit, other in WITHIN_A_ROW)
    assert all(row_of(unit) == row_of(other) for unit, other in WITHIN_A_ROW)
    units = [unit for row in ROWS for unit in row]
    assert len(units) == len(set(units))


@pytest.mark.parametrize(
    ("complaints", "fine"),
    [
        (home_complaints("faceverse/graphics/mesh.py", "import numba"), False),
        (home_complaints("faceverse/kernels.py", "import numba"), True),
        (home_complaints("demo/page.py", "from gradio import Blocks"), True),
        (home_complaints("faceverse/edit.py", "def f():\n    import gradio as gr"), False),
        (outside_complaints("demo/page.py", "import faceverse as fv\nfrom faceverse import fit", ["fit"]), True),
        (outside_complaints("demo/page.py", "from faceverse import mesh", ["fit"]), False),
        (outside_complaints("demo/page.py", "from faceverse.graphics import mesh", ["fit"]), False),
        (outside_complaints("demo/page.py", "import faceverse.render", ["render"]), False),
        (outside_complaints("benchmarks/bm_a.py", "from faceverse.graphics import mesh", ["fit"]), True),
        (pickle_complaints("a.py", "np.load(path, allow_pickle=True)"), False),
        (pickle_complaints("a.py", "np.load(path, allow_pickle=flag)"), False),
        (pickle_complaints("a.py", "np.load(path, allow_pickle=False)"), True),
        (pickle_complaints("a.py", "torch.load(path)"), False),
        (pickle_complaints("a.py", "torch.load(path, weights_only=True)"), True),
        (script_complaints("benchmarks/bm_a.py", "from bm_b import table", ["bm_a", "bm_b"]), False),
        (script_complaints("benchmarks/bm_a.py", "from benchmarks.bm_b import table", ["bm_a", "bm_b"]), False),
        (script_complaints("benchmarks/bm_a.py", "from common import table", ["bm_a", "bm_b"]), True),
        (path_complaints("a.md", "see /" + "root/x.png"), False),
        (path_complaints("a.md", "see https://example.com/home/x.png and docs/home/x"), True),
        (size_complaints("a.py", "def f(a, b, c, d, e, f, g, h, i):\n    pass"), False),
        (size_complaints("a.py", "def f(self, a, b, c, d, e, f, g, h):\n    pass"), True),
        (size_complaints("a.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES), False),
        (size_complaints("a.py", "x = 1\n" * (MAX_MODULE_LINES + 1)), False),
    ],
)
def test_checks_complain_when_they_should(complaints, fine):
    assert (complaints == []) is fine


def test_network_fixture_blocks_other_machines_only(no_network):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
    with socket.socket() as client, pytest.raises(AssertionError, match="may not use the network"):
        client.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match="may not use the network"):
        socket.create_connection(("example.com", 80))
