"""Workers on a Ray cluster: how they come, are lost, are refused; what is said where none can come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loraloom.config.decode import load_config
from loraloom.errors import ConfigError, DataError, RequestError, RunError, StoreError
from loraloom.execute import Joined, Lost, ray
from loraloom.execute.host import invite
from loraloom.execute.ray import Cluster, RayWorkers, connect
from loraloom.execute.ray_places import WAIT, Needs, Places, places_for
from loraloom.pipeline import places
from loraloom.pipeline.places import machine
from loraloom.train.orders import End, Report, Train

MAKES = "ray_hosts:pretender"


@pytest.mark.parametrize("address", ["ray://head:10001", "127.0.0.1:9"])
def test_an_address_that_leads_nowhere_is_said(
    ray_environment: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """The first of all: whoever is connected stays so."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RequestError, match=r"RAY_ADDRESS is|no Ray cluster answers"):
        connect()


@pytest.fixture(scope="module")
def cluster(ray_environment: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One that is started here, with two cores."""
    ray_environment.setenv("RAY_ADDRESS", "local")
    cluster = connect()
    import ray as real  # what it reads as it is imported has to be set before

    assert real.is_initialized()
    yield cluster
    cluster.close()
    assert not real.is_initialized()


@pytest.fixture
def stays(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """It outlives the workers of one test."""
    monkeypatch.setattr(cluster, "close", lambda: None)
    monkeypatch.setattr(ray, "LOOK_SECONDS", 0.2)
    return cluster


def called(cluster: Cluster, folder: Path, wanted: int, **request: Any) -> RayWorkers:
    return RayWorkers(cluster, invite(MAKES, request), folder, Places(Needs(0, 1), wanted))


def heard(workers: RayWorkers) -> Any:
    told = workers.next(60.0)
    assert told is not None, "nothing within a minute"
    return told


def told(workers: RayWorkers, most: int) -> list[Any]:
    """All that is heard, until no more comes."""
    return [heard(workers) for _ in range(most)]


def test_one_that_is_killed_is_lost_and_another_comes(
    stays: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workers = called(stays, tmp_path, 1)
    assert workers.coming and not workers.workers()
    assert heard(workers) == Joined("w0") and workers.workers() == ["w0"]
    workers.send("w0", [])
    report = heard(workers)
    assert isinstance(report, Report) and report.worker == "w0"
    (event,) = report.events
    assert event.data["pid"] != os.getpid() and event.data["cwd"] == str(Path.cwd())
    workers.send("w0", [End("a", "completed", None, {})])
    with pytest.raises(RunError, match="planted"):
        heard(workers)
    workers.send("w0", [Train()])
    lost = heard(workers)
    assert isinstance(lost, Lost) and lost.worker == "w0" and "died" in lost.reason
    assert str(event.data["pid"]) in lost.reason
    workers.send("w0", [])  # whoever has not heard it yet does no harm
    assert heard(workers) == Joined("w1"), "under a name that nobody had"
    assert workers.next(0.0) is None
    workers.close()
    assert not workers.workers() and not list(tmp_path.iterdir())
    assert not "".join(capfd.readouterr()), "what Ray has to say is kept off the screen"


def test_one_whose_rows_differ_is_refused_once(stays: Cluster, tmp_path: Path) -> None:
    workers = called(stays, tmp_path, 1, other_rows=True)
    lost = heard(workers)
    assert isinstance(lost, Lost) and "other rows" in lost.reason
    with pytest.raises(DataError, match="worker w0 cannot join"):
        workers.next(60.0)
    workers.close()


def test_one_that_dies_as_it_comes_is_not_asked_for_without_end(stays: Cluster, tmp_path: Path) -> None:
    workers = called(stays, tmp_path, 1, dies=True)
    with pytest.raises(RunError, match="no worker comes up"):
        told(workers, 6)
    workers.close()


def test_a_machine_that_does_not_see_the_run_folder_is_named(
    stays: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = called(stays, tmp_path, 1)
    for sign in tmp_path.iterdir():
        sign.write_text("of another folder with this name")
    with pytest.raises(StoreError, match="does not see the run folder"):
        told(workers, 2)
    workers.close()


def test_what_no_machine_has_is_said_before_anything_is_started(stays: Cluster) -> None:
    with pytest.raises(RequestError, match="no machine of the Ray cluster has 1 GPU") as refused:
        places_for(stays.machines(), cuda=True, workers=None)
    assert refused.value.got is not None and "0 GPUs" in refused.value.got
    asked = places_for(stays.machines(), cuda=False, workers=None)
    assert asked.wanted == 1 and asked.needs.cores >= 1 and asked.needs.gpus == 0


def test_a_search_asks_the_cluster_before_it_is_planned(
    stays: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = load_config(None, {"execute": "ray", "limits.devices": 2})
    device, workers = machine(two)
    assert len(workers) == 2 and all("Ray cluster" in place for place in workers)
    assert device.threads >= 1
    with pytest.raises(ConfigError, match="names GPUs of one machine"):
        machine(load_config(None, {"execute": "ray", "limits.devices": ["cuda:0"]}))
    here = places.device_facts()
    monkeypatch.setattr(places, "device_facts", lambda: replace(here, kind="cuda"))
    with pytest.raises(RequestError, match="no machine of the Ray cluster has 1 GPU"):
        machine(two)


Machines = list[dict[str, float]]
"""As Ray lists them."""

GPUS = {"GPU": 4.0, "CPU": 64.0}


@pytest.mark.parametrize(
    ("machines", "cuda", "workers", "asked"),
    [
        ([{"CPU": 8.0}, {"CPU": 4.0}], False, None, Places(Needs(0, 4), 2, 2)),
        ([{"CPU": 8.0}, {"CPU": 4.0}], False, 6, Places(Needs(0, 2), 6, 4)),
        ([{"CPU": 2.0}], False, 8, Places(Needs(0, 1), 8, 2)),
        ([GPUS, GPUS, {"CPU": 8.0}], True, None, Places(Needs(1, 16), 8, 4)),
        ([GPUS, {"GPU": 2.0, "CPU": 8.0}], True, 3, Places(Needs(1, 4), 3, 3)),
        ([{"GPU": 8.0, "CPU": 4.0}], True, None, Places(Needs(1, 0), 8, 8)),
    ],
)
def test_places_are_shared_out_by_what_there_is(
    machines: Machines, cuda: bool, workers: int | None, asked: Places
) -> None:
    assert places_for(machines, cuda=cuda, workers=workers) == asked


def test_a_cluster_that_brings_machines_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = [{"CPU": 2.0}]
    with pytest.raises(RequestError, match=WAIT):
        places_for(bare, cuda=True, workers=2)
    monkeypatch.setenv(WAIT, "600")
    assert places_for(bare, cuda=True, workers=2) == Places(Needs(1, 0), 2)
    monkeypatch.setenv(WAIT, "soon")
    with pytest.raises(RequestError, match="is soon"):
        places_for(bare, cuda=True, workers=2)
