"""The search benchmark: a replay charges what the clock says, judges by the truth, and
its committed result stands."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import load

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "search"
sys.path.insert(0, str(FOLDER))

import clock as clock_file  # noqa: E402
import contestants  # noqa: E402
import definitions  # noqa: E402
import judge  # noqa: E402
import live  # noqa: E402
import replay as replay_file  # noqa: E402
import table as table_file  # noqa: E402
import tasks  # noqa: E402
import trainer  # noqa: E402
import world as world_file  # noqa: E402

import report  # noqa: E402

RATE, BATCH = "training.learning_rate", "training.per_device_train_batch_size"
TRAINER = clock_file.Trainer({"4": 0.04, "8": 0.05}, 0.02, 0.1)
CLOCK = clock_file.Clock(
    clock_file.Engine(0.01, 0.001, 0.002, 0.004, 0.006, 0.003), TRAINER, TRAINER, {}, 0.0
)


run: Any = load("search")


WILD = 3e-3


def made_table(noise: float = 0.02, wild: bool = False, task: str = "stories") -> Any:
    """A table whose best rate is the plan's, and where only the rate matters; the plan's times 4 and
    more diverge if `wild`."""
    draw, definition = np.random.default_rng(0), definitions.DEFINITIONS[task]
    plan = {
        **definition.settings,
        RATE: 1e-3,
        "adapter.lora_alpha": 2.0 * definition.settings["adapter.r"],
    }
    settings = tasks.settings_of(definition.space(plan))
    table = table_file.Table.empty(definition, len(settings), 1e-3, 2.0)
    rows = np.linspace(-0.2, 0.2, definition.validation_rows)
    for number, params in enumerate(settings):
        off = abs(math.log2(params.get(RATE, 1e-3) / 1e-3))
        for seed in range(tasks.SEEDS):
            luck = noise * draw.standard_normal()
            for turn in range(tasks.EVALUATIONS):
                level = 1 + 0.1 * off + 1.0 / (turn + 1) + luck
                table.validation[number, seed, turn] = level + rows
            table.train[number, seed], table.first[number, seed] = 1.0, 2.5
            table.held[number, seed] = 1 + 0.1 * off + 0.125 + luck
            if wild and params[RATE] > WILD:
                table.diverged[number, seed] = 2
    table.done[:] = True
    table.base = np.full(definition.validation_rows + definition.held_rows, 3.0, np.float16)
    table.weights = np.ones_like(table.base)
    return table


@pytest.fixture(scope="module")
def world() -> Any:
    return world_file.World(made_table(), definitions.DEFINITIONS["stories"])


# -- the space and the table
# -------------------------------------------------------------------------------------


def test_the_grid_has_128_settings_and_the_plan_s_own_is_one_of_them(world: Any) -> None:
    assert len({repr(params) for params in world.settings}) == 128
    own = world.settings[world.default]
    assert own[RATE] == 1e-3 and own["adapter.lora_alpha"] == 2.0 * own["adapter.r"] and own[BATCH] == 8


def test_the_plan_s_range_is_a_part_of_the_grid(world: Any) -> None:
    near = tasks.settings_of(world.planned)
    assert len(near) == world.planned.size == 80
    assert {world.number(params) for params in near} < set(range(128))
    assert (
        min(params[RATE] for params in near) == 2.5e-4 and max(params[RATE] for params in near) == 4e-3
    )


def test_every_grid_holds_the_plan_s_own_setting_once_and_its_alpha_follows_the_rank() -> None:
    for name in definitions.DEFINITIONS:
        made = world_file.World(made_table(task=name), definitions.DEFINITIONS[name])
        assert len({repr(params) for params in made.settings}) == len(made.settings) >= 60
        own = {**made.plan, **made.settings[made.default]}
        assert {key: own[key] for key in made.plan} == made.plan
        assert all(params["adapter.lora_alpha"] == 2.0 * params["adapter.r"] for params in made.settings)


def test_without_rates_the_plan_s_range_is_the_whole_grid_and_steps_are_the_plan_s() -> None:
    made = world_file.World(made_table(task="verses"), definitions.DEFINITIONS["verses"])
    assert made.planned.size == len(made.settings)
    course = contestants.default_only(made, CLOCK, 0, 1)
    steps = definitions.TRAIN_ROWS // made.plan[BATCH]
    assert course.seconds == pytest.approx(0.1 + steps * 0.04 + tasks.EVALUATIONS * 0.02)


def test_a_task_with_other_rows_is_judged_by_them() -> None:
    definition = definitions.DEFINITIONS["reviews"]
    made = world_file.World(made_table(task="reviews"), definition)
    assert (
        len(made.score((0, 0), 0).costs) == len(made.confirm((0, 0)).costs) == definition.validation_rows
    )
    assert not made.races_apart and made.race((0, 0)) == made.best((0, 0))
    assert len(made.tests[0][0].costs) == definition.test_rows


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table = made_table()
    table.write(tmp_path / "t.npz")
    again = table_file.Table.read(tmp_path / "t.npz")
    assert all(np.array_equal(value, getattr(again, name)) for name, value in vars(table).items())


def test_an_unfinished_table_is_refused() -> None:
    table = made_table()
    table.done[3, 1] = False
    with pytest.raises(ValueError, match="1 trainings of the table are missing"):
        world_file.World(table, definitions.DEFINITIONS["stories"])
    with pytest.raises(ValueError, match="of another task"):
        world_file.World(made_table(task="reviews"), definitions.DEFINITIONS["stories"])


# -- the clock
# ---------------------------------------------------------------------------------------------------


def test_a_training_alone_costs_its_start_its_steps_and_its_evaluations(world: Any) -> None:
    course = contestants.default_only(world, CLOCK, 0)
    steps = definitions.TRAIN_ROWS // 8
    assert course.seconds == pytest.approx(0.1 + steps * 0.05 + tasks.EVALUATIONS * 0.02)
    assert course.winner == world.default


def test_a_pack_costs_one_tick_for_all(world: Any) -> None:
    pack, course = replay_file.Pack(world, CLOCK.engine), replay_file.Course()
    replay_file.run_all(pack, course, [(world.default, 0), (world.default, 1)], pack_size=2)
    steps = definitions.TRAIN_ROWS // 8
    ticks, evaluations = steps * (0.01 + 16 * 0.001 + 2 * 0.002), tasks.EVALUATIONS * (0.004 + 2 * 0.006)
    assert pack.seconds == pytest.approx(2 * 0.003 + ticks + evaluations)
    assert [one.status for one in course.ended] == ["completed", "completed"]


def test_going_on_from_an_evaluation_costs_the_rest_only(world: Any) -> None:
    whole, first, rest = (replay_file.Pack(world, CLOCK.engine) for _ in range(3))
    places = [(world.default, 0)]
    replay_file.run_all(whole, replay_file.Course(), places, pack_size=1)
    replay_file.run_all(first, replay_file.Course(), places, pack_size=1, until=2)
    replay_file.run_all(rest, replay_file.Course(), places, pack_size=1, since=2)
    assert first.seconds + rest.seconds == pytest.approx(whole.seconds + 0.003)


# -- the contestants
# ---------------------------------------------------------------------------------------------


def test_who_waits_costs_a_pause_and_a_start_and_goes_on_where_it_was(world: Any) -> None:
    engine = replace(CLOCK.engine, wait=0.5, again=0.75)
    pack = replay_file.Pack(world, engine)
    pack.join("it", (world.default, 0))
    while not pack.tick():
        pass
    seat, before = pack.seats["it"], pack.seconds
    pack.pause("it")
    assert not pack.seats and pack.seconds == pytest.approx(before + 0.5)
    pack.go_on("it")
    assert (
        pack.seats["it"] is seat
        and seat.turns == 1
        and pack.seconds == pytest.approx(before + 0.5 + 0.75)
    )
    pack.pause("it")
    assert pack.leave("it", "pruned").turns == 1 and pack.seconds == pytest.approx(
        before + 2 * (0.5 + 0.75)
    )


def test_a_pause_is_the_price_of_a_search_that_starts_wide(world: Any) -> None:
    slow = replace(CLOCK, engine=replace(CLOCK.engine, wait=1.0))
    quick, dear = (contestants.Ours()(world, clock, 2, 16) for clock in (CLOCK, slow))
    assert quick.winner == dear.winner and dear.seconds > quick.seconds + 8
    assert sum(one.status == "completed" for one in dear.ended) < 8


@pytest.mark.parametrize("name", list(contestants.CONTESTANTS))
def test_every_search_ends_and_declares_a_completed_winner(world: Any, name: str) -> None:
    after = world_file.World(world.table, definitions.DEFINITIONS["stories"], world)
    courses = contestants.search(after, CLOCK, name, 16, 2)
    assert set(courses) <= set(contestants.called())
    for course in (one for each in courses.values() for one in each):
        completed = {one.place[0] for one in course.ended if one.status == "completed"}
        assert course.winner in completed
        assert len(course.ended) <= 16
        assert course.seconds >= max(one.seconds for one in course.ended)


def test_a_race_costs_time_and_says_how_sure_it_is(world: Any) -> None:
    courses = contestants.search(world, CLOCK, contestants.LORALOOM, 16, 3)
    plain, raced = courses[contestants.LORALOOM], courses[contestants.LORALOOM + contestants.RACED]
    assert all(after.seconds > before.seconds for before, after in zip(plain, raced, strict=True))
    assert all(one.said is None for one in plain)
    assert all((one.said is None) == (one.winner == world.default) for one in raced)


def test_a_search_that_looks_back_tries_what_won_before(world: Any) -> None:
    definition = definitions.DEFINITIONS["lower-wiki"]
    table = made_table(task="lower-wiki")
    alone, after = (world_file.World(table, definition, before) for before in (None, world))
    assert contestants.sizes_of(contestants.INFORMED, alone) == [] and contestants.sizes_of(
        contestants.INFORMED, after
    )
    earlier = contestants.Ours()(world, CLOCK, 4, contestants.EARLIER)
    known = replay_file.known_from(world, earlier)
    won = [one for one in known if one.reason]
    assert [world.number({key: one.params[key] for key in world.settings[0]}) for one in won] == [
        earlier.winner
    ]
    assert won[0].standing == max(one.standing for one in known) == 1.0
    course = contestants.informed(after, CLOCK, 3, 8)
    assert earlier.winner in {one.place[0] for one in course.ended}


def test_a_replay_repeats_itself_and_another_number_does_not(world: Any) -> None:
    one, same, other = (contestants.Ours()(world, CLOCK, number, 16) for number in (5, 5, 6))
    assert one == same and one != other


def test_whole_searches_of_one_number_train_the_same_settings_packed_or_alone(world: Any) -> None:
    alone = contestants.sequential_planned(world, CLOCK, 2, 16)
    packed = contestants.Ours("none", "random")(world, CLOCK, 2, 16)
    top = contestants.keep_top(world, CLOCK, 2, 16)
    settings = {one.place[0] for one in alone.ended}
    assert settings == {one.place[0] for one in packed.ended} == {one.place[0] for one in top.ended}
    assert sum(one.status == "completed" for one in top.ended) == 4


def test_what_the_trainer_gave_up_is_told_as_diverged() -> None:
    wild = world_file.World(made_table(wild=True), definitions.DEFINITIONS["stories"])
    course = contestants.Ours("careful", "random")(wild, CLOCK, 0, 64)
    asked = {one.place for one in course.ended if wild.settings[one.place[0]][RATE] > WILD}
    assert asked
    assert all(
        one.status != "completed" and one.turns <= 3 for one in course.ended if one.place in asked
    )
    whole = contestants.Ours("none", "random")(wild, CLOCK, 0, 64)
    assert {(one.status, one.turns) for one in whole.ended} == {("completed", tasks.EVALUATIONS)}


# -- the verdict
# -------------------------------------------------------------------------------------------------


def course_of(world: Any, *ended: tuple[float, int, str, float], winner: int) -> Any:
    made = [
        replay_file.Ended(seconds, (number, 0), 8, status, cost)
        for seconds, number, status, cost in ended
    ]
    return replay_file.Course(made, ended[-1][0], winner)


def test_the_target_is_reached_once_the_best_so_far_stays_within_it(world: Any) -> None:
    good, bad = world.default, int(np.argmax(world.truth))
    assert world.good[good] and not world.good[bad]
    straight = course_of(world, (1.0, bad, "completed", 2.0), (2.0, good, "completed", 1.5), winner=good)
    assert judge.reached(world, straight) == 2.0
    lost_again = course_of(
        world, (1.0, good, "completed", 2.0), (2.0, bad, "completed", 1.5), winner=bad
    )
    assert math.isinf(judge.reached(world, lost_again))
    found_again = replace(
        lost_again, ended=[*lost_again.ended, replay_file.Ended(3.0, (good, 1), 8, "completed", 1.4)]
    )
    assert judge.reached(world, found_again) == 3.0
    worse = course_of(world, (1.0, good, "completed", 1.0), (2.0, bad, "completed", 1.5), winner=good)
    assert judge.reached(world, worse) == 1.0


def test_a_false_prune_would_have_beaten_the_winner(world: Any) -> None:
    good, bad = world.default, int(np.argmax(world.truth))
    wrong = course_of(world, (1.0, good, "pruned", 2.0), (2.0, bad, "completed", 1.6), winner=bad)
    right = course_of(world, (1.0, bad, "pruned", 2.0), (2.0, good, "completed", 1.1), winner=good)
    found = judge.judge(world, [wrong, right])
    assert (
        found.false_prunes == 0.5
        and found.lost == 0.5
        and found.hit == 0.5
        and found.false_winners == 0.5
    )
    assert found.cut == 1.0 and found.target == (2.0, 2.0, math.inf)


def judged_of(seconds: float, hit: float) -> Any:
    return judge.Judged((0, 1, 2), (seconds / 2, seconds, 2 * seconds), hit, 0, None, 0, 0, 0)


def test_the_shortest_search_that_hits_often_enough_is_found() -> None:
    ours = {8: judged_of(2, 0.4), 16: judged_of(3, 0.8), 32: judged_of(5, 0.8)}
    theirs = {8: judged_of(4, 0.1), 16: judged_of(9, 0.6), 32: judged_of(18, 0.7)}
    assert judge.shortest(ours, 0.75) == judge.Shortest(16, 3)
    assert (
        judge.shortest(theirs, 0.75) is None and judge.times_sooner(None, judge.Shortest(16, 3)) is None
    )
    assert judge.times_sooner(judge.shortest(theirs, 0.5), judge.shortest(ours, 0.5)) == 3.0


def test_what_was_said_is_held_against_what_came_true() -> None:
    bins = judge.calibration([(0.6, True), (0.7, False), (0.92, True), (0.99, True), (0.2, False)])
    assert [winners for winners, _, _ in bins] == [3, 0, 1, 1]
    assert bins[0][1:] == (pytest.approx(0.5), pytest.approx(1 / 3)) and bins[2] == (1, 0.92, 1.0)
    assert judge.calibration([]) == ()
    both = judge.pooled([bins, (), judge.calibration([(0.5, True)])])
    assert (
        both[0] == (4, pytest.approx(0.5), pytest.approx(0.5))
        and both[1][0] == 0
        and both[3] == (1, 0.99, 1.0)
    )


# -- the command
# -------------------------------------------------------------------------------------------------


def test_from_committed_files_to_a_result_that_can_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "known_of", run.known_of.__wrapped__)
    assert run.ready() == []
    assert "--make table --task stories" in capsys.readouterr().err
    made_table().write(tmp_path / "table_stories.npz")
    clock = {**CLOCK.plain(), "peaks": {"alone": 2_000_000, "packed": 5_000_000, "trainer": 9_000_000}}
    (tmp_path / "clock.json").write_text(json.dumps({"stories": clock}))
    assert run.ready() == ["stories"]
    jobs = [job for job in run.jobs_of(["stories"], []) if job[2] <= 16]
    found = {
        (job[0], called, job[2]): one for job in jobs for called, one in run.replayed(job, 1).items()
    }
    result = json.loads(run.written(run.result_of(found, {}, 0.0)))
    kept = result["tasks"]["stories"]
    assert kept["searches"]["loraloom"]["16"]["replays"] == 1
    random, ours = (kept["searches"][name] for name in (contestants.RANDOM, contestants.LORALOOM))
    assert (
        random["8"]["whole"][1] < random["16"]["whole"][1]
        and ours["16"]["whole"][1] < random["16"]["whole"][1]
    )
    half = kept["sooner"]["0.5"]
    for one in (half[contestants.LORALOOM], half[contestants.MEDIAN]):
        if one and half[contestants.RANDOM]:
            assert one["over_random"] == pytest.approx(
                half[contestants.RANDOM]["seconds"] / one["seconds"]
            )
    again = run.result_of({("stories", "default only", 1): {**random["8"], "hit": 0.125}}, result, 0.0)[
        "tasks"
    ]["stories"]
    assert (
        again["searches"]["default only"]["1"]["hit"] == 0.125 and again["searches"]["loraloom"] == ours
    )
    out = tmp_path / "result.json"
    out.write_text(json.dumps(result))
    assert run.main(["--show", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "| 50% | stories |" in shown and "loraloom with its race, 32" not in shown
    assert run.main(["--show", "--task", "stories", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "| loraloom with its race | 16 |" in shown and "packed 5 MB" in shown


def assert_alike(found: Any, kept: Any) -> None:
    """The same keys, lengths, words and gaps; numbers to nine digits, since a sum's
    last bits go by the processor."""
    assert type(found) is type(kept) or {type(found), type(kept)} == {int, float}
    if isinstance(kept, dict):
        assert list(found) == list(kept)
        found, kept = list(found.values()), list(kept.values())
    if isinstance(kept, list):
        assert len(found) == len(kept)
        for one, other in zip(found, kept, strict=True):
            assert_alike(one, other)
    elif isinstance(kept, float):
        assert found == pytest.approx(kept, rel=1e-9)
    else:
        assert found == kept


@pytest.mark.skipif(
    not (FOLDER / "result.json").is_file(), reason="not measured yet (python benchmarks/search/run.py)"
)
def test_the_committed_result_is_what_the_committed_tables_give(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = json.loads((FOLDER / "result.json").read_text())
    assert list(result["tasks"]) == run.ready()
    for task, found in result["tasks"].items():
        assert list(found["searches"]) == [
            name
            for name, source in contestants.called().items()
            if contestants.sizes_of(source, run.known_of(task)[0])
        ]
        kept = found["searches"]["default only"]["1"]
        again = run.replayed((task, "default only", 1), kept["replays"])["default only"]
        assert_alike(json.loads(json.dumps({**again, "thinking": 0})), {**kept, "thinking": 0})
        assert_alike(report.sooner(found["searches"]), found["sooner"])
    assert run.main(["--show"]) == 0
    assert "goal 12" in capsys.readouterr().out


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stories with few rows."""
    if not tasks.SHARED.is_dir():
        pytest.skip("needs models and data (../shared)")
    for module in (tasks, replay_file, trainer):
        monkeypatch.setattr(module, "TRAIN_ROWS", 64)
    stories = replace(definitions.DEFINITIONS["stories"], validation_rows=4, test_rows=8)
    monkeypatch.setattr(definitions, "DEFINITIONS", {**definitions.DEFINITIONS, "stories": stories})
    monkeypatch.setattr(tasks, "DEFINITIONS", definitions.DEFINITIONS)
    replay_file.marks_of.cache_clear()
    yield tasks.Task(
        "stories", definitions.Files(tasks.SHARED / "models", tasks.SHARED / "data", tmp_path)
    )
    replay_file.marks_of.cache_clear()


