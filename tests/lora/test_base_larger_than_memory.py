"""A base whose files have the dtype that it is used in is mapped and never copied: the system may take
the memory back at any time, so that a base may be larger than it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf

if not sys.platform.startswith("linux"):
    pytest.skip("needs Linux, which counts what a process maps for itself", allow_module_level=True)

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
}
TRAIN = """
import re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from loraloom.lora import base as loading
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing, Segment
from loraloom.records import AdapterSpec

loading.load_tokenizer = lambda *_, **__: type("None", (), {"pad_token_id": 0})()


def train(folder):
    base = loading.load_base(folder, "causal_lm")
    packed = PackedModel(base.model)
    targets = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
    spec = AdapterSpec(2, 4, 0.0, targets, modules_to_save=())
    adapters = [packed.add(name, spec, seed) for seed, name in enumerate("ab")]
    ids = torch.arange(1, 17).view(2, 8)
    with packed.route(Routing((Segment("a", 0, 1), Segment("b", 1, 2)), training=True)) as model:
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
    return base, adapters


def own():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status).group(1)) * 1024


train(sys.argv[1])  # what is imported and made once is there by now
before = own()
kept = train(sys.argv[2])
print(own() - before)
"""


def save(place: Path, **sizes: int) -> Path:
    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(**(SIZES | sizes), vocab_size=256)).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small base of the same make, and a large one."""
    root = tmp_path_factory.mktemp("bases")
    return save(root / "small", num_hidden_layers=2, hidden_size=64), save(root / "large")


def own_bytes(small: Path, large: Path) -> int:
    """What a process holds of its own, beside pages of files, by training over the large base."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(small), str(large)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


def test_weights_stay_pages_of_their_files_unless_they_have_to_be_converted(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    small, large = folders
    weights = (large / "model.safetensors").stat().st_size
    assert own_bytes(small, large) < weights // 4
    tf.AutoModelForCausalLM.from_pretrained(large, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert own_bytes(small, tmp_path) > weights * 3 // 4
