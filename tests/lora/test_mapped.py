"""A base that stays in its files trains as one in memory, where there is no memory for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf

from loraloom.errors import ModelError
from loraloom.lora.mapped import mapped_bytes, mapped_files, refuse_copies

LIMITED = """
import json, resource, sys
import torch, transformers
from loraloom.lora.base import quiet_transformers
from loraloom.lora.mapped import mapped_files, refuse_copies
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import AdapterSpec


def losses_of(model):
    packed = PackedModel(model)
    targets = tuple(name for name, _ in model.named_modules() if name.endswith("_proj"))
    spec = AdapterSpec(target_modules=targets, r=4, lora_alpha=8, lora_dropout=0.0)
    adapters = [packed.add(name, spec, seed) for seed, name in enumerate("ab")]
    ids, losses = torch.arange(16).view(2, 8), []
    for _ in range(2):
        with packed.route(Routing((Segment("a", 0, 1), Segment("b", 1, 2)), True)) as base:
            loss = base(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
        for adapter in adapters:
            adapter.arena.weights.sub_(adapter.arena.grads, alpha=0.1)
            adapter.arena.grads.zero_()
            adapter.refresh()
        losses.append(float(loss.detach()))
    return losses


def loaded(folder):
    with quiet_transformers(), mapped_files() as maps:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if how == "copied":
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    else:
        refuse_copies(model, maps, folder)
    return model


small, folder, limit, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
losses_of(loaded(small))  # all code is read before the limit
if limit:
    held = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if "VmData" in line)
    resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))
try:
    print(json.dumps({"losses": losses_of(loaded(folder))}))
except (RuntimeError, MemoryError) as error:
    print(json.dumps({"error": str(error)}))
"""


def saved(path: Path, hidden: int) -> Path:
    config = tf.LlamaConfig(
        vocab_size=200,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    torch.manual_seed(0)
    tf.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 MB in float32."""
    return saved(tmp_path_factory.mktemp("model"), 512)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("small"), 64)


def trained(small: Path, folder: Path, limit: int, how: str) -> dict[str, object]:
    words = [sys.executable, "-c", LIMITED, str(small), str(folder), str(limit), how]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_a_pack_trains_in_less_memory_than_its_base_takes(small: Path, folder: Path) -> None:
    size = (folder / "model.safetensors").stat().st_size
    limit = int(0.7 * size)
    mapped = trained(small, folder, limit, "mapped")
    assert "losses" in mapped, mapped
    assert mapped == trained(small, folder, 0, "copied")
    assert "error" in trained(small, folder, limit, "copied")  # the limit is one


def test_what_is_converted_is_a_copy_and_is_refused(folder: Path) -> None:
    with mapped_files() as maps:
        model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert mapped_bytes(model, maps) == 0
    with pytest.raises(ModelError) as caught:
        refuse_copies(model, maps, str(folder))
    text = str(caught.value)
    assert (
        "reading them made a copy" in text and "as bfloat16" in text and "model.streaming: false" in text
    )


def test_safetensors_maps_as_ever_afterwards(folder: Path) -> None:
    theirs = torch.UntypedStorage.from_file
    with mapped_files() as maps:
        model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert mapped_bytes(model, maps) == sum(p.nbytes for p in model.parameters())
    assert torch.UntypedStorage.from_file is theirs
