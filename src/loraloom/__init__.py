"""loraloom tunes LoRA adapters: many candidates trained at once on one frozen base,
with a reason for every setting.

The public names are below. Each is imported when it is first used, so `import loraloom` costs next to
nothing. The verbs `train` and `plan` share their names with rooms and are imported from
`loraloom.pipeline`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loraloom.config.asked import Config as Config
    from loraloom.config.decode import load_config as load_config
    from loraloom.errors import LoraloomError as LoraloomError
    from loraloom.pipeline.evaluate import evaluate as evaluate
    from loraloom.pipeline.generate import generate as generate
    from loraloom.pipeline.predict import predict as predict
    from loraloom.pipeline.tune import tune as tune
    from loraloom.records import Advice as Advice
    from loraloom.records import Event as Event
    from loraloom.records import Trial as Trial
    from loraloom.store.folder import RunFolder as RunFolder
    from loraloom.store.result import RunResult as RunResult

    __version__: str

_HOMES = {
    "Advice": "records",
    "Config": "config.asked",
    "Event": "records",
    "LoraloomError": "errors",
    "RunFolder": "store.folder",
    "RunResult": "store.result",
    "Trial": "records",
    "evaluate": "pipeline.evaluate",
    "generate": "pipeline.generate",
    "load_config": "config.decode",
    "predict": "pipeline.predict",
    "tune": "pipeline.tune",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("loraloom")
    if name not in _HOMES:
        raise AttributeError(f"module 'loraloom' has no attribute {name!r}")
    return getattr(import_module(f"loraloom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
