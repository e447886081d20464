"""Each fault that a preflight knows, planted in a real small model or its data, is the
first one named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from planted import GOOD_TEMPLATE, config_of, save_base, talk, write_rows
from safetensors.torch import load_file, save_file

from loraloom.config.asked import Config
from loraloom.config.decode import to_plain
from loraloom.errors import ConfigError, LoraloomError, RequestError
from loraloom.lora.base import Base
from loraloom.pipeline import prepare as preparing
from loraloom.pipeline.check import Checked, check, refuse_failed, subject_of
from loraloom.pipeline.preflight import CHECKS, OF_ROWS, refuse_faults, run_check
from loraloom.pipeline.preflight.rehearsal import Rehearsal
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.pipeline.prepare import prepare, read_request
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


@pytest.fixture(autouse=True)
def a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts count what the process holds: here as much as a command that has just
    begun, not all that tests left."""
    monkeypatch.setattr("loraloom.facts.device._process_bytes", lambda: 300_000_000)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good base and good data; what a test makes wrong is its own."""
    root = tmp_path_factory.mktemp("planted")
    save_base(root / "good")
    write_rows(root / "good.jsonl", [talk(number) for number in range(120)])
    write_rows(
        root / "pairs.jsonl",
        [{"prompt": f"what is w{n % 40} w{n // 40}", "completion": f" w{n % 7}"} for n in range(120)],
    )
    return root


def good(here: Path, *sets: str, model: str = "good", train: str = "good.jsonl", **flags: Any) -> Config:
    return config_of(
        str(here / model), str(here / train), *sets, **{"output_dir": str(here / "runs"), **flags}
    )


def of(checked: Checked, name: str) -> CheckResult:
    (result,) = [result for result in checked.results if result.name == name]
    return result


def first_fault(config: Config, name: str, *, quick: bool = True) -> CheckResult:
    """The first check that fails, which must be this one and must say what, how much,
    why and what to do."""
    checked = check(config, quick=quick)
    assert not checked.ok and checked.failed[0].name == name, checked.results
    fault = checked.failed[0]
    assert fault.what and fault.number and fault.cause and fault.command
    return fault


def same_refusal(config: Config, fault: CheckResult) -> None:
    """Training is refused in the same words."""
    with pytest.raises(RequestError) as caught:
        prepare(config)
    assert caught.value.exit_code == 2
    assert (
        fault.what in str(caught.value)
        and fault.command is not None
        and fault.command in str(caught.value)
    )
    if fault.name in OF_ROWS:
        foretold = [
            text
            for text in prepare(config, weights=False).plan.warnings
            if text.startswith("train will refuse this: ")
        ]
        assert any(fault.what in text and fault.command in text for text in foretold)


def test_a_healthy_request_has_no_fault_and_no_warning(here: Path) -> None:
    checked = check(good(here))
    assert checked.ok
    assert [result.name for result in checked.results] == list(CHECKS)
    levels = {result.name: result.level for result in checked.results}
    assert levels == dict.fromkeys(CHECKS, "ok") | dict.fromkeys(("bits", "deployment"), "skipped")
    assert not (here / "runs").exists()
    refuse_failed(checked)


# -- labels
# -------------------------------------------------------------------------------------------------------


def test_a_row_without_an_answer_is_named(here: Path) -> None:
    rows = [talk(number) for number in range(60)]
    rows[37]["messages"].pop()
    config = good(
        here, train=Path(write_rows(here / "unanswered.jsonl", rows)).name, data__validation="null"
    )
    fault = first_fault(config, "labels")
    assert fault.what == f"{here}/unanswered.jsonl:38 has no supervised token"
    assert fault.number == "1 of 60 rows"
    assert fault.command is not None and f"sed -n 38p {here}/unanswered.jsonl" in fault.command
    same_refusal(config, fault)


def test_an_answer_behind_the_cut_is_named_with_its_prompt_and_the_limit(here: Path) -> None:
    rows = [talk(number) for number in range(60)]
    rows[11] = talk(11, prompt=" ".join(["what"] * 50))
    config = good(
        here,
        train=Path(write_rows(here / "long.jsonl", rows)).name,
        data__validation="null",
        data__max_length="32",
    )
    fault = first_fault(config, "labels")
    assert (
        fault.what
        == f"{here}/long.jsonl:12 has no supervised token left: its prompt has 55 tokens, the limit"
        " is 32"
    )
    assert fault.command == "--set data.max_length=58"
    same_refusal(config, fault)
    assert check(
        good(here, train="long.jsonl", data__validation="null", data__max_length="58"), quick=True
    ).ok


def test_a_template_that_leaves_the_answers_out(here: Path) -> None:
    save_base(
        here / "maskless",
        template="{% for m in messages if m['role'] == 'user' %}<user> {{ m['content'] }} {% endfor %}",
    )
    fault = first_fault(good(here, model="maskless"), "labels")
    assert "has anything to be trained on" in fault.what
    assert fault.number == "108 rows read as messages, each without a supervised token"


def test_answers_lost_to_the_cut_warn(here: Path) -> None:
    rows = [talk(number, answer=" ".join(["w1"] * (40 if number % 2 else 2))) for number in range(80)]
    write_rows(here / "cut.jsonl", rows)
    result = of(check(good(here, train="cut.jsonl", data__max_length="40"), quick=True), "labels")
    assert result.level == "warn"
    assert result.what.endswith("% of the supervised tokens are cut off")
    assert result.number is not None and "data.max_length = 40" in result.number
    assert result.command == "--set data.max_length=49"
    prepare(good(here, train="cut.jsonl", data__max_length="40"))


# -- stop
# -------------------------------------------------------------------------------------------------------


def test_a_turn_that_ends_in_no_end_token(here: Path) -> None:
    save_base(here / "endless", template=GOOD_TEMPLATE.replace(" {{ eos_token }}", ""))
    config = good(here, model="endless")
    fault = first_fault(config, "stop")
    assert fault.what == "the end of a turn is not learnt: the model would not stop"
    assert fault.number == "108 of 108 training rows do not end in a supervised end token"
    same_refusal(config, fault)


def test_a_tokenizer_without_an_end_of_text(here: Path) -> None:
    save_base(here / "no-eos", template=None, eos=False)
    config = good(here, model="no-eos", train="pairs.jsonl")
    fault = first_fault(config, "stop")
    assert "no end-of-text token" in (fault.cause or "") and "eos_token" in (fault.command or "")
    same_refusal(config, fault)


def test_a_cut_that_takes_every_end_of_turn_is_found(here: Path) -> None:
    write_rows(
        here / "all-cut.jsonl", [talk(number, answer="w1 w2 w3 w4 w5 w6") for number in range(60)]
    )
    checked = check(good(here, train="all-cut.jsonl", data__max_length="10"), quick=True)
    assert of(checked, "labels").level == "warn"
    assert of(checked, "stop").what == "the end of every turn is cut off: the model would not stop"


# -- template
# ------------------------------------------------------------------------------------------------------


def test_a_second_bos_is_found(here: Path) -> None:
    save_base(here / "two-bos", template="{{ bos_token }} " + GOOD_TEMPLATE)
    config = good(here, model="two-bos")
    fault = first_fault(config, "template")
    assert fault.what == "rows begin with <bos> twice" and fault.number == "64 of 64 rows looked at"
    same_refusal(config, fault)


def test_another_prompt_in_use_than_in_training(here: Path) -> None:
    marked = (
        "{% for m in messages %}<{{ m['role'] }}> {% if m['role'] == 'assistant' %}{% generation %}{{"
        " m['content'] }} <eos>{% endgeneration %}{% else %}{{ m['content'] }} {% endif %}{% endfor %}{%"
        " if add_generation_prompt %}<assistant> w9 {% endif %}"
    )
    save_base(here / "other-prompt", template=marked)
    config = good(here, model="other-prompt")
    fault = first_fault(config, "template")
    assert fault.what == "prompts have other tokens in training than in use"
    assert "of 64 rows, first at token 7: " in (fault.number or "") and "'w9' in use" in (
        fault.number or ""
    )
    same_refusal(config, fault)


def test_a_prompt_that_ends_in_white_space(here: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = Path(save_base(here / "seam"))
    words = (
        "<pad>",
        "<unk>",
        "<bos>",
        "<eos>",
        "<user>",
        "<assistant>",
        "▁",
        "▁what",
        "▁is",
        "▁it",
        *(f"▁w{n}" for n in range(39)),
    )
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # type: ignore[assignment]
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    tokenizer.chat_template = GOOD_TEMPLATE
    tokenizer.save_pretrained(folder)
    fault = first_fault(good(here, model="seam"), "template")
    assert "grows into the first token of the answer" in (fault.cause or "")
    assert "remove the white space" in (fault.command or "")


def test_a_template_that_refuses_the_data(here: Path) -> None:
    save_base(here / "strict", template="{{ raise_exception('only system turns') }}")
    fault = first_fault(good(here, model="strict"), "template")
    assert "good.jsonl:" in fault.what and "refuses 108 of 108 rows" in fault.what
    assert fault.number == "only system turns"


def test_no_template_for_conversations(here: Path) -> None:
    save_base(here / "plain", template=None)
    checked = check(good(here, model="plain"))
    assert [result.name for result in checked.failed] == ["template"]
    assert of(checked, "template").what.startswith("the tokenizer has no chat template")
    assert {of(checked, name).level for name in ("labels", "stop", "gradients")} == {"skipped"}
    assert of(checked, "targets").level == "ok", "one fault does not hide what else there is to say"


# -- targets
# -------------------------------------------------------------------------------------------------------


def test_a_pattern_that_matches_nothing(here: Path) -> None:
    checked = check(good(here, "adapter.target_modules=[q_proj, query_key_value]"))
    fault = checked.failed[0]
    assert (fault.name, len(checked.failed)) == ("targets", 1)
    assert "`query_key_value` matches nothing; this model has q_proj, k_proj" in fault.what
    assert of(checked, "gradients") == CheckResult(
        "gradients", "skipped", "no batch went through the model: targets failed first"
    )


def test_a_layer_that_is_adapted_and_trained_whole(here: Path) -> None:
    config = good(here, "adapter.target_modules=[q_proj]", "adapter.modules_to_save=[q_proj]")
    assert (
        "`q_proj` is both a LoRA target and a module that is trained whole"
        in first_fault(config, "targets").what
    )


def test_a_pattern_in_the_space_that_matches_nothing(here: Path) -> None:
    config = good(here, "search.space={adapter.target_modules: [attention, [query_key_value]]}")
    assert "`query_key_value` matches nothing" in first_fault(config, "targets").what


# -- embeddings
# ----------------------------------------------------------------------------------------------------


def test_more_tokens_than_rows(here: Path) -> None:
    save_base(here / "longer", extra=3)
    config = good(here, model="longer")
    fault = first_fault(config, "embeddings")
    assert fault.what == "the tokenizer has 52 tokens, the embedding 49 rows"
    assert fault.number == "3 tokens without a row" and "resize_token_embeddings" in (
        fault.command or ""
    )
    same_refusal(config, fault)


def test_the_command_that_resizes_mends_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_base(here / "to-resize", extra=2)
    command = first_fault(good(here, model="to-resize"), "embeddings").command
    assert command is not None
    monkeypatch.chdir(here)
    exec(command.partition('-c "')[2].partition('" &&')[0], {})
    assert check(good(here, model="resized"), quick=True).ok


def test_a_new_head_that_is_not_saved(here: Path) -> None:
    write_rows(
        here / "labels.jsonl",
        [{"text": f"w{n % 40} w{n // 40}", "label": "ab"[n % 2]} for n in range(120)],
    )
    config = good(here, train="labels.jsonl", task="seq_cls")
    assert (
        of(check(config, quick=True), "embeddings").what
        == "every token has a row; score is saved with the adapter"
    )
    unsaved = good(here, "adapter.modules_to_save=[norm]", train="labels.jsonl", task="seq_cls")
    fault = first_fault(unsaved, "embeddings")
    assert fault.what == "the new head score would be neither trained nor saved"
    assert fault.command == "--set adapter.modules_to_save=[score]"
    same_refusal(unsaved, fault)


# -- memory
# -------------------------------------------------------------------------------------------------------


def test_a_limit_that_nothing_fits_into(here: Path) -> None:
    checked = check(good(here, limits__memory="10MiB"))
    fault = checked.failed[0]
    assert [result.name for result in checked.failed] == ["memory"]
    assert (
        "10 MiB may be used" in fault.what and fault.number == "no batch fits, not one row of 8 tokens"
    )
    assert (
        of(checked, "gradients").what
        == "no batch went through the model: by forecast, it does not fit into memory"
    )


def test_a_batch_that_is_too_large_is_answered_with_one_that_fits(here: Path) -> None:
    asked = good(here, limits__memory="700MiB", training__per_device_train_batch_size="65536")
    fault = first_fault(asked, "memory")
    assert fault.number is not None and fault.number.startswith("the largest that fits is ")
    rows = int(fault.number.split()[5].replace(",", ""))
    assert fault.command is not None and fault.command.startswith(
        f"--batch-size {rows} --set training.gradient_accumulation_steps="
    )
    fits = replace(asked, training=replace(asked.training, per_device_train_batch_size=rows))
    assert check(fits, quick=True).ok


def test_a_measured_peak_above_92_percent_fails(here: Path) -> None:
    subject = subject_of(read_request(good(here, limits__memory="1000MB")))
    measured = Rehearsal(rows=4, length=16, peak_bytes=920_000_000, tensors=1)
    assert run_check("memory", replace(subject, rehearsal=measured)).level == "ok"
    fault = run_check("memory", replace(subject, rehearsal=replace(measured, peak_bytes=920_000_001)))
    assert (fault.level, fault.what) == (
        "fail",
        "a batch of 4 x 16 tokens needs 877 MiB, 954 MiB may be used",
    )


def test_without_a_limit_what_was_free_and_what_is_held_may_be_used(here: Path) -> None:
    subject = on(good(here), free_bytes=10**9)
    measured = Rehearsal(rows=4, length=16, peak_bytes=1_800_000_000, held_bytes=10**9)
    assert run_check("memory", replace(subject, rehearsal=measured)).level == "ok"
    assert (
        run_check("memory", replace(subject, rehearsal=replace(measured, held_bytes=9 * 10**8))).level
        == "fail"
    )


def test_memory_that_runs_out_is_told_and_not_raised(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraloom.pipeline.preflight import rehearsal

    def fails(*_: Any) -> float:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(rehearsal, "_pass", fails)
    fault = first_fault(good(here), "memory", quick=False)
    assert "needs more than there is" in fault.what and "the largest that fits is" in (
        fault.number or ""
    )


# -- gradients
# -----------------------------------------------------------------------------------------------------


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the base changed right after it was loaded."""

    def alter(change: Any) -> None:
        load = preparing.load_base

        def changed(*given: Any, **more: Any) -> Base:
            base = load(*given, **more)
            change(base.model)
            return base

        monkeypatch.setattr(preparing, "load_base", changed)

    return alter


