"""The rate of products: that of an idle machine, whoever else has the cores while it is measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.facts import device, speed
from loraloom.facts.speed import BUSY, Clocks, Span, Speed, measured, remembered_speed

OPERATIONS = 1e9


class Machine:
    """A product takes `seconds` on `cores`; of these this process gets `share`, others
    have what they want of the rest."""

    def __init__(
        self, seconds: float, cores: int, share: float, *, others: bool = True, tells: bool = True
    ) -> None:
        self.seconds, self.cores, self.share, self.others, self.tells = (
            seconds,
            cores,
            share,
            others,
            tells,
        )
        self.wall = self.own = self.all = 100.0

    def product(self) -> None:
        took = self.seconds / self.share
        self.wall += took
        self.own += self.seconds * self.cores
        self.all += took * self.cores if self.others else self.seconds * self.cores

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall, lambda: self.own, lambda: self.all if self.tells else math.nan)

    def speed(self) -> Speed:
        return measured(self.product, OPERATIONS, self.cores, self.clocks())


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("share", [0.05, 0.36, 0.7])
def test_a_busy_machine_is_measured_as_if_it_were_idle(cores: int, share: float, tells: bool) -> None:
    idle, busy = Machine(0.01, cores, 1.0).speed(), Machine(0.01, cores, share, tells=tells).speed()
    assert idle == Speed(pytest.approx(OPERATIONS / 0.01), 1.0)
    assert busy == Speed(pytest.approx(OPERATIONS / 0.01), pytest.approx(share))


def test_noise_does_not_count_as_other_processes() -> None:
    assert Machine(0.01, 2, 1 / BUSY + 0.01).speed().share == 1.0


def test_cores_that_a_product_leaves_idle_are_taken_by_nobody() -> None:
    alone = Machine(0.01, 4, 0.5, others=False).speed()
    assert alone == Speed(pytest.approx(OPERATIONS / 0.02), 1.0), (
        "a product that uses half the cores is no faster for it"
    )


def test_a_slow_product_on_a_crowded_machine_does_not_take_for_ever() -> None:
    machine = Machine(0.5, 1, 0.02)
    assert machine.speed().flops == pytest.approx(OPERATIONS / 0.5)
    assert machine.own - 100 < 1.5, "one to warm up, one that counts"


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.integers(1, 64))
def test_a_share_of_the_cores_lies_between_0_and_1(
    wall: float, own: float, every: float, cores: int
) -> None:
    assert 0 < Span(wall, own, every).share(cores) <= 1


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "loraloom" / "matmul_flops.json"


def test_what_was_measured_beside_others_is_used_and_not_kept(cache: Path) -> None:
    assert remembered_speed("here", Speed(5.0, 0.5)) == Speed(5.0, 0.5)
    assert not cache.exists()
    assert remembered_speed("here", Speed(4.0)) == Speed(4.0)
    assert remembered_speed("here", Speed(1.0, 0.2)) == Speed(4.0, 0.2)
    assert json.loads(cache.read_text()) == {"here": 4.0}


def test_a_better_idle_rate_replaces_what_a_busy_machine_once_left(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text('{"here": 0.01, "there": 3.0}')
    assert remembered_speed("here", Speed(4.0)) == Speed(4.0)
    assert remembered_speed("here", Speed(3.5)) == Speed(4.0)
    assert json.loads(cache.read_text()) == {"here": 4.0, "there": 3.0}


def test_the_rate_is_kept_by_device_precision_threads_and_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "measured", lambda run, operations, cores: Speed(operations, 1.0))
    found = speed.matmul_speed_now("cpu", "float32")
    ((key, kept),) = json.loads(cache.read_text()).items()
    assert found == Speed(kept, 1.0)
    for part in ("cpu ", "float32", "threads", "torch 2"):
        assert part in key


def test_the_speed_of_this_machine_is_above_0() -> None:
    found = speed.matmul_speed("cpu", "float32")
    assert found.flops > 0 and 0 < found.share <= 1
    assert speed.matmul_flops("cpu", "float32") == found.flops


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 8), ("250000 100000", 3), ("1000 100000", 1), ("6400000 100000", 8), ("", 8)],
)
def test_a_container_s_share_of_the_processor_counts_as_its_cores(
    limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(device, "CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert device.usable_cores() == cores
