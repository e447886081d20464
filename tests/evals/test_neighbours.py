"""A row whose score depends on the rows beside it is found before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

from loraloom.errors import ModelError
from loraloom.evals.neighbours import SHORT, refuse_seen_neighbours
from loraloom.evals.objective import objective_for
from loraloom.records import Task

SMALL: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "num_labels": 3,
}
AUTO: dict[Task, Any] = {
    "causal_lm": tf.AutoModelForCausalLM,
    "seq_cls": tf.AutoModelForSequenceClassification,
}


def ask(config: Any, task: Task, dtype: torch.dtype = torch.float32, pad_id: int = 0) -> None:
    torch.manual_seed(0)
    model = AUTO[task].from_config(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    refuse_seen_neighbours(objective_for(task, model), model, task, pad_id)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sound_models_pass_in_every_precision(dtype: torch.dtype) -> None:
    ask(tf.LlamaConfig(**SMALL), "causal_lm", dtype)
    ask(tf.BertConfig(**SMALL), "seq_cls", dtype)
    ask(tf.LlamaConfig(**SMALL), "seq_cls", dtype)
    if dtype != torch.float64:  # for which the experts' grouped kernels are not made
        ask(tf.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4), "causal_lm", dtype)


def test_padding_that_a_classifier_takes_for_text_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"does not recognise the padding(.|\n)*padded with token 5, and pad_token_id 0"
    ):
        ask(tf.LlamaConfig(**SMALL), "seq_cls", pad_id=5)


def test_a_convolution_over_padding_is_refused_as_that() -> None:
    """ConvBERT, FNet and YOSO mix tokens without the mask: little, but a row then
    depends on its neighbours' lengths."""
    config = tf.ConvBertConfig(**SMALL, embedding_size=16, conv_kernel_size=3, head_ratio=1)
    with pytest.raises(
        ModelError, match=r"ConvBert\w+ reads the padding of its rows(.|\n)*one row a batch"
    ):
        ask(config, "seq_cls")


@pytest.mark.parametrize(
    "config",
    [
        tf.BertConfig(**SMALL, is_decoder=False),
        tf.XLNetConfig(vocab_size=37, d_model=16, n_layer=2, n_head=2, d_inner=24),
    ],
)
def test_a_language_model_that_looks_ahead_is_refused(config: Any) -> None:
    """It would learn to copy the next token."""
    with pytest.raises(
        ModelError, match=r"gives a row another loss beside a longer one(.|\n)*only looks back"
    ):
        ask(config, "causal_lm")


@pytest.mark.parametrize("task", ["causal_lm", "seq_cls"])
@pytest.mark.parametrize("longer_than", [0, SHORT])
def test_an_answer_that_is_not_finite_beside_a_neighbour_is_refused_as_that(
    task: Task, longer_than: int
) -> None:
    """NaN differs from every number by NaN, which is larger than nothing."""
    model = AUTO[task].from_config(tf.LlamaConfig(**SMALL)).eval()

    def spoil(_module: Any, _args: Any, embedded: torch.Tensor) -> torch.Tensor:
        return embedded * (torch.nan if embedded.shape[1] > longer_than else 1)

    model.get_input_embeddings().register_forward_hook(spoil)
    objective = objective_for(task, model)
    if longer_than:
        with pytest.raises(
            ModelError,
            match=r"answers a padded row with numbers that are not finite(.|\n)*without padding",
        ):
            refuse_seen_neighbours(objective, model, task, 0)
    else:  # alone it is not finite either: the check of gradients names the layer
        refuse_seen_neighbours(objective, model, task, 0)