def test_a_layer_behind_a_cut_graph(here: Path, altered: Any) -> None:
    def cut(model: Any) -> None:
        model.model.layers[1].mlp.register_forward_hook(lambda _module, _inputs, output: output.detach())

    altered(cut)
    fault = first_fault(good(here), "gradients", quick=False)
    assert fault.what == "parts of the adapter get no gradient: they would stay as they are"
    assert (fault.number or "").startswith("6 of 28 tensors: model.layers.1.mlp.")
    assert "model.layers.1.mlp.down_proj" in (fault.command or "")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(here: Path, value: float) -> None:
    folder = here / f"damaged-{value}"
    shutil.copytree(here / "good", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.v_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fault = first_fault(good(here, model=folder.name), "gradients", quick=False)
    assert fault.what == "the loss is not finite before anything is trained"
    assert fault.number == "first bad layer: model.layers.1.self_attn.v_proj"
    assert "damaged" in (fault.cause or "")


def test_a_step_that_moves_nothing(here: Path) -> None:
    fault = first_fault(good(here, training__learning_rate="1e-60"), "gradients", quick=False)
    assert fault.what == "after two steps every B is still zero: the adapter does nothing"
    assert fault.number == "learning rate 1e-60"


# -- precision
# -----------------------------------------------------------------------------------------------------


def on(config: Config, **device: Any) -> Subject:
    """The request on another machine than this."""
    subject = subject_of(read_request(config))
    return replace(subject, facts=replace(subject.facts, device=replace(subject.facts.device, **device)))


def test_bf16_on_a_device_without_it(here: Path) -> None:
    turing = {"kind": "cuda", "name": "Tesla T4", "compute_capability": (7, 5), "bf16_native": False}
    subject = on(good(here, training__precision="bf16"), **turing)
    assert run_check("precision", subject) == CheckResult(
        "precision",
        "fail",
        "Tesla T4 has no bf16",
        "compute capability 7.5",
        "torch reports it as supported, by emulation: slow, and not in every kernel",
        "--set training.precision=fp32",
    )
    with pytest.raises(ConfigError, match="Tesla T4 has no bf16"):
        refuse_faults(subject)
    refuse_faults(on(good(here, training__precision="fp32"), **turing))
    refuse_faults(
        on(
            good(here, training__precision="bf16"),
            **turing | {"compute_capability": (8, 0), "bf16_native": True},
        )
    )


def test_bf16_that_a_processor_emulates_warns(here: Path) -> None:
    subject = on(good(here, training__precision="bf16"), name="an old processor", bf16_native=False)
    result = run_check("precision", subject)
    assert (result.level, result.what) == ("warn", "an old processor emulates bf16")
    refuse_faults(subject)


def test_weights_left_on_meta(here: Path, altered: Any) -> None:
    altered(lambda model: model.model.norm.to("meta"))
    checked = check(good(here))
    assert [result.name for result in checked.failed] == ["precision"]
    assert checked.failed[0].number == "1 parameters, model.norm.weight first"


# -- deployment
# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sets", "what", "command"),
    [
        ("vllm", ["adapter.r=600"], "vLLM has no rank 600", "--r 512"),
        (
            "vllm",
            ["adapter.r=8", "adapter.use_dora=true"],
            "vLLM does not take DoRA",
            "--set adapter.use_dora=false",
        ),
        (
            "vllm",
            ["adapter.r=8", "adapter.bias=lora_only"],
            "vLLM does not take trained biases",
            "--set adapter.bias=none",
        ),
        (
            "vllm",
            ["adapter.r=8", "adapter.modules_to_save=[norm]"],
            "vLLM does not take modules that are trained whole",
            "--set adapter.modules_to_save=[]",
        ),
        (
            "sglang",
            ["adapter.r=8", "adapter.use_dora=true"],
            "SGLang does not take DoRA",
            "--set adapter.use_dora=false",
        ),
        (
            "mlx",
            ["adapter.bias=lora_only"],
            "mlx-lm does not take trained biases",
            "--set adapter.bias=none",
        ),
    ],
)
def test_a_target_that_would_refuse_the_adapter(
    here: Path, target: str, sets: list[str], what: str, command: str
) -> None:
    config = good(here, f"deploy.target={target}", *sets)
    fault = first_fault(config, "deployment")
    assert fault.what.startswith(what) and fault.command == command
    same_refusal(config, fault)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("vllm", "--max-lora-rank 16"),
        ("sglang", "ship runs/NAME --to sglang"),
        ("llama.cpp", "gguf"),
        ("ollama", "Modelfile"),
        ("mlx", "ship runs/NAME --to mlx"),
        ("merged", "merge"),
    ],
)
def test_a_plain_adapter_goes_anywhere_and_is_told_how(here: Path, target: str, word: str) -> None:
    result = of(check(good(here, f"deploy.target={target}", "adapter.r=16"), quick=True), "deployment")
    assert result.level == "ok" and word in (result.command or "")


