"""Labels as one text, for a cell of a table."""

from __future__ import annotations

import json

from pprofpy.errors import ProfileFormatError
from pprofpy.model.profile import Label, LabelSet


def to_text(labels: LabelSet) -> str:
    """JSON, `{"key": "value", ...}`; empty if there are no labels."""
    return json.dumps({label.key: label.value for label in labels}) if labels else ""


def from_text(text: str) -> LabelSet:
    """Inverse of `to_text`.

    Raises:
        ProfileFormatError: It is something else.
    """
    if not text:
        return ()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str | int) for value in found.values()):
        raise ProfileFormatError("the recording is damaged: labels that are none")
    return tuple(Label(key, value) for key, value in found.items())
