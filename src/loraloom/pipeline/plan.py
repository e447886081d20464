"""`loraloom plan`: every setting that would be used, with its reason; nothing is trained."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.pipeline.prepare import Prepared, prepare

Planned = Prepared


def plan(config: Config) -> Planned:
    """Read the request and decide; weights need not be there. Errors as in `prepare`."""
    return prepare(config, weights=False)
