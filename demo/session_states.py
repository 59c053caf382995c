"""What a visitor's session is doing: its phases, the events that change them, and the transitions, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Phase(Enum):
    """What the session's job is doing, while it waits in the queue too."""

    IDLE = "idle"
    FITTING = "fitting"  # no head of this photograph yet
    CHOOSING = "choosing"  # the visitor has to choose a face
    REFINING = "refining"  # the base head is there
    BLENDING = "blending"  # fits the second person
    TRACKING = "tracking"
    DRAWING = "drawing"  # the head over the frames of its video


class Event(Enum):
    """What happens to a session."""

    PHOTOGRAPH = "a photograph is chosen, or the same one again for another face"
    DONOR = "a photograph of the second person is chosen"
    VIDEO = "a video is chosen, or to be tracked again"
    OVERLAY = "the head is to be drawn over the video"
    SAVED_HEAD = "a saved head is opened"
    MOTION = "a motion is opened or recorded"
    FACES = "the photograph shows several faces"
    FACE = "the visitor chooses one of them"
    DONOR_FACE = "the visitor chooses one of the second person's photograph"
    BASE_HEAD = "the base head is fitted"
    FINISHED = "the job is finished"
    FAILED = "the job has failed, or could not begin"
    CANCELLED = "the visitor cancels the job"


_ENDS = {event: Phase.IDLE for event in (Event.FINISHED, Event.FAILED, Event.CANCELLED)}
_ALWAYS = {Event.PHOTOGRAPH: Phase.FITTING, Event.SAVED_HEAD: Phase.IDLE} | _ENDS
_VIDEO = {Event.VIDEO: Phase.TRACKING, Event.MOTION: Phase.IDLE}

TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.IDLE: _ALWAYS | _VIDEO | {Event.DONOR: Phase.BLENDING, Event.OVERLAY: Phase.DRAWING},
    Phase.FITTING: _ALWAYS | {Event.FACES: Phase.CHOOSING, Event.BASE_HEAD: Phase.REFINING},
    Phase.CHOOSING: _ALWAYS | {Event.FACE: Phase.FITTING, Event.DONOR_FACE: Phase.BLENDING},
    Phase.REFINING: _ALWAYS,
    Phase.BLENDING: _ALWAYS | {Event.FACES: Phase.CHOOSING, Event.BASE_HEAD: Phase.BLENDING},
    Phase.TRACKING: _ALWAYS | _VIDEO,
    Phase.DRAWING: _ALWAYS | _VIDEO,
}
"""The next phase by phase and event. An event without an entry is refused: the visitor has to wait or to cancel."""

WITHIN_A_JOB = frozenset({Event.BASE_HEAD})
"""Events that neither start nor end a job."""

FITS = frozenset({Phase.FITTING, Phase.CHOOSING, Phase.REFINING, Phase.BLENDING})
VIDEOS = frozenset({Phase.TRACKING, Phase.DRAWING})
"""Phases that the buttons to cancel belong to."""
