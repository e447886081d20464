"""What is read from a config.json: every family's sizes, layers and heads; and messages
for folders that cannot be used."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, GROUPED, SIZES
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from loraloom.errors import ModelError
from loraloom.facts.linear import role_of
from loraloom.facts.model import model_facts, require_weights
from loraloom.facts.source import hub_has_address
from loraloom.lora.targets import module_names, resolve_targets
from loraloom.records import Task

Folder = Callable[[str], str]
DECODERS = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma",
    "gemma2",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neox",
    "mixtral",
)
ENCODERS = ("bert", "roberta", "distilbert", "deberta-v2", "modernbert")
SEQ2SEQ = ("t5", "bart")

ATTENTION_AND_MLP: dict[str, tuple[set[str], set[str]]] = {
    "llama": ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
    "qwen3": ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
    "phi": ({"q_proj", "k_proj", "v_proj", "dense"}, {"fc1", "fc2"}),
    "phi3": ({"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
    "gpt2": ({"c_attn", "c_proj"}, {"c_fc", "c_proj"}),
    "gpt_neox": ({"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    "bert": ({"query", "key", "value", "dense"}, {"dense"}),
    "distilbert": ({"q_lin", "k_lin", "v_lin", "out_lin"}, {"lin1", "lin2"}),
    "deberta-v2": ({"query_proj", "key_proj", "value_proj", "dense"}, {"dense"}),
    "modernbert": ({"Wqkv", "Wo"}, {"Wi", "Wo"}),
    "t5": ({"q", "k", "v", "o"}, {"wi", "wo"}),
    "bart": ({"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc1", "fc2"}),
}
HEADS = {
    "llama": ("score",),
    "gpt2": ("score",),
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "modernbert": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "deberta-v2": ("classifier",),
    "t5": ("classification_head",),
    "bart": ("classification_head",),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_every_family_are_read(folder: Folder, family: str) -> None:
    facts = model_facts(folder(family))
    assert facts.model_type == family
    assert facts.kind == (
        "decoder" if family in DECODERS else "encoder" if family in ENCODERS else "encoder_decoder"
    )
    assert (
        facts.task
        == {"decoder": "causal_lm", "encoder": "seq_cls", "encoder_decoder": "seq2seq_lm"}[facts.kind]
    )
    assert (facts.hidden_size, facts.heads, facts.vocab_size) == (32, 4, 100)
    assert facts.layers == (4 if family in SEQ2SEQ else 2)
    assert facts.kv_heads == (
        2 if family in ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "mixtral") else 4
    )
    assert facts.intermediate_size == (128 if family == "gpt2" else 64)
    assert facts.max_positions == {"t5": None, "roberta": 62}.get(family, 64)
    assert facts.experts == (4 if family == "mixtral" else 0)
    assert not facts.has_weights


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_real_model(folder: Folder, family: str) -> None:
    facts = model_facts(folder(family))
    auto = {"causal_lm": tf.AutoModelForCausalLM, "seq_cls": tf.AutoModelForSequenceClassification}
    model = auto.get(facts.task, tf.AutoModelForSeq2SeqLM).from_config(FAMILIES[family]())
    assert facts.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert facts.architecture == type(model).__name__
    assert {linear.path for linear in facts.linears} == {
        name
        for name, part in model.named_modules()
        if isinstance(part, (torch.nn.Linear, tf.pytorch_utils.Conv1D))
    }


@pytest.mark.parametrize("family", ATTENTION_AND_MLP)
def test_attention_and_mlp_are_told_apart(folder: Folder, family: str) -> None:
    linears = model_facts(folder(family)).linears
    for role, names in zip(("attention", "mlp"), ATTENTION_AND_MLP[family], strict=True):
        assert set(module_names([linear for linear in linears if linear.role == role])) == names


def test_conv1d_features_are_in_and_out_not_rows_and_columns(folder: Folder) -> None:
    up = next(linear for linear in model_facts(folder("gpt2")).linears if linear.name == "c_fc")
    assert (up.in_features, up.out_features) == (32, 128)


@pytest.mark.parametrize("family", HEADS)
def test_heads_of_classifiers_are_found(folder: Folder, family: str) -> None:
    facts = model_facts(folder(family), task="seq_cls", num_labels=5)
    assert facts.head_modules == HEADS[family]
    assert all(
        linear.role == "head" for linear in facts.linears if linear.path.startswith(facts.head_modules)
    )
    assert facts.linears[-1].out_features == 5


DENSE = [family for family in DECODERS if family != "mixtral"]


@pytest.mark.parametrize(
    ("family", "task"),
    [
        *((f, "causal_lm") for f in DENSE),
        *((f, "seq_cls") for f in (*DENSE, "bert", "deberta-v2", "modernbert")),
    ],
)
def test_all_linear_is_the_set_that_peft_takes(folder: Folder, family: str, task: Task) -> None:
    facts = model_facts(folder(family), task=task)
    auto: Any = tf.AutoModelForCausalLM if task == "causal_lm" else tf.AutoModelForSequenceClassification
    peft_task = {"causal_lm": "CAUSAL_LM", "seq_cls": "SEQ_CLS"}[task]
    model = get_peft_model(
        auto.from_config(FAMILIES[family]()),
        LoraConfig(target_modules="all-linear", task_type=peft_task),
    )
    theirs = {
        name.removeprefix("base_model.model.")
        for name, part in model.named_modules()
        if hasattr(part, "lora_A")
    }
    assert set(resolve_targets(facts.linears, "all-linear")) == theirs


@pytest.mark.parametrize(
    ("path", "role"),
    [("a.self_attn.dense", "attention"), ("a.mlp.dense", "mlp"), ("bert.pooler.dense", "other")],
)
def test_the_same_layer_name_has_the_role_of_where_it_sits(path: str, role: str) -> None:
    assert role_of(path) == role


def test_a_model_of_70b_is_described_by_its_config_alone(tmp_path: Path) -> None:
    """Built with weights, it would take 282 GB."""
    tf.LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        intermediate_size=28672,
    ).save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    assert facts.parameters == 70_553_706_496
    assert len(resolve_targets(facts.linears)) == 560


# -- weights
# -------------------------------------------------------------------------------------------------------


def saved(path: Path, config: Any, auto: Any, **names: Any) -> str:
    auto.from_config(config).save_pretrained(path, **names)
    return str(path)


def test_weights_are_found_with_their_size_and_type(tmp_path: Path) -> None:
    name = saved(tmp_path, FAMILIES["llama"](), tf.AutoModelForCausalLM)
    facts = model_facts(name)
    assert facts.has_weights and facts.dtype == "float32" and facts.is_local
    assert facts.weight_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert require_weights(facts) is facts


def test_shards_count_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    name = saved(tmp_path, FAMILIES["llama"](), tf.AutoModelForCausalLM, max_shard_size="40kB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert model_facts(name).weight_bytes == sum(shard.stat().st_size for shard in shards)
    shards[0].unlink()
    with pytest.raises(ModelError, match=shards[0].name):
        require_weights(model_facts(name))


def test_a_cut_off_download_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    name = saved(tmp_path, FAMILIES["llama"](), tf.AutoModelForCausalLM)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"cut off: .* bytes are there"):
        require_weights(model_facts(name))


@pytest.mark.parametrize(
    "content", [b"", b"abc", struct.pack("<Q", 10**9) + b"{}", struct.pack("<Q", 4) + b"{]!}"]
)
def test_files_that_are_no_safetensors_are_told_as_such(tmp_path: Path, content: bytes) -> None:
    FAMILIES["llama"]().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        require_weights(model_facts(str(tmp_path)))


def test_a_pooler_that_the_weights_lack_is_trained_whole(tmp_path: Path) -> None:
    name = saved(tmp_path, FAMILIES["bert"](), tf.AutoModel)
    assert model_facts(name).head_modules == ("classifier",)
    weights = {
        key: tensor
        for key, tensor in load_file(tmp_path / "model.safetensors").items()
        if "pooler" not in key
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert model_facts(name).head_modules == ("bert.pooler", "classifier")


def test_no_weights_is_an_error_only_where_they_are_needed(folder: Folder) -> None:
    with pytest.raises(ModelError) as error:
        require_weights(model_facts(folder("llama")))
    assert "has a config.json but no weights" in str(error.value)
    assert "no model.safetensors and no pytorch_model.bin" in str(error.value)
    assert error.value.exit_code == 2


# -- what cannot be used
# ----------------------------------------------------------------------------------------------


def test_a_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    with pytest.raises(ModelError, match="does not exist") as error:
        model_facts(str(tmp_path / "lama"))
    assert "has the folders llama" in str(error.value)


def test_a_name_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError, match="nobody/nothing is neither a folder here nor a model that the hub gives"
    ) as error:
        model_facts("nobody/nothing")
    assert "next:" in str(error.value)


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def test_without_a_network_the_hub_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        raise OSError("no network")

    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(
        ModelError, match="nobody/nothing is neither a folder here nor a model that the hub gives"
    ):
        model_facts("nobody/nothing")
    assert len(asked) == 1
    monkeypatch.setenv("https_proxy", "http://proxy.test:1")
    assert hub_has_address() and len(asked) == 1


def test_a_file_a_folder_without_config_an_adapter_and_a_gguf_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("x")
    with pytest.raises(ModelError, match="is a file, not a model folder"):
        model_facts(str(tmp_path / "model.bin"))
    with pytest.raises(ModelError, match=r"has no config\.json") as error:
        model_facts(str(tmp_path))
    assert "a folder with model.bin" in str(error.value)
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(ModelError, match="GGUF"):
        model_facts(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(ModelError, match="is an adapter, not a base model") as error:
        model_facts(str(tmp_path))
    assert "--model some/base" in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"model_type": "llama", ', "not a valid JSON"),
        ('{"model_type": "nonsense"}', "nonsense"),
        ("{}", "model_type"),
        (
            '{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}',
            "not a multiple of the number of attention heads",
        ),
        ('{"model_type": "vit"}', "cannot be built"),
    ],
)
def test_broken_configs_say_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=said):
        model_facts(str(tmp_path))


def test_model_code_is_not_run_unasked(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
    with pytest.raises(ModelError, match="brings its own model code") as error:
        model_facts(str(tmp_path))
    assert "model.trust_remote_code: true" in str(error.value)


@pytest.mark.parametrize(
    ("family", "task", "next"), [("bert", "causal_lm", "seq_cls"), ("llama", "seq2seq_lm", "causal_lm")]
)
def test_a_task_that_the_kind_cannot_do_is_refused(
    folder: Folder, family: str, task: Task, next: str
) -> None:
    with pytest.raises(ModelError, match=f"cannot do {task}") as error:
        model_facts(folder(family), task=task)
    assert f"task: {next}" in str(error.value)


LONG_ROPE = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 32,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
}


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        (LONG_ROPE, 32),
        ({"rope_type": "dynamic", "factor": 4.0}, 64),
        ({"rope_type": "default"}, None),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, None),
    ],
)
@pytest.mark.parametrize("of", [tf.LlamaConfig, tf.Qwen2Config])
def test_rows_end_where_their_batch_would_change_how_they_are_read(
    tmp_path: Path, of: Any, rope: dict[str, Any], limit: int | None
) -> None:
    config = of(**GROUPED, rope_parameters=rope | {"rope_theta": 10_000.0})
    config.save_pretrained(tmp_path)
    facts = model_facts(str(tmp_path))
    assert (facts.batch_reads_beyond, facts.max_positions) == (limit, limit or 64)


def test_phi_3_ends_at_its_original_positions(tmp_path: Path) -> None:
    config = tf.Phi3Config(
        **SIZES,
        original_max_position_embeddings=32,
        rope_parameters=LONG_ROPE | {"rope_theta": 10_000.0},
    )
    config.save_pretrained(tmp_path)
    assert model_facts(str(tmp_path)).max_positions == 32
