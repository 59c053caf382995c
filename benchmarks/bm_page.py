"""The web page under load: order, latency, memory and privacy of simultaneous visitors, and the latency of one alone.

Run: python -m faceverse bench page [--visitors 10] [--detail]
The server runs in a process of its own, with folders of its own. Visitors are programs (`gradio_client`) or send
the requests of a browser. Memory is read from /proc, which only Linux has.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from common import table
from gradio_client import Client, handle_file
from PIL import Image
from skimage.data import astronaut

ROOT = Path(__file__).resolve().parent.parent
HEARTBEAT_S = 0.5
TIMEOUT_S = 900
IDLE_CORES = 0.1  # below this load the server has finished its warm-up
TEXTURE_FILE = re.compile(r"texture-[\w-]+\.\w+")
VISITOR_FOLDER = re.compile(r"faceverse/([0-9a-f]{32})/")
HEAD_FILE = re.compile(r"head-[\w-]+\.bin")


# -- server -----------------------------------------------------------------------------------------------------------
class Server:
    """`app.py` in a process of its own.

    Args:
        folder: for the visitors' files.
        detail: fit with skin detail.
    """

    def __init__(self, folder: Path, detail: bool):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.uploads, self.detail = f"http://127.0.0.1:{port}/", folder, detail
        own = {
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder),
            "GRADIO_HEARTBEAT_INTERVAL": str(HEARTBEAT_S),
            "FACEVERSE_DETAIL": "1" if detail else "0",
            "PYTHONPATH": str(ROOT),
        }
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=os.environ | own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() - started > TIMEOUT_S:
                raise SystemExit("the server did not start")
            time.sleep(0.05)
        self.first_byte_s = time.perf_counter() - started

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address, timeout=20) as answer:
                return bool(answer.read(1))
        except OSError:
            return False

    def wait_until_idle(self, seconds: float = 3.0) -> None:
        """Wait until the server is idle."""
        while True:
            before = self.cpu_s()
            time.sleep(seconds)
            if self.cpu_s() - before < IDLE_CORES * seconds:
                return

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000

    def files(self) -> list[Path]:
        """Files of visitors on the server's disk."""
        inner = [path for path in self.uploads.rglob("*") if path.is_file()]
        return [path for path in inner if path.parent != self.uploads / "faceverse"]  # shared by all heads

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


# -- many visitors ----------------------------------------------------------------------------------------------------
class Program:
    """A visitor who uses the HTTP API."""

    def __init__(self, server: Server, folder: Path):
        folder.mkdir()
        self._client, self._detail = Client(server.address, download_files=folder, verbose=False), server.detail

    def fit(self, photo: Path) -> set[str]:
        """Send a photograph and wait; return the names of the received files, which should be one."""
        return {Path(self._client.predict(handle_file(photo), 0, self._detail, api_name="/fit")).name}

    def leave(self) -> None:
        self._client.close()


@dataclass
class Visitor:
    """A visitor who sends a photograph and waits.

    Args:
        arrived_s, served_s: on the same clock.
        received: names of the received files.
        failure: error message, empty if there is none.
    """

    number: int
    client: "Program | Browser"
    photo: Path
    arrived_s: float = 0.0
    served_s: float = 0.0
    received: frozenset[str] = frozenset()
    failure: str = ""

    def fit(self) -> None:
        try:
            self.received = frozenset(self.client.fit(self.photo))
        except Exception as error:
            self.failure = str(error)
        self.served_s = time.perf_counter()


def own_photo(folder: Path, number: int) -> Path:
    """The sample photograph with one changed pixel, so that no two uploads are equal."""
    pixels = astronaut()
    pixels[0, 0] = number
    path = folder / f"visitor-{number}.png"
    Image.fromarray(pixels).save(path)
    return path


