"""Experiment trackers: each is fed the same events as events.jsonl, and none is
imported unless `report_to` names it.

A tracker is one class with `send` and `close`, listed once in `TRACKERS`. It gets the numbers of each
candidate as a curve of its own; what it cannot take it leaves out. A tracker that fails while the run is
going on is let go with a note: the run's record is its own folder.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loraloom.errors import RequestError, first_line
from loraloom.records import Event

if TYPE_CHECKING:
    from loraloom.pipeline.recorder import Watch

PROJECT = "loraloom"


class Tracker(Protocol):
    """Where events go besides the run folder."""

    def send(self, event: Event) -> None:
        """One event, as it happens."""
        ...

    def close(self, status: str) -> None:
        """The run has ended: "completed", "failed" or "interrupted"."""
        ...


def require_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not known or not installed, before any work.

    Raises:
        RequestError: with the command that installs it.
    """
    for name in names:
        if name not in TRACKERS:
            raise RequestError(
                f"`report_to: {name}` is no tracker", need=", ".join(TRACKERS), next="correct report_to"
            )
        # Each tracker's package, and the extra that installs it, has the tracker's own name.
        if importlib.util.find_spec(name) is None:
            raise RequestError(
                f"`report_to: {name}` needs the package {name}",
                got="not installed",
                next=f'pip install "loraloom[{name}]", or leave report_to empty',
            )


def numbers_of(event: Event) -> dict[str, float]:
    """The finite numbers of an event under the names that a tracker shows: "train/loss",
    "validation/accuracy"."""
    if event.kind not in ("step", "evaluated", "test"):
        return {}
    group = "train" if event.kind == "step" else str(event.data.get("split", "validation"))
    numbers = {
        f"{group}/{key}": float(value)
        for key, value in event.data.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key != "progress"
    }
    # Only NaN and infinities differ from themselves when taken from themselves.
    return {name: value for name, value in numbers.items() if value - value == 0}


def tracked(names: Sequence[str], folder: Path, config: Mapping[str, Any], watch: Watch) -> Watch:
    """`watch` with trackers beside it; `watch` itself where `report_to` names none."""
    return Tracking(names, folder, config, watch) if names else watch


class Tracking:
    """All trackers of a run behind one `Watch`: it may be put in front of any other.

    Args:
        names: `report_to`.
        folder: of the run; its name names the run at the tracker, and trackers that
            write files write below it.
        config: what was asked, as plain values.
        watch: who else is told.

    Raises:
        RequestError: a tracker cannot begin.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, config: Mapping[str, Any], watch: Watch
    ) -> None:
        self.watch = watch
        self.open: dict[str, Tracker] = {name: _begun(name, folder, config) for name in names}

    def __call__(self, event: Event) -> None:
        self.watch(event)
        for name, tracker in list(self.open.items()):
            try:
                tracker.send(event)
                if event.kind == "run_finished":
                    tracker.close(str(event.data.get("status", "completed")))
            except Exception as error:
                # A server that is down must not end hours of training.
                del self.open[name]
                with suppress(Exception):
                    tracker.close("failed")
                text = f"{name} gets no more events: {type(error).__name__}: {error}"
                self.watch(Event("note", at=event.at, data={"text": text}))


def _begun(name: str, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """A tracker that is ready to be fed.

    Raises:
        RequestError: it cannot begin; nobody is logged in, or its server does not answer.
    """
    try:
        return TRACKERS[name](folder, config)
    except Exception as error:
        raise RequestError(
            f"`report_to: {name}` cannot begin",
            got=f"{type(error).__name__}: {first_line(error)}",
            next=f"see that {name} works here by itself, or leave report_to empty",
        ) from error


class TensorBoard:
    """One folder of event files a candidate, in RUN/tensorboard."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Callable[[str], Any] = importlib.import_module(
            "torch.utils.tensorboard"
        ).SummaryWriter
        self._writers: dict[str, Any] = {}

    def send(self, event: Event) -> None:
        name = event.trial or "base"
        numbers = numbers_of(event)
        if numbers and name not in self._writers:
            self._writers[name] = self._writer(str(self._folder / name))
        for key, value in numbers.items():
            self._writers[name].add_scalar(key, value, event.step)
        if event.kind in ("completed", "pruned", "diverged", "failed") and name in self._writers:
            # Of hundreds of candidates only the living ones hold files open.
            self._writers.pop(name).close()

    def close(self, status: str) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class WandB:
    """One run; the curves of candidate t003 are t003/train/loss over t003/step, for
    candidates train side by side."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        self._run: Any = wandb.init(
            project=PROJECT, name=folder.name, config=dict(config), dir=str(folder)
        )
        self._known: set[str] = set()

    def send(self, event: Event) -> None:
        name = event.trial or "base"
        numbers = numbers_of(event)
        if not numbers:
            return
        if name not in self._known:
            self._known.add(name)
            self._run.define_metric(f"{name}/*", step_metric=f"{name}/step")
        self._run.log(
            {
                **{f"{name}/{key}": value for key, value in numbers.items()},
                f"{name}/step": event.step or 0,
            }
        )

    def close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "completed" else 1)


class MLflow:
    """A parent run for the run, and a nested one for each candidate, with its settings as parameters."""

    ENDS: Mapping[str, str] = {"completed": "FINISHED", "pruned": "KILLED", "interrupted": "KILLED"}

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        # The client, not the fluent functions: those have one active run, and
        # candidates train side by side.
        self._client: Any = importlib.import_module("mlflow").MlflowClient()
        experiment = self._client.get_experiment_by_name(PROJECT)
        self._experiment: str = (
            experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        )
        self._parent: str = self._client.create_run(self._experiment, run_name=folder.name).info.run_id
        self._runs: dict[str, str] = {}

    def send(self, event: Event) -> None:
        if event.trial and event.kind == "trial_started":
            self._run(event.trial, event.data.get("params", {}))
        run = self._run(event.trial) if event.trial else self._parent
        for key, value in numbers_of(event).items():
            self._client.log_metric(run, key, value, step=event.step or 0)
        if event.trial and event.kind in ("completed", "pruned", "diverged", "failed"):
            self._client.set_terminated(run, status=self.ENDS.get(event.kind, "FAILED"))

    def close(self, status: str) -> None:
        self._client.set_terminated(self._parent, status=self.ENDS.get(status, "FAILED"))

    def _run(self, trial: str, params: Mapping[str, Any] | None = None) -> str:
        if trial not in self._runs:
            made = self._client.create_run(
                self._experiment, run_name=trial, tags={"mlflow.parentRunId": self._parent}
            )
            self._runs[trial] = made.info.run_id
            for key, value in (params or {}).items():
                self._client.log_param(made.info.run_id, key, value)
        return self._runs[trial]


class Trackio:
    """One run, its curves named as Weights & Biases' are: t003/train/loss."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        trackio = importlib.import_module("trackio")
        self._run: Any = trackio.init(project=PROJECT, name=folder.name, config=dict(config))

    def send(self, event: Event) -> None:
        numbers = numbers_of(event)
        if numbers:
            name = event.trial or "base"
            self._run.log(
                {
                    **{f"{name}/{key}": value for key, value in numbers.items()},
                    f"{name}/step": event.step or 0,
                }
            )

    def close(self, status: str) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