BAKED = [
    ("vllm", "adapter.rank_pattern={q_proj: 16}"),
    ("vllm", "adapter.alpha_pattern={q_proj: 4}"),
    *((target, "adapter.use_rslora=true") for target in ("vllm", "sglang", "llama.cpp", "mlx")),
    *((target, "adapter.alpha_pattern={q_proj: 4}") for target in ("sglang", "ollama", "mlx")),
    *((target, "adapter.use_dora=true") for target in ("llama.cpp", "mlx", "merged")),
]


@pytest.mark.parametrize(("target", "setting"), BAKED)
def test_what_export_bakes_into_the_file_is_no_fault(here: Path, target: str, setting: str) -> None:
    config = good(here, f"deploy.target={target}", "adapter.r=8", setting)
    assert of(check(config, quick=True), "deployment").level == "ok"


def test_a_family_that_no_gguf_file_is_written_of_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.pipeline.preflight.deployment.FAMILIES", {"GemmaForCausalLM": None})
    result = of(check(good(here, "deploy.target=llama.cpp"), quick=True), "deployment")
    assert result.level == "warn" and "no family whose GGUF file" in result.what
    assert "LLAMA_CPP" in (result.command or "")


@pytest.mark.parametrize(
    ("sets", "rank", "command"),
    [
        (["adapter.r=48"], "rank 48 as rank 64", "--r 32"),
        (["adapter.r=8", "search.space={adapter.r: [8, 24]}"], "rank 24 as rank 32", "--r 16"),
        (["adapter.r=12", "adapter.init_lora_weights=pissa"], "rank 24 as rank 32", "--r 8"),
        (["adapter.r=8", "adapter.rank_allocation=mlp"], "as rank 16", "--r 8"),
    ],
)
def test_a_rank_between_those_that_vllm_has_costs_memory(
    here: Path, sets: list[str], rank: str, command: str
) -> None:
    """PiSSA is saved with twice its rank."""
    result = of(check(good(here, "deploy.target=vllm", *sets), quick=True), "deployment")
    assert result.level == "warn" and rank in result.what and result.command == command


