"""The gate before Gradio's routes, and the limits of uploaded heads and motions."""

import asyncio
import json

import pytest

import faceverse as fv

pytest.importorskip("gradio")
from demo import heads, tracking_jobs, uploads  # noqa: E402
from demo.gate import MAX_BODY_BYTES, RequestGate  # noqa: E402


class Application:
    """What lies behind the gate: it keeps the bodies that reach it, and gives one answer."""

    def __init__(self, status=200, answer=b"{}"):
        self.bodies, self.status, self.answer = [], status, answer

    async def __call__(self, scope, receive, send):
        body, is_open = b"", True
        while is_open:
            event = await receive()
            body += event["body"]
            is_open = event["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})


def post(application, path, chunks=(b"{}",), language="en", **headers):
    """Status and document of the answer to a request whose body arrives in chunks."""
    events = [{"type": "http.request", "body": c, "more_body": k + 1 < len(chunks)} for k, c in enumerate(chunks)]
    sent, given = [], {"accept-language": language} | {name.replace("_", "-"): v for name, v in headers.items()}

    async def receive():
        return events.pop(0)

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": path,
             "headers": [(name.encode(), value.encode()) for name, value in given.items()]}  # fmt: skip
    asyncio.run(RequestGate(application)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize("path", ["call/nothing", "call/v2/nothing", "run/nothing", "api/nothing/", "call/take"])
def test_unknown_endpoints_are_named(path):
    application = Application()
    status, answer = post(application, f"/gradio_api/{path}")
    assert status == 404 and "/fit, /edit, /render, /export" in answer["detail"] and not application.bodies
    assert answer["code"] == "api.unknown_endpoint"


@pytest.mark.parametrize("path", ["call/fit", "call/v2/render", "run/predict", "run/edit", "queue/join"])
def test_requests_reach_their_endpoint(path):
    application = Application(answer=b'{"event_id": "1"}')
    assert post(application, f"/some/root/gradio_api/{path}", (b"[1, ", b"2]")) == (200, {"event_id": "1"})
    assert application.bodies == [b"[1, 2]"]


@pytest.mark.parametrize("stated", [True, False])
def test_a_long_body_is_refused_before_it_is_parsed(stated):
    application, chunks = Application(), [b"x" * 600_000] * 3
    headers = {"content_length": str(sum(map(len, chunks)))} if stated else {}
    status, answer = post(application, "/gradio_api/call/render", chunks, "zh-CN", **headers)
    assert status == 413 and "1 MB" in answer["detail"] and "请求" in answer["detail"] and not application.bodies


def test_files_and_frames_have_limits_of_their_own():
    for path in ("/gradio_api/upload", "/live/token"):
        application = Application()
        post(application, path, [b"x" * MAX_BODY_BYTES, b"x"])
        assert len(application.bodies[0]) == MAX_BODY_BYTES + 1, path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Cannot move /srv/faceverse/x.jpg to the cache because it was not uploaded", "not an upload of yours"),
        ("Wanted inputs:\n    [<gradio.components.Api object at 0x7f66>]", "not the parameters of this endpoint"),
    ],
)
def test_refusals_name_neither_folders_nor_objects(text, words):
    application = Application(400, json.dumps({"detail": text}).encode())
    status, answer = post(application, "/gradio_api/call/render")
    assert status == 400 and words in answer["detail"]
    assert "/srv" not in answer["detail"] and "0x" not in answer["detail"]


# ------------------------------------------------------------------------------------------------------ uploaded files


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture
def unread(monkeypatch):
    """Makes parsing a file a failure."""

    def parsed(*arguments, **options):
        raise AssertionError("the file was parsed")

    monkeypatch.setattr(fv, "load_result", parsed)
    monkeypatch.setattr(fv, "load_track", parsed)


def test_a_large_head_is_refused_unread(tmp_path, unread):
    path = tmp_path / "me.json"
    with open(path, "wb") as file:
        file.truncate(188_000_000)  # a hole: it takes no room on the disk
    for read in (lambda: heads.open_saved(path, 1), lambda: tracking_jobs.load_motion(path, None)):
        with pytest.raises(fv.ParameterError, match="me.json has 188 MB, more than [12]0"):
            read()


@pytest.mark.parametrize("piece", [b"[],", b"1,", b"{},", b"["])
def test_a_file_of_too_many_values_is_refused_unread(tmp_path, unread, piece):
    path = write(tmp_path / "me.json", b"[" + piece * 210_000)
    with pytest.raises(fv.ParameterError, match="far more numbers than a head"):
        heads.load(path)
    uploads.check_motion(path)  # of which it may hold more


def test_long_texts_do_not_count(tmp_path):
    uploads.check_head(write(tmp_path / "me.json", b'{"texture_png_base64": "' + b"A" * 9_000_000 + b'"}'))
    uploads.check_head(tmp_path / "missing.json")
