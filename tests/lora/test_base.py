"""Loading a base: what the files do not hold is refused, unless the task makes it anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loraloom.errors import ModelError
from loraloom.lora.base import load_base
from loraloom.records import Task

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_bert, save_llama

SENTENCES = ["one small step", "the other way round", "a step the other way"]


def changed(folder: Path, **values: int) -> Path:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    "values",
    [{"num_hidden_layers": 3}, {"intermediate_size": 40}],
    ids=["a layer more", "a narrower MLP"],
)
@pytest.mark.parametrize("task", ["causal_lm", "seq_cls"])
def test_a_config_that_does_not_fit_the_weights_is_refused(
    tmp_path: Path, task: Task, values: dict[str, int]
) -> None:
    save = save_llama if task == "causal_lm" else save_bert
    with pytest.raises(ModelError) as caught:
        load_base(
            str(changed(save(tmp_path, SENTENCES), **values)),
            task,
            label_names=("no", "yes") if task == "seq_cls" else None,
        )
    assert "config.json" in str(caught.value)


def test_a_classifier_of_a_bare_encoder_has_a_new_head_and_nothing_else(tmp_path: Path) -> None:
    base = load_base(str(save_bert(tmp_path, SENTENCES)), "seq_cls", label_names=("no", "yes", "maybe"))
    assert base.fresh_modules == ("classifier",)