def test_several_reasons_are_told_at_once(here: Path) -> None:
    fault = first_fault(
        good(here, "deploy.target=vllm", "adapter.r=600", "adapter.use_dora=true"), "deployment"
    )
    assert fault.what == "vLLM does not take DoRA (and 1 more)"
    assert fault.command == "--set adapter.use_dora=false --r 512"


def test_tied_embeddings_may_be_trained_apart(here: Path) -> None:
    """The merge gives the output layer a weight of its own, and config.json says so."""
    save_base(here / "tied", tie_word_embeddings=True)
    sets = ("deploy.target=merged", "adapter.modules_to_save=[embed_tokens]")
    assert of(check(good(here, *sets, model="tied"), quick=True), "deployment").level == "ok"


# -- safety
# -------------------------------------------------------------------------------------------------------


def test_held_out_rows_that_are_trained_on_warn(here: Path) -> None:
    write_rows(here / "held.jsonl", [talk(number) for number in range(100, 140)])
    result = of(check(good(here, data__validation=str(here / "held.jsonl")), quick=True), "safety")
    assert (result.level, result.number) == ("warn", "20 of 40 validation rows")


def test_a_disk_that_is_too_small(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shutil.disk_usage(here)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small)  # pyright: ignore[reportUnknownLambdaType]
    fault = first_fault(good(here), "safety")
    assert "not enough free space" in fault.what and (fault.number or "").startswith("1 MiB free")


