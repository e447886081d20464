"""`loraloom plan`: every setting that would be used, with its reason; nothing is trained."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.history import with_history
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.plan.explain import Explanation
from loraloom.plan.explain import explain as explain_setting

Planned = Prepared


@device_errors()
def plan(config: Config) -> Planned:
    """Read the request and decide; weights need not be there. Earlier runs correct the
    forecast. Errors as in `prepare`."""
    return with_history(prepare(config, weights=False, race=True))


def explain(config: Config, name: str) -> Explanation:
    """One setting at length: with the plan's value where model and data are given, else
    what holds for any.

    Raises:
        ConfigError: no rule decides a setting of this name.
        RequestError: as in `prepare`.
    """
    if config.model.name_or_path is None or config.data.train is None:
        return explain_setting(name)
    explain_setting(name)  # a wrong name should not wait for the model
    return explain_setting(name, plan(config).plan)
