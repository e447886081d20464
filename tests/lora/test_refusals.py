"""What candidates cannot share is refused by name, with a reason, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

from loraloom.errors import ModelError
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.probe import probe
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import AdapterSpec

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 31,
}


def llama() -> Any:
    torch.manual_seed(0)
    return tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL, num_key_value_heads=2, pad_token_id=0))


def spec(*targets: str, **more: Any) -> AdapterSpec:
    return AdapterSpec(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=targets, **more)


QUERY = "model.layers.0.self_attn.q_proj"


def test_batch_statistics_are_refused() -> None:
    model = llama()
    model.model.layers[0].mlp.add_module("norm", nn.BatchNorm1d(16))
    with pytest.raises(
        ModelError, match=r"`model\.layers\.0\.mlp\.norm` \(BatchNorm1d\) mixes the rows of a batch"
    ):
        PackedModel(model)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("loftq_niter_4", "more steps of LoftQ than one"),
        ("eva", "activations of the training data"),
        ("wishful", "no start of that name is known"),
    ],
)
def test_starts_that_need_another_base_or_data_are_refused(how: str, reason: str) -> None:
    with pytest.raises(
        ModelError, match=f"`adapter.init_lora_weights: {how}` cannot be packed\n.*{reason}"
    ):
        PackedModel(llama()).add("a", spec(QUERY, init_lora_weights=how), 0)


def test_what_pefts_own_start_cannot_do_is_told_as_ours() -> None:
    with pytest.raises(ModelError, match=r"orthogonal` does not go with r = 3\n.*even"):
        PackedModel(llama()).add(
            "a", AdapterSpec(3, 4, 0.0, (QUERY,), init_lora_weights="orthogonal"), 0
        )
    with pytest.raises(ModelError, match="has only 16 directions"):
        PackedModel(llama()).add("a", AdapterSpec(17, 4, 0.0, (QUERY,), init_lora_weights="pissa"), 0)
    with pytest.raises(ModelError, match="two methods that each redefine the frozen weight"):
        PackedModel(llama()).add("a", spec(QUERY, use_dora=True, init_lora_weights="pissa"), 0)


def test_a_candidate_that_is_refused_halfway_leaves_nothing_behind() -> None:
    packed = PackedModel(llama())
    up, down = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
    halfway = spec(up, down, init_lora_weights="orthogonal", rank_pattern={"down_proj": 3})
    with pytest.raises(ModelError, match="does not go with r = 3"):
        packed.add("a", halfway, 0)
    assert packed.adapters == {}
    assert not getattr(packed.model.get_submodule(up), "adapters", {})
    assert packed.add("a", spec(up), 0).arena.numel


def test_a_layer_trained_twice_and_a_layer_that_is_not_there_are_refused() -> None:
    packed = PackedModel(llama())
    with pytest.raises(ModelError, match="in modules_to_save and a LoRA target at once"):
        packed.add("a", spec("model.layers.0.mlp.up_proj", modules_to_save=("model.layers.0.mlp",)), 0)
    with pytest.raises(ModelError, match=r"names `model\.layers\.7\.q`, which the model does not have"):
        packed.add("a", spec("model.layers.7.q"), 0)
    with pytest.raises(ModelError, match=r"`adapter\.rank_pattern` names `v_proj`, which is no target"):
        packed.add("a", spec(QUERY, rank_pattern={"v_proj": 2}), 0)
    with pytest.raises(ModelError, match="LoRA on a LlamaRMSNorm is not known"):
        packed.add("a", spec("model.norm"), 0)
    assert packed.adapters == {}


def test_a_module_that_never_runs_is_refused_rather_than_never_trained() -> None:
    config = tf.T5Config(
        vocab_size=31, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    packed = PackedModel(tf.T5ForConditionalGeneration(config))
    with pytest.raises(ModelError, match="names `shared`, which the model never runs"):
        packed.add("a", spec("encoder.block.0.layer.0.SelfAttention.q", modules_to_save=("shared",)), 0)


def test_a_bias_that_all_rows_share_is_refused() -> None:
    config = tf.DebertaV2Config(
        **SMALL,
        relative_attention=True,
        position_buckets=4,
        pos_att_type=["p2c"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
    )
    packed = PackedModel(tf.DebertaV2ForSequenceClassification(config))
    target = "deberta.encoder.layer.0.attention.self.value_proj"
    with pytest.raises(
        ModelError,
        match=r"`adapter\.bias: all` reaches `deberta\.encoder\.(LayerNorm|.*query_proj)\.bias`",
    ):
        packed.add("a", spec(target, bias="all"), 0)
    assert packed.add("a", spec(target, bias="lora_only"), 0).arena.numel


def test_a_module_whose_rows_cannot_be_handed_out_is_refused() -> None:
    with pytest.raises(ModelError, match="whose rows cannot be handed to one candidate each"):
        PackedModel(llama()).add(
            "a", spec("model.layers.0.mlp.up_proj", modules_to_save=("model.layers.0.self_attn",)), 0
        )


def test_what_one_candidate_trains_whole_another_may_adapt_within() -> None:
    packed = PackedModel(llama())
    up = "model.layers.0.mlp.up_proj"
    adapted = packed.add("adapted", spec(up), 0)
    whole = packed.add("whole", spec(QUERY, modules_to_save=("model.layers.0.mlp",)), 0)
    assert {entry.path for entry in adapted.arena.entries} == {up}
    names = {entry.name for entry in whole.arena.entries if entry.path == "model.layers.0.mlp"}
    assert names == {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}


def test_the_probe_knows_which_layers_see_rows() -> None:
    uses = probe(llama())
    assert not uses[QUERY].rowless and uses[QUERY].row_places == {0} and uses[QUERY].row_results
    config = tf.DebertaV2Config(
        **SMALL,
        relative_attention=True,
        position_buckets=4,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
    )
    uses = probe(tf.DebertaV2Model(config))
    around = uses["encoder.layer.0.attention.self"]
    assert (
        uses["encoder.layer.0.attention.self.key_proj"].rowless
        and not uses["encoder.layer.0.attention.self.value_proj"].rowless
    )
    assert (
        not around.rowless
        and around.row_results
        and 0 in around.row_places
        and "rel_embeddings" not in around.row_places
    )


def test_a_model_that_rearranges_itself_in_its_first_pass_is_trained_all_the_same() -> None:
    """BigBird puts another attention in place when it first sees short rows: what was
    noted before would train nothing."""
    config = tf.BigBirdConfig(**SMALL, block_size=2, num_random_blocks=1, attention_type="block_sparse")
    torch.manual_seed(0)
    packed = PackedModel(tf.BigBirdForSequenceClassification(config))
    target = "bert.encoder.layer.0.attention.self.query"
    adapter = packed.add("a", spec(target, init_lora_weights=False), 0)
    with packed.route(Routing((Segment("a", 0, 2),), True)):
        packed.model(input_ids=torch.tensor([[2, 3, 4], [5, 6, 7]])).logits.sum().backward()
    assert all(bool(adapter.arena.grad(entry).any()) for entry in adapter.arena.entries)


def test_a_model_may_add_to_what_a_layer_gives_in_place() -> None:
    """Falcon, Longformer and RoCBert do; the gradients are those of the sum."""
    torch.manual_seed(0)
    model = llama()
    model.model.layers[0].mlp.register_forward_hook(lambda _m, args, result: result.add_(args[0]))
    down = "model.layers.0.mlp.down_proj"
    ids, grads = torch.tensor([[2, 3, 4, 5]]), []
    for target in (down, QUERY):
        packed = PackedModel(share_copy(model))
        adapters = [packed.add(name, spec(target, init_lora_weights=False), 7) for name in "ab"]
        with packed.route(Routing((Segment("a", 0, 1), Segment("b", 1, 2)), True)):
            packed.model(input_ids=ids.repeat(2, 1)).logits.square().sum().backward()
        grads += [adapter.arena.grads for adapter in adapters]
    assert all(bool(grad.isfinite().all()) and bool(grad.any()) for grad in grads)
    assert torch.allclose(grads[0], grads[1]) and torch.allclose(grads[2], grads[3])


def test_a_linear_layer_whose_forward_is_another_product_is_refused_by_name() -> None:
    class Grouped(nn.Linear):
        """Multiplies each half of its input with the same weight, as DeepSeek-V4's
        output projection does its groups."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.unflatten(-1, (2, -1))).flatten(-2)

    class Transposed(nn.Linear):
        """The same product, written otherwise, as in Falcon."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input @ self.weight.T

    model = llama()
    model.model.layers[0].self_attn.o_proj = Grouped(8, 8, bias=False)
    model.model.layers[0].self_attn.q_proj = Transposed(16, 16, bias=False)
    packed = PackedModel(model)
    assert packed.add("plain", spec(QUERY), 0).arena.numel
    with pytest.raises(
        ModelError, match=r"o_proj`, which is no plain product(.|\n)*a Grouped with a forward of its own"
    ):
        packed.add("grouped", spec("model.layers.0.self_attn.o_proj"), 0)
