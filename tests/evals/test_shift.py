"""What decoders start with is the model's own: compared with what its forward pass makes of labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

from loraloom.errors import ModelError
from loraloom.evals.objective import objective_for
from loraloom.evals.shift import shift_of

VOCAB = 37
PAIRED = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "forced_eos_token_id": None,
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "pad_token_id": 0,
}
GEMMA = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 4,
    "eos_token_id": 5,
}

MODELS: dict[str, tuple[Any, int | None]] = {
    "the pad token (T5)": (tf.T5Config(**T5, decoder_start_token_id=0), 0),
    "the end of a text (BART)": (tf.BartConfig(**PAIRED, decoder_start_token_id=2), 2),
    "the target's last token (mBART)": (tf.MBartConfig(**PAIRED), None),
    "a language's code, whatever the config says (PLBart)": (tf.PLBartConfig(**PAIRED), None),
    "the decoder's own beginning (T5Gemma)": (
        tf.T5GemmaConfig(encoder=GEMMA, decoder=GEMMA, vocab_size=VOCAB),
        4,
    ),
}


def built(config: Any) -> Any:
    torch.manual_seed(0)
    return tf.AutoModelForSeq2SeqLM.from_config(config).double().eval()


@pytest.mark.parametrize("name", MODELS)
def test_the_start_is_the_models_own(name: str) -> None:
    config, start = MODELS[name]
    assert shift_of(built(config)).start == start


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_models_own_labels(name: str) -> None:
    model = built(MODELS[name][0])
    labels = torch.tensor([[7, 8, 9, 2], [11, 12, -100, -100]])
    ids = torch.tensor([[7, 9, 6], [8, 8, 6]])
    given = shift_of(model)(labels)
    with torch.no_grad():
        own, ours = (
            model(input_ids=ids, labels=labels).logits,
            model(input_ids=ids, decoder_input_ids=given).logits,
        )
    assert torch.equal(ours[labels != -100], own[labels != -100])


@pytest.mark.parametrize(
    "config", [tf.BartConfig(**PAIRED, decoder_start_token_id=None), tf.T5Config(**T5)]
)
def test_a_model_without_a_start_is_refused_with_what_to_do(config: Any) -> None:
    with pytest.raises(
        ModelError,
        match=(
            r"what the decoder of .* starts a target with is not known(.|\n)*decoder_start_token_id in"
        ),
    ):
        objective_for("seq2seq_lm", built(config))
