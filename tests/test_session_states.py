"""The state machine of a session, by walking its table, and what the page shows in its states."""

import random
import threading
from types import SimpleNamespace

import pytest
from PIL import Image
from test_demo import event_of, face_at, request_of, result_of

import faceverse as fv

pytest.importorskip("gradio")
from demo import pictures  # noqa: E402
from demo.job_queue import JobQueue  # noqa: E402
from demo.session_states import FITS, TRANSITIONS, VIDEOS, WITHIN_A_JOB, Event, Phase  # noqa: E402
from demo.sessions import Session, Sessions  # noqa: E402


def reached(start):
    """Phases that can follow a phase, in any number of steps."""
    found, ahead = set(), [start]
    while ahead:
        for phase in TRANSITIONS[ahead.pop()].values():
            if phase not in found:
                found.add(phase)
                ahead.append(phase)
    return found


def test_every_phase_is_reached_and_left():
    assert set(TRANSITIONS) == set(Phase)
    for phase in Phase:
        assert phase in reached(Phase.IDLE) and Phase.IDLE in reached(phase), phase
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event), "no event is left over"
    assert set(Phase) == {Phase.IDLE} | FITS | VIDEOS, "each job has its button to cancel"


@pytest.mark.parametrize("phase", Phase)
def test_a_job_can_be_cancelled_and_fail_and_a_photograph_is_always_welcome(phase):
    row = TRANSITIONS[phase]
    assert row[Event.CANCELLED] is row[Event.FAILED] is row[Event.SAVED_HEAD] is Phase.IDLE
    assert row[Event.PHOTOGRAPH] is Phase.FITTING
    if phase in FITS:
        assert Event.VIDEO not in row and Event.DONOR not in row, "a fit is not disturbed"


def test_sessions_walk_the_table(tmp_path):
    session, queue, draw = Session(tmp_path), JobQueue(), random.Random(1)
    for _ in range(2000):
        event, run, phase = draw.choice(list(Event)), session.run_id, session.phase
        assert session.may(event) == (event in TRANSITIONS[phase])
        if not session.may(event):
            with pytest.raises(KeyError):
                session.apply(event)
            assert (session.phase, session.run_id) == (phase, run), "a refused event changes nothing"
            continue
        with queue.enter() as entry:
            session.queue_entry = entry
            number = session.apply(event, text="a step")
            assert session.phase is TRANSITIONS[phase][event] and number == session.run_id
            goes_on = event in WITHIN_A_JOB
            assert (number == run) is goes_on and (entry in queue.entries) is goes_on
        assert (session.status is None) == (session.phase is Phase.IDLE)
        assert session.status is None or session.status["text"] == "a step"


# ------------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def page(tmp_path, monkeypatch, no_network, toy_model):
    """A page whose fits are quick; `hold` makes them wait for `go_on`, which says that they have begun by `begun`."""
    from demo.page import Page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    nothing = pictures.Pictures(None, None, {}, {})
    monkeypatch.setattr(pictures, "of_fit", lambda result, photo, folder: nothing)
    built = Page(Sessions(tmp_path / "sessions"), detail=False)
    built.test = SimpleNamespace(hold=False, go_on=threading.Event(), begun=threading.Event(), faces=1)

    def fit(image, **options):
        built.test.begun.set()
        if built.test.hold:
            assert built.test.go_on.wait(20), "without a word about its progress"
        return result_of(toy_model)

    monkeypatch.setattr(fv, "detect", lambda image: [face_at(100 * k, 90) for k in range(built.test.faces)])
    monkeypatch.setattr(fv, "fit", fit)
    return built


class Visitor:
    """What a visitor sees: the latest value of each component."""

    def __init__(self, page, name="a visitor"):
        self.page, self.request, self.seen = page, request_of(name), {}
        self.session = page.sessions.of(name)

    def get(self, answers):
        for answer in [answers] if isinstance(answers, dict) else answers:
            self.seen |= answer
        return self

    def __getattr__(self, name):
        value = self.seen.get(getattr(self.page.layout, name))
        return getattr(value, "visible", value) if name.endswith(("button", "results", "box")) else value

    def choose_sample(self):
        return self.get(self.page.fits.take_sample(self.request, event_of(index=0)))

    def fit(self):
        return self.get(self.page.fits.fit(self.request))

    def cancel(self):
        return self.get(self.page.fits.cancel_fit(self.request))