def test_a_name_that_belongs_to_another_request(here: Path, tmp_path: Path) -> None:
    before = good(here, name="mine", output_dir=str(tmp_path), adapter__r="4")
    RunFolder.create(tmp_path, "mine").write_config(to_plain(before))
    fault = first_fault(good(here, name="mine", output_dir=str(tmp_path), adapter__r="8"), "safety")
    assert fault.number == "1 keys differ: adapter.r"


def test_an_empty_folder_belongs_to_nobody(here: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = good(here, name="mine", output_dir=str(tmp_path))
    assert of(check(config, quick=True), "safety").level == "ok"
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    assert "exists and is no run" in of(check(config, quick=True), "safety").what
    (tmp_path / "mine" / "config.yaml").write_text("adapter: {rank_: 3}")
    assert "there is no key `adapter.rank_`" in of(check(config, quick=True), "safety").what


def test_a_run_whose_data_changed_cannot_go_on(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraloom.pipeline import check as checking
    from loraloom.pipeline.fingerprint import fingerprints

    config = good(here, name="mine", output_dir=str(tmp_path))
    RunFolder.create(tmp_path, "mine").write_config(to_plain(config))
    now = fingerprints(prepare(config))
    monkeypatch.setattr(
        checking, "load_checkpoint", lambda _: SimpleNamespace(run={"fingerprints": now})
    )  # pyright: ignore[reportUnknownLambdaType]
    result = of(check(config, quick=True), "safety")
    assert (result.level, result.command) == ("ok", f"--resume {tmp_path}/mine")
    then = now | {"train": "other rows"}
    monkeypatch.setattr(
        checking, "load_checkpoint", lambda _: SimpleNamespace(run={"fingerprints": then})
    )  # pyright: ignore[reportUnknownLambdaType]
    result = of(check(config, quick=True), "safety")
    assert result.level == "fail" and "other rows in train" in result.what


def test_a_run_of_train_goes_on_with_all_of_its_validation_rows(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search would keep half of them for its race; the run that is checked was none."""
    from loraloom.pipeline import check as checking
    from loraloom.pipeline.fingerprint import fingerprints

    write_rows(here / "many.jsonl", [talk(number) for number in range(220)])
    config = good(
        here, train="many.jsonl", data__validation="0.5", name="mine", output_dir=str(tmp_path)
    )
    folder = RunFolder.create(tmp_path, "mine")
    folder.write_config(to_plain(config))
    begun = {verb: fingerprints(prepare(config, race=verb == "tune")) for verb in ("train", "tune")}
    assert begun["train"] != begun["tune"]
    for verb, now in begun.items():
        folder.write_result(
            RunResult("mine", verb, "interrupted", "base", "causal_lm", "2026-01-01T00:00:00+00:00")
        )
        monkeypatch.setattr(
            checking, "load_checkpoint", lambda _, run={"fingerprints": now}: SimpleNamespace(run=run)
        )  # pyright: ignore
        assert of(check(config, quick=True), "safety").level == "ok"


def test_an_unknown_key_is_refused_where_it_is_read(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no key `adapter\.rank_`"):
        good(here, "adapter.rank_=3")


# -- all of them
# ---------------------------------------------------------------------------------------------------


def test_a_start_that_cannot_be_packed_is_refused_before_work(here: Path) -> None:
    config = good(here, "adapter.init_lora_weights=eva")
    fault = first_fault(config, "targets")
    assert fault.what == "`adapter.init_lora_weights: eva` cannot be packed"
    same_refusal(config, fault)


def test_loftq_is_refused_over_a_base_that_is_not_quantised(here: Path) -> None:
    config = good(here, "adapter.init_lora_weights=loftq")
    fault = first_fault(config, "targets")
    assert "makes up for what quantising took" in fault.what
    same_refusal(config, fault)


def test_faults_do_not_hide_each_other(here: Path) -> None:
    save_base(
        here / "ill",
        template="{{ bos_token }} " + GOOD_TEMPLATE.replace(" {{ eos_token }}", ""),
        extra=1,
    )
    checked = check(
        good(
            here, "adapter.target_modules=[nothing]", "deploy.target=vllm", "adapter.r=600", model="ill"
        )
    )
    assert [result.name for result in checked.failed] == [
        "stop",
        "template",
        "targets",
        "embeddings",
        "deployment",
    ]
    with pytest.raises(LoraloomError) as caught:
        refuse_failed(checked)
    assert caught.value.exit_code == 2 and caught.value.document == checked.to_json()
    assert "5 of 11 checks fail: stop, template" in str(caught.value)
