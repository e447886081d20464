"""What each worker of this host gets, and what a request for others is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loraloom.config.decode import load_config
from loraloom.errors import ConfigError, RequestError
from loraloom.execute.processes import Place
from loraloom.facts.device import DeviceFacts
from loraloom.pipeline import places
from loraloom.pipeline.places import for_one, machine, places_of

CPU = DeviceFacts("cpu", "a processor", 8 * 2**30, 6 * 2**30, cores=4, bf16_native=False, threads=4)
TWO_GPUS = replace(CPU, kind="cuda", name="a GPU", count=2)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "usable_cores", lambda: 4)
    monkeypatch.setattr(places.os, "sched_getaffinity", lambda pid: {0, 2, 4, 6}, raising=False)


def asked(**given: Any) -> Any:
    return load_config(None, {"limits.devices": given.get("devices"), "execute": given.get("execute")})


def test_cores_and_threads_are_shared_evenly() -> None:
    assert places_of(asked(devices=2), CPU) == (Place(None, (0, 2), 2), Place(None, (4, 6), 2))
    assert [one.cores for one in places_of(asked(devices=3), CPU)] == [(0,), (2,), (4, 6)]
    assert [one.threads for one in places_of(asked(devices=4), replace(CPU, threads=1))] == [1] * 4
    assert len(places_of(asked(execute="processes"), CPU)) == 2


def test_each_gpu_has_one_worker() -> None:
    assert places_of(asked(execute="processes"), TWO_GPUS) == (Place(0), Place(1))
    assert places_of(asked(devices=1), TWO_GPUS) == (Place(0),)
    assert places_of(asked(devices=["cuda:1"]), TWO_GPUS) == (Place(1),)


def test_a_gpu_keeps_the_name_that_this_process_knows_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert Place(1).environment == {"CUDA_VISIBLE_DEVICES": "7"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert Place(1).environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert Place(None, (0, 1), 2).environment == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}


@pytest.mark.parametrize(
    ("device", "devices", "said"),
    [
        (CPU, 5, "asks for 5 workers.*\n.*4 cores"),
        (CPU, ["cuda:0"], "asks for cuda:0.*\n.*no GPU"),
        (TWO_GPUS, 3, "asks for 3 workers.*\n.*2 GPUs"),
        (TWO_GPUS, ["cuda:0", "cuda:2"], "asks for cuda:0, cuda:2.*\n.*cuda:0, cuda:1"),
        (TWO_GPUS, ["cuda:0", "cuda:0"], "asks for cuda:0, cuda:0"),
    ],
)
def test_what_is_not_here_is_said_with_what_is(device: DeviceFacts, devices: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        places_of(asked(devices=devices), device)


def test_one_gpu_of_a_mac_has_one_process() -> None:
    with pytest.raises(RequestError, match="does not work here"):
        places_of(asked(devices=1), replace(CPU, kind="mps"))


def test_a_plan_is_for_what_one_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "device_facts", lambda: CPU)
    monkeypatch.setattr(places, "cores_share", lambda kind: 1.0)
    device, words = machine(asked(devices=2))
    assert (device.free_bytes, device.threads, device.cores) == (3 * 2**30, 2, 2)
    assert words == ("cores 0, 2", "cores 4, 6")
    assert machine(asked()) == (CPU, ())
    monkeypatch.setattr(places, "device_facts", lambda: TWO_GPUS)
    assert machine(asked(devices=2)) == (TWO_GPUS, ("cuda:0", "cuda:1")), "a GPU is nobody else's"


def test_one_candidate_has_one_worker_with_all_that_is_here() -> None:
    assert places_of(for_one(asked(devices=2)), CPU) == (Place(None, (0, 2, 4, 6), 4),)
    assert places_of(for_one(asked(devices=["cuda:1", "cuda:0"])), TWO_GPUS) == (Place(1),)
    assert for_one(asked()) == asked()


def test_workers_are_processes_unless_said_otherwise() -> None:
    assert asked().execute == "inline"
    assert asked(devices=2).execute == "processes"
    assert asked(devices=2, execute="ray").execute == "ray"
    with pytest.raises(ConfigError, match="`execute` is inline, which has no workers"):
        asked(devices=2, execute="inline")