def all_together(server: Server, count: int, folder: Path, kind: type) -> None:
    """Serve many visitors of one kind, who arrive half a second after each other."""
    print(f"\n{count} visitors, each a {kind.__name__.lower()}")
    visitors = [Visitor(n, kind(server, folder / str(n)), own_photo(folder, n)) for n in range(count)]
    before = server.memory_mb()
    threads = []
    for visitor in visitors:
        visitor.arrived_s = time.perf_counter()
        threads.append(threading.Thread(target=visitor.fit))
        threads[-1].start()
        time.sleep(0.5)  # for a defined order of arrival
    peak = before
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, server.memory_mb())
        time.sleep(0.2)
    occupied = server.memory_mb()
    print_order(visitors)
    print_privacy(server, visitors)
    for visitor in visitors:
        visitor.client.leave()
    time.sleep(8 * HEARTBEAT_S)
    after = server.memory_mb()
    print(f"memory: {before:.0f} MB before, peak {peak:.0f}, {occupied:.0f} with {count} visitors, {after:.0f} after")
    print(f"        {(occupied - before) / count:+.1f} MB for each present visitor, {after - before:+.0f} MB remain")
    left = server.files()
    print(f"files of visitors after they have left: {len(left)}", *(path.name for path in left[:5]))


def print_order(visitors: list[Visitor]) -> None:
    """Print when each visitor was served; numbers are in order of arrival."""
    start = visitors[0].arrived_s
    served = sorted(visitors, key=lambda one: one.served_s)
    rows = [
        [str(one.number + 1), f"{one.arrived_s - start:.1f}", f"{one.served_s - start:.1f}",
         f"{one.served_s - one.arrived_s:.1f}", one.failure or "served"]
        for one in served
    ]  # fmt: skip
    print(table(["visitor", "arrived at s", "served at s", "waited s", ""], rows))
    order = [one.number for one in served if not one.failure]
    print("in order of arrival:", "yes" if order == sorted(order) else f"no, {[number + 1 for number in order]}")
    gaps = np.diff([one.served_s for one in served])
    if len(gaps):
        print(f"one fit after the other every {statistics.median(gaps):.1f} s (median)")


def print_privacy(server: Server, visitors: list[Visitor]) -> None:
    """Print whether a visitor can reach the files of another one."""
    root = server.uploads / "faceverse"
    files = [path for path in server.files() if path.is_relative_to(root)]
    names = sorted({path.relative_to(root).parts[0] for path in files})
    bits = 4 * min((len(name) for name in names), default=0)
    guesses = [root, *(root / name for name in names[:3]), "/etc/hostname", "..%2f" * 12 + "etc/hostname"]
    reached = [str(guess) for guess in guesses if _status(server, f"gradio_api/file={guess}") == 200]
    print(f"folders: {len(names)} for {len(visitors)} visitors, names of {bits} random bits")
    print("reached by listing folders or climbing out of them:", ", ".join(reached) or "nothing")
    forged = 0
    for path in files[:3]:  # as somebody could who knew the path
        body = {"data": [{"path": str(path), "meta": {"_type": "gradio.FileData"}}, 64, "clay", None]}
        posted = httpx.post(f"{server.address}gradio_api/call/render", json=body).json()
        event = httpx.get(f"{server.address}gradio_api/call/render/{posted['event_id']}", timeout=60).text
        forged += event.startswith("event: complete")
    print(
        f"renderings of other people's heads got by naming their files to the interface: {forged} of {len(files[:3])}"
    )
    received = [name for one in visitors for name in one.received]
    mixed = len(received) - len(set(received)) + sum(len(one.received) > 1 for one in visitors)
    print(f"visitors who received anything but their own head: {mixed}")


def _status(server: Server, path: str) -> int:
    return httpx.get(server.address + path).status_code


