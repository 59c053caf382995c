"""Exceptions of the public interface; every message says what was wrong and what to do."""


class FaceVerseError(Exception):
    """Base of all errors that faceverse raises on purpose."""


class NoFaceError(FaceVerseError):
    """No (such) face was found in the picture."""


class ImageError(FaceVerseError):
    """The picture cannot be read or used."""


class WeightsError(FaceVerseError):
    """A model file is missing, damaged or of the wrong kind."""


class ParameterError(FaceVerseError):
    """An argument has a wrong name, type, shape or range."""
