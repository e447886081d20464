"""JSON as pages read it."""

from __future__ import annotations

import json
from typing import Any

from loraloom.store.to_json import to_json


def encoded(data: Any) -> bytes:
    """JSON on one line, of values that are plain already: no copy of them is made."""
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError):  # an odd setting of a run
        return to_json(data)
