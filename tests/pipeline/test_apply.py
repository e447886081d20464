"""Which change `--apply` takes out of a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from loraloom.errors import RequestError
from loraloom.pipeline.apply import applied
from loraloom.records import Finding, Trial
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


def finding(name: str, level: str = "warning", **patch: object) -> Finding:
    return Finding(name, level, "symptom", "evidence", f"mend {name}", patch)  # type: ignore[arg-type]


RATE, RANK, SHUFFLED = (
    finding("rate-too-low", **{"training.learning_rate": 2e-3}),
    finding("rank-surplus", "note", **{"adapter.r": 8}),
    finding("nothing-to-learn"),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A tune whose best trial, t1, is the second."""
    folder = RunFolder.create(tmp_path, "first")
    folder.write_config({"model": {"name_or_path": "base"}})
    result = RunResult(
        "first", "tune", "completed", "base", "causal_lm", "2026-01-01T00:00:00+00:00", best="t1"
    )
    result.trials = [
        Trial(
            "t0",
            "completed",
            {"adapter.r": 4},
            findings=(finding("diverged", "fault", **{"adapter.r": 2}),),
        ),
        Trial("t1", "completed", {"adapter.r": 16}, findings=(SHUFFLED, RANK, RATE)),
    ]
    folder.write_result(result)
    return folder.path


def test_the_first_finding_of_the_best_trial_that_proposes_a_change(run: Path) -> None:
    file, changes = applied(str(run))
    assert file == run / "config.yaml"
    assert changes == {"adapter.r": 16, "training.learning_rate": 2e-3, "name": "first-2"}


def test_a_finding_by_its_name_wins_over_what_its_trial_had(run: Path) -> None:
    assert applied(f"{run}:rank-surplus")[1] == {"adapter.r": 8, "name": "first-2"}
    assert applied(f"{run}:diverged")[1] == {"adapter.r": 2, "name": "first-2"}, (
        "of another trial than the best"
    )


def test_a_finding_about_the_whole_run_goes_upon_its_best_trial(run: Path) -> None:
    folder = RunFolder.open(run)
    result = folder.result()
    result.findings = [finding("answers-cut-off", **{"data.max_length": 64})]
    folder.write_result(result)
    assert applied(str(run))[1] == {"adapter.r": 16, "data.max_length": 64, "name": "first-2"}


def test_a_folder_may_have_a_colon_in_its_name(run: Path) -> None:
    odd = run.rename(run.with_name("a:b"))
    assert applied(str(odd))[1]["training.learning_rate"] == 2e-3
    assert applied(f"{odd}:rank-surplus")[1]["adapter.r"] == 8


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("{run}:overfit", "has no finding `overfit`"),
        ("{run}:nothing-to-learn", "proposes a change"),
        ("{run}/nowhere", "there is no run folder"),
        ("{run}/nowhere:overfit", "there is no run folder"),
    ],
)
def test_what_cannot_be_applied_is_said(run: Path, place: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        applied(place.format(run=run))


def test_a_run_without_findings_says_so(run: Path) -> None:
    folder = RunFolder.open(run)
    result = folder.result()
    result.trials = []
    folder.write_result(result)
    with pytest.raises(RequestError, match="no findings"):
        applied(str(run))


def test_a_run_without_its_config_cannot_be_done_again(run: Path) -> None:
    (run / "config.yaml").unlink()
    with pytest.raises(RequestError, match=r"kept no config\.yaml"):
        applied(str(run))
