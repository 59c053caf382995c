"""What a visitor of the web page reads when the server's disk is full, and what remains on it."""

import errno
import logging
import os

import pytest

import faceverse as fv

pytest.importorskip("gradio")
fit_jobs = pytest.importorskip("demo.fit_jobs")

from demo import tracking_jobs  # noqa: E402


@pytest.mark.parametrize(("claim", "name"), [
    (lambda upload, folder: fit_jobs.claim([upload], folder, show_s=None), "me.jpg"), (tracking_jobs.claim, "me.mp4"),
])  # fmt: skip
def test_an_upload_that_does_not_fit_on_the_disk(claim, name, tmp_path, disk, caplog):
    upload = tmp_path / name
    upload.write_bytes(bytes(1_000_000))
    with caplog.at_level(logging.ERROR), pytest.raises(fv.ImageError) as caught:
        claim(upload, disk.path)
    message = fit_jobs.message_of(caught.value)
    assert message.code == "page.disk" and "try again later" in message.lower()
    assert fit_jobs.explain(caught.value, "zh") == "服务器暂时无法存储文件，请稍后重试。"
    assert os.listdir(disk.path) == [] and upload.exists()
    assert "cannot store files" in caplog.text, "whoever hosts the page reads it"


@pytest.mark.parametrize("claim", [lambda upload, folder: fit_jobs.claim([upload], folder), tracking_jobs.claim])
def test_an_upload_that_was_deleted_is_no_fault_of_the_disk(claim, tmp_path):
    with pytest.raises(fv.ImageError) as caught:
        claim(tmp_path / "gone.jpg", tmp_path)
    assert fit_jobs.message_of(caught.value).code in ("upload.photo_deleted", "upload.video_deleted")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_no_path_of_the_server_is_shown(code, tmp_path, monkeypatch, toy_result):
    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(fv.FaceVerseError, match=str(tmp_path)) as caught:
        fv.export(toy_result, tmp_path / "me.json")
    assert fit_jobs.message_of(caught.value).code == "page.disk"
    assert fit_jobs.message_of(OSError(code, "x")).code == "page.disk"
    assert fit_jobs.message_of(OSError(errno.ENOENT, "x")).code == "page.fault"