@pytest.fixture
def visitor(page):
    return Visitor(page)


def test_a_photograph_that_was_cancelled_does_not_stand_beside_another_head(visitor):
    visitor.choose_sample().cancel()
    assert visitor.photo and visitor.view["status"] is None and not visitor.results and visitor.fit_report == ""
    visitor.choose_sample().fit()
    assert visitor.photo and "Done in" in visitor.fit_report and visitor.results and not visitor.cancel_button
    head = visitor.view["head"]
    visitor.choose_sample()
    assert visitor.cancel_button and visitor.fit_report == ""
    visitor.cancel()
    assert visitor.view["head"] == head and visitor.photo is None and not visitor.cancel_button
    assert "the head you had before" in visitor.fit_report


def test_a_photograph_without_a_face_does_not_stand_beside_an_earlier_head(visitor, page, monkeypatch, tmp_path):
    visitor.choose_sample().fit()

    def fail(image, **options):
        raise fv.NoFaceError("face.none")

    monkeypatch.setattr(fv, "fit", fail)
    visitor.choose_sample().fit()
    assert "fv-error" in visitor.message and visitor.photo is None and "before" in visitor.fit_report
    text = tmp_path / "text.jpg"
    text.write_text("dear diary")
    visitor.get(page.fits.take({"path": str(text)}, visitor.request)).fit()
    assert visitor.photo is None and visitor.session.phase is Phase.IDLE and visitor.results


def test_another_face_that_was_cancelled_leaves_the_photograph(visitor, page):
    page.test.faces = 2
    visitor.choose_sample().fit()
    assert visitor.session.phase is Phase.CHOOSING and visitor.cancel_button
    visitor.get(page.fits.choose(visitor.request, event_of(face=1))).fit()
    assert visitor.other_face_button and visitor.photo
    visitor.get(page.fits.ask_again(visitor.request)).fit()
    assert visitor.view["status"]["choose"]
    visitor.cancel()
    assert visitor.photo and "Done in" in visitor.fit_report, "it is the photograph of this head"


def test_a_second_click_on_a_face_starts_no_second_fit(visitor, page):
    page.test.faces = 2
    visitor.choose_sample().fit()
    ticket = page.fits.choose(visitor.request, event_of(face=1))[page.layout.fit_ticket]
    assert page.layout.fit_ticket not in page.fits.choose(visitor.request, event_of(face=0))
    assert visitor.session.run_id == ticket and visitor.session.fit_job.face == 1


def test_a_saved_head_and_several_photographs_replace_the_photograph(visitor, page, tmp_path, monkeypatch, toy_model):
    visitor.choose_sample().fit()
    saved = tmp_path / "me.json"
    saved.write_text("{}")
    monkeypatch.setattr(fv, "load_result", lambda path: result_of(toy_model))
    visitor.seen[page.layout.download_link] = "<p>head.glb</p>"
    visitor.get(page.fits.take_saved({"path": str(saved)}, visitor.request))
    assert visitor.photo is None and visitor.more_photos is None and visitor.download_link == ""
    assert "Done" not in visitor.fit_report and visitor.results
    visitor.choose_sample().fit()
    uploads = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
        uploads.append({"path": str(tmp_path / name)})
    visitor.get(page.fits.take(uploads, visitor.request))
    assert visitor.photo is None, "none of them is shown, so no earlier one may be"


def test_a_file_that_is_no_head_does_not_end_a_fit(visitor, page, tmp_path):
    visitor.choose_sample()
    (tmp_path / "no.json").write_text("[]")
    visitor.get(page.fits.take_saved({"path": str(tmp_path / "no.json")}, visitor.request))
    assert "fv-error" in visitor.message and visitor.session.phase is Phase.FITTING and visitor.cancel_button
    assert visitor.fit().results


