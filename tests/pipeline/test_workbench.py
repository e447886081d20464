"""A run is given what its plan forecast: the size of its passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from loraloom.config.asked import Config, DataConfig, ModelConfig
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.workbench import Workbench

WORDS = ("<pad>", "<unk>", "<eos>", "one", "two", "three", "four")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A request for a base and data so small that the bench is there at once."""
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    )
    tokenizer.save_pretrained(tmp_path / "base")
    sizes = tf.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=2,
    )
    tf.LlamaForCausalLM(sizes).save_pretrained(tmp_path / "base")
    rows = [
        f'{{"text": "{first} {second} {third}"}}'
        for first in WORDS[3:]
        for second in WORDS[3:]
        for third in WORDS[3:]
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return Config(
        model=ModelConfig(name_or_path=str(tmp_path / "base")),
        data=DataConfig(train=str(tmp_path / "rows.jsonl")),
        output_dir=str(tmp_path / "runs"),
    )


def test_a_bench_runs_as_its_plan_says(config: Config) -> None:
    prepared = prepare(config)
    assert Workbench(prepared).trainer.token_budget == prepared.plan.token_budget


def test_scoring_holds_twice_the_tokens_of_a_training_pass(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraloom.evals.scoring import EVALUATION_FACTOR
    from loraloom.train import pack as module

    prepared = prepare(config)
    bench, seen = Workbench(prepared), list[int]()
    sums = module.row_sums

    def watched(*given: object, token_budget: int, **more: object) -> object:
        seen.append(token_budget)
        return sums(*given, token_budget=token_budget, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "row_sums", watched)
    bench.measure_base()
    assert seen == [EVALUATION_FACTOR * prepared.plan.token_budget]