def test_a_table_is_made_in_pieces_and_goes_on(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With four settings; a piece without time only begins, the next trains all, and
    one more finds nothing to do."""
    settings_of = tasks.settings_of
    monkeypatch.setattr(table_file, "settings_of", lambda space: settings_of(space)[:4])
    monkeypatch.setattr(table_file, "PACK", 5)
    path, said = tmp_path / "table.npz", list[str]()
    assert not table_file.make(small, path, 0.0, said.append)
    assert table_file.make(small, path, 10.0, said.append)
    table = table_file.Table.read(path)
    assert table.done.shape == (4, 3) and table.done.all() and "12 of 12 trainings" in said[-1]
    assert table.validation[:, :, -1].mean() < table.base[:4].mean() and np.isfinite(table.held).all()
    assert not np.array_equal(table.validation[0, 0], table.validation[0, 1])
    assert table_file.make(small, path, 10.0, said.append)
    assert np.array_equal(table_file.Table.read(path).validation, table.validation)


def test_the_clock_times_both_ways_and_leaves_the_base_as_it_was(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PACKS", (1, 2)), ("TICKS", 1), ("REPEATS", 1), ("DRAWN", 2)):
        monkeypatch.setattr(clock_file, name, value)
    found = clock_file.measure(small, {"alone": 1})
    assert (
        set(found.trainer.step_by_batch) == {"4", "8"} and min(found.trainer.step_by_batch.values()) > 0
    )
    assert found.usual is found.trainer
    assert (
        min(found.engine.step([2, 4]), found.engine.join, found.engine.wait, found.engine.again) > 0
        and found.trainer.startup > 0
    )
    alone = trainer.Alone(small)
    before = {name: value.clone() for name, value in alone.base.state_dict().items()}
    params = tasks.settings_of(small.space)[64]
    one, again = alone.train(params, 0), alone.train(params, 0)
    assert one == again
    after = alone.base.state_dict()
    assert before.keys() == after.keys() and all(
        bool((value == after[name]).all()) for name, value in before.items()
    )


def test_live_searches_train_for_real_and_are_told_beside_their_replay(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TRIALS", 3)
    world = world_file.World(made_table(), definitions.DEFINITIONS["stories"])
    ours, theirs = live.run(small, world, CLOCK, trainer.Alone(small), 0)
    assert ours.way == contestants.LORALOOM and theirs.way == contestants.RANDOM
    for one in (ours, theirs):
        assert one.seconds > 0 and one.replayed_seconds > 0
        assert one.share == world.shares[one.winner]


def test_peak_memory_counts_what_the_work_held() -> None:
    """More than malloc would take from what it has freed before."""
    held: list[Any] = []
    assert clock_file.peak_of(lambda: held.append(np.ones(20_000_000))) >= 155_000_000