def test_nothing_is_left_when_all_is_deleted(visitor, page):
    visitor.choose_sample().fit()
    for name in ("download_link", "donor_note", "motion_download_link", "overlay_video", "estimates"):
        visitor.seen[getattr(page.layout, name)] = "<p>an earlier one</p>"
    visitor.get(page.fits.clear(visitor.request))
    assert not visitor.results and not visitor.motion_box and visitor.photo is None and visitor.view["status"] is None
    for name in ("download_link", "donor_note", "motion_download_link", "overlay_video", "estimates", "fit_report"):
        assert visitor.seen[getattr(page.layout, name)] == "", name
    assert "head" not in visitor.view


def test_a_new_photograph_overtakes_what_remains_of_the_visitors_own_fit(visitor, page):
    page.test.hold = True
    visitor.choose_sample()
    slow = threading.Thread(target=lambda: list(page.fits.fit(visitor.request)), daemon=True)
    slow.start()
    assert page.test.begun.wait(20)
    page.test.hold = False
    texts = []
    visitor.choose_sample()
    for answer in page.fits.fit(visitor.request):
        visitor.get(answer)
        texts.append((visitor.view["status"] or {}).get("text", ""))
    assert visitor.results and not any("before you" in text for text in texts), "nobody was ahead"
    head = visitor.session.head
    page.test.go_on.set()
    slow.join(20)
    assert not slow.is_alive() and visitor.session.head is head, "the slow one is forgotten"


def test_pictures_of_a_head_keep_nobody_waiting(visitor, page, monkeypatch):
    others = []
    monkeypatch.setattr(pictures, "of_fit", lambda *given: others.append(len(page.services.queue.entries)) or nothing)
    nothing = pictures.Pictures(None, None, {}, {})
    visitor.choose_sample().fit()
    assert others == [0]


# ------------------------------------------------------------------------------------------------------- coming back


def test_a_head_comes_back_after_a_reload_where_it_is_kept(page):
    before = Visitor(page, "before").choose_sample().fit()
    before.get(page.visits.keep(True, before.request))
    token, head, folder = before.view["kept"], before.session.head, before.session.folder
    assert len(token) > 20
    page.close_session(before.request)
    assert folder.exists(), "the visitor may come back"
    after = Visitor(page, "after")
    own = after.session.folder
    after.get(page.visits.resume(after.request, event_of(token=token)))
    assert page.sessions.of("after").head is head and after.view["head"] == before.view["head"]
    assert after.results and after.keep_head is True and "Done in" in after.fit_report and not own.exists()
    page.close_session(after.request)
    page.sessions.close_idle(0)
    assert not folder.exists(), "it is deleted in the end"


def test_the_earlier_page_may_leave_after_the_new_one_has_come(page):
    before = Visitor(page, "before").choose_sample().fit()
    before.get(page.visits.keep(True, before.request))
    after = Visitor(page, "after")
    after.get(page.visits.resume(after.request, event_of(token=before.view["kept"])))
    page.close_session(before.request)
    assert page.sessions.of("after").head is not None and page.sessions.of("after").folder.exists()


@pytest.mark.parametrize("token", ["", "a guess", None, 7])
def test_no_session_is_given_away(page, token):
    other = Visitor(page, "other").choose_sample().fit()
    other.get(page.visits.keep(False, other.request))
    thief = Visitor(page, "thief")
    thief.get(page.visits.resume(thief.request, event_of(token=token)))
    assert page.sessions.of("thief").head is None and thief.view["kept"] == "" and page.sessions.of("other").head
    folder = other.session.folder
    page.close_session(other.request)
    assert not folder.exists(), "nothing is kept unless the visitor wants it"


def test_deleting_all_deletes_what_would_come_back(page):
    visitor = Visitor(page).choose_sample().fit()
    visitor.get(page.visits.keep(True, visitor.request))
    token, head = visitor.view["kept"], visitor.session.head
    visitor.get(page.fits.clear(visitor.request))
    page.close_session(visitor.request)
    after = Visitor(page, "after")
    after.get(page.visits.resume(after.request, event_of(token=token)))
    assert page.sessions.of("after").head is None and head is not None