# -- one visitor, as a browser ----------------------------------------------------------------------------------------
class Browser:
    """A visitor who sends the requests of Gradio's script in a browser."""

    def __init__(self, server: Server, folder: Path | None = None):
        self.api = f"{server.address}gradio_api"
        self.session = secrets.token_hex(8)
        config = httpx.get(f"{server.address}config", timeout=60).json()
        private = [entry for entry in config["dependencies"] if entry["api_visibility"] == "private"]
        # Gradio numbers events of the same name; the first one belongs to the photograph.
        self._events = {re.sub(r"_\d+$", "", entry["api_name"]): entry for entry in reversed(private)}
        self._defaults = {part["id"]: part["props"].get("value") for part in config["components"]}
        self._http = httpx.Client(timeout=TIMEOUT_S)
        self._gone = threading.Event()
        threading.Thread(target=self._stay, daemon=True).start()

    def _stay(self) -> None:
        """Keep the connection open that tells the server that the visitor is present."""
        address = f"{self.api}/heartbeat/{self.session}"
        with contextlib.suppress(httpx.HTTPError), httpx.stream("GET", address, timeout=None) as beats:
            for _ in beats.iter_lines():
                if self._gone.is_set():
                    return

    def leave(self) -> None:
        self._gone.set()

    def fit(self, photo: Path) -> set[str]:
        """Send a photograph and wait; return the folders of the received files, which should be one."""
        list(self.send("take", self.upload(photo)))
        answers = "".join(answer for answer in self.send("fit") if HEAD_FILE.search(answer))
        if not answers:
            raise RuntimeError("no head received")
        return set(VISITOR_FOLDER.findall(answers))

    def upload(self, path: Path) -> dict:
        with path.open("rb") as file:
            (place,) = self._http.post(f"{self.api}/upload", files={"files": (path.name, file)}).json()
        return {"path": place, "meta": {"_type": "gradio.FileData"}}

    def send(self, name: str, *data, event_data=None) -> Iterator[str]:
        """Start an event of the page; yield each answer as text."""
        entry = self._events[name]
        given = list(data) or [self._defaults.get(part) for part in entry["inputs"]]
        body = {
            "data": given, "event_data": event_data, "fn_index": entry["id"], "session_hash": self.session,
            "trigger_id": entry["targets"][0][0],
        }  # fmt: skip
        if not entry["queue"]:
            yield self._http.post(f"{self.api}/run/predict", json=body).raise_for_status().text
            return
        self._http.post(f"{self.api}/queue/join", json=body).raise_for_status()
        with self._http.stream("GET", f"{self.api}/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") in ("process_generating", "process_completed"):
                    yield json.dumps(message.get("output"))
                if message.get("msg") == "process_completed":
                    return


def alone(server: Server, folder: Path, repeats: int = 5) -> None:
    """Print the seconds from an upload to the first 3D view, and from an edit on the server to its files."""
    browser = Browser(server)
    photo = own_photo(folder, 200)
    started = time.perf_counter()
    list(browser.send("take", browser.upload(photo)))
    first, whole = None, None
    for answer in browser.send("fit"):
        if first is None and HEAD_FILE.search(answer):
            first = time.perf_counter() - started
    whole = time.perf_counter() - started
    print(f"\none visitor: first 3D view after {first or float('nan'):.1f} s, everything after {whole:.1f} s")
    state = {
        "expression": {}, "attributes": {}, "skin": 0, "strength": 1.0, "pose": {"yaw": 0, "pitch": 0, "roll": 0},
        "light": None, "mix": {"identity": 0, "expression": 0, "albedo": 0, "detail": 0},
    }  # fmt: skip
    seconds, textures = [], set()
    for number in range(repeats):
        wanted = state | {"attributes": {"age": 5.0 + 3 * number}}
        started, answered = time.perf_counter(), None
        for answer in browser.send("change", event_data={"state": wanted}):
            if answered is None and TEXTURE_FILE.search(answer):
                answered = time.perf_counter() - started
                textures |= set(TEXTURE_FILE.findall(answer))
        seconds += [answered] if answered is not None else []
    latency = f"{1000 * statistics.median(seconds):.0f} ms (median of {len(seconds)})" if seconds else "no answer"
    print(f"change of age to its files: {latency}; {len(textures)} textures for {repeats} changes")
    browser.leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--visitors", type=int, default=10)
    parser.add_argument(
        "--rounds", type=int, default=1, help="rounds for each kind of visitor, to tell leaks from caches"
    )
    parser.add_argument(
        "--detail", action="store_true", help="fit with skin detail, which takes several times as long"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "uploads", options.detail)
        try:
            print(f"first byte of app.py after {server.first_byte_s:.1f} s")
            server.wait_until_idle()
            Program(server, folder / "first").fit(own_photo(folder, 255))  # memory that the first fit allocates
            kinds = [kind for kind in (Program, Browser) for _ in range(options.rounds)]
            for number, kind in enumerate(kinds):
                (folder / f"round-{number}").mkdir()
                all_together(server, options.visitors, folder / f"round-{number}", kind)
            alone(server, folder)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
