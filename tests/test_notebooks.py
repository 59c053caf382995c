"""The notebooks run from top to bottom, their two files agree, and their stored outputs can be shown to anybody."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NAMES = sorted({path.stem for path in FOLDER.glob("[0-9]*.*")})
MAX_BYTES = 2_000_000
MAX_CELL_LINES = 20

MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|usr|opt|var|Users|private|content)/\w|site-packages|\b[A-Z]:\\"
)
SPAM = re.compile(r"\b\w*Warning\b|Traceback|^[IWEF]\d{4} |\bDEPRECATED\b|\bINFO:", re.MULTILINE)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def read(path):
    return nbformat.read(path, as_version=4)


def execute(notebook, folder):
    """Runs a notebook in this environment's interpreter, whatever kernels are registered on the machine."""
    manager = jupyter_client.AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(notebook, km=manager, timeout=300, resources=resources)
    client.owns_km = True  # so that it ends the kernel with the run
    return client.execute()


def source_of(cells):
    return [(cell.cell_type, cell.source.strip()) for cell in cells]


def texts_of(output):
    """All text that a viewer may show of an output."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return ["\n".join(output.traceback)]
    return [value if isinstance(value, str) else json.dumps(value) for value in output.data.values()]


def output_complaints(notebook):
    """What is wrong with the stored outputs, in words."""
    complaints, code = [], [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        complaints.append("the cells were not run once, from top to bottom")
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                complaints.append(f"cell {number} stores an error or something written to stderr")
            images = set(output.get("data", {})) & {"image/png", "image/jpeg"}
            for text in () if images else texts_of(output):
                if MACHINE_PATH.search(text):
                    complaints.append(f"cell {number} shows a path of the machine that ran it")
                if SPAM.search(text):
                    complaints.append(f"cell {number} shows a warning")
    return complaints


def kinds_of_outputs(notebook):
    """For each code cell its outputs: streams joined, because where they are cut is a matter of timing."""
    kinds = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [tuple(sorted(o.data)) for o in cell.outputs if o.output_type in ("display_data", "execute_result")]
            kinds.append((any(o.output_type == "stream" for o in cell.outputs), shown))
    return kinds


def test_there_are_notebooks_and_the_map_lists_them():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NAMES and [name for name in NAMES if f"({name}.ipynb)" not in text] == []


def test_both_files_of_a_pair_say_the_same(name):
    script, notebook = jupytext.read(FOLDER / f"{name}.py"), read(FOLDER / f"{name}.ipynb")
    assert source_of(script.cells) == source_of(notebook.cells)
    assert notebook.metadata.jupytext.formats == script.metadata.jupytext.formats == "ipynb,py:percent"


def test_stored_outputs_are_small_clean_and_complete(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < MAX_BYTES
    assert output_complaints(read(path)) == []
    assert not any("execution" in cell.metadata for cell in read(path).cells)  # the hours of the run


def test_first_cell_has_title_badge_and_goals(name):
    first = read(FOLDER / f"{name}.ipynb").cells[0].source
    assert re.match(rf"# {int(name[:2])}\. \w", first)
    assert "colab.research.google.com/github/" in first and "!git clone ADDRESS faceverse" in first
    assert "**You will**" in first and "**You need**" in first


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_badges_can_be_pointed_to_a_published_copy(tmp_path):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(FOLDER.parent / "Makefile", tmp_path)
    for suffix in ("py", "ipynb"):
        shutil.copy(FOLDER / f"{NAMES[0]}.{suffix}", tmp_path / "notebooks")
    assert subprocess.run(["make", "badges"], cwd=tmp_path, capture_output=True).returncode != 0
    for owner in ("ann/heads", "bob/faces"):  # the second time it has to find what the first has written
        subprocess.run(["make", "badges", f"REPO={owner}"], cwd=tmp_path, check=True, capture_output=True)
        files = (tmp_path / "notebooks" / f"{NAMES[0]}.{suffix}" for suffix in ("py", "ipynb"))
        script, notebook = (path.read_text(encoding="utf-8") for path in files)
        for text in (script, notebook):
            assert f"(https://colab.research.google.com/github/{owner}/blob/main/notebooks/{NAMES[0]}.ipynb)" in text
            assert f"`!git clone https://github.com/{owner} faceverse`" in text
        assert source_of(jupytext.reads(script, "py:percent").cells) == source_of(nbformat.reads(notebook, 4).cells)


def test_exercises_come_with_solutions(name):
    cells = read(FOLDER / f"{name}.ipynb").cells
    titles = [line for cell in cells for line in cell.source.splitlines() if re.match(r"## \d+\. ", line)]
    assert [re.sub(r"## \d+\. ", "", title) for title in titles[-2:]] == ["Exercises", "Solutions"]
    solutions = next(k for k, cell in enumerate(cells) if titles[-1] in cell.source)
    assert any(cell.cell_type == "code" for cell in cells[solutions:])


def test_cells_are_short_and_sections_numbered(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    assert [c.source for c in notebook.cells if c.cell_type == "code" and c.source.count("\n") >= MAX_CELL_LINES] == []
    headings = [line for c in notebook.cells if c.cell_type == "markdown" for line in c.source.splitlines()]
    numbers = [int(found[1]) for line in headings if (found := re.match(r"## (\d+)\. ", line))]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 3


@pytest.mark.slow
def test_notebook_runs_and_shows_what_is_stored(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("FACEVERSE_FAST", "1")  # shorter loops, nothing else
    fresh = execute(jupytext.read(FOLDER / f"{name}.py"), tmp_path)
    assert output_complaints(fresh) == []
    assert kinds_of_outputs(fresh) == kinds_of_outputs(read(FOLDER / f"{name}.ipynb"))


def test_a_failing_cell_is_noticed(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        execute(notebook, tmp_path)


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("x/y per cent, 3 / 4, https://example.org/home/page", False),
        ("saved /mnt/ann/out.png", True),
        ("C:\\Users\\ann", True),
        ("lib/site-packages/torch", True),
        ("UserWarning: not writable", True),
        ("W0000 00:00:1 face_landmarker.cc:1] feedback", True),
        ("warnings: none", False),
    ],
)
def test_outputs_that_must_not_be_stored_are_noticed(text, wrong):
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    cell = nbformat.v4.new_code_cell("print()", execution_count=1, outputs=[output])
    assert bool(output_complaints(nbformat.v4.new_notebook(cells=[cell]))) == wrong


def test_cells_out_of_order_and_stderr_are_noticed():
    output = nbformat.v4.new_output("stream", name="stderr", text="hello")
    for cell in (
        nbformat.v4.new_code_cell("1", execution_count=1, outputs=[output]),
        nbformat.v4.new_code_cell("1", execution_count=2),
    ):
        assert len(output_complaints(nbformat.v4.new_notebook(cells=[cell]))) == 1
