"""Log-probabilities of a reference: found once, kept, looked at again before they are believed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from loraloom.data.rows import Row
from loraloom.errors import RunError
from loraloom.evals.joined import side_losses
from loraloom.evals.objective import CausalObjective
from loraloom.evals.reference import CHECKED, ReferenceLogps

MADE_OF = ("base", "", "float32")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return tf.LlamaForCausalLM(
        tf.LlamaConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=31,
        )
    ).eval()


def rows() -> list[Row]:
    draw = np.random.default_rng(0)
    made: list[Row] = []
    for _ in range(24):
        ids = draw.integers(1, 31, draw.integers(4, 9)).astype(np.int32)
        labels = ids.copy()
        labels[:2] = -100
        made.append(Row(ids, labels))
    return made


class Counted(ReferenceLogps):
    """Counts the rows that go through the model."""

    def __init__(self, model: Any) -> None:
        super().__init__(CausalObjective(model), lambda: nullcontext(model), pad_id=0, token_budget=64)
        self.count = 0

    def found(self, rows: Any) -> Any:
        self.count += len(rows)
        return super().found(rows)


def test_a_row_goes_through_the_model_once(model: Any) -> None:
    reference = Counted(model)
    once = reference.of(rows())
    assert torch.equal(reference.of(rows()[::-1]), once.flip(0)) and reference.count == 24
    ids = torch.tensor(rows()[0].input_ids, dtype=torch.int64)
    own = model(ids[None]).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[1:, None])[1:].sum()
    assert float(once[0]) == pytest.approx(float(own), rel=1e-5)


def test_a_later_run_reads_them_and_looks_at_a_few(model: Any, tmp_path: Path) -> None:
    first = Counted(model)
    assert first.learn(rows(), tmp_path, MADE_OF) is None and first.count == 24
    second = Counted(model)
    assert second.learn(rows()[::-1], tmp_path, MADE_OF) is None and second.count == CHECKED
    assert torch.equal(second.of(rows()), first.of(rows())) and second.count == CHECKED


def test_other_rows_and_other_models_have_files_of_their_own(model: Any, tmp_path: Path) -> None:
    Counted(model).learn(rows(), tmp_path, MADE_OF)
    for some, made_of in ((rows()[1:], MADE_OF), (rows(), ("other", "", "float32"))):
        other = Counted(model)
        assert other.learn(some, tmp_path, made_of) is None and other.count == len(some)


@pytest.mark.parametrize("fault", ["cut off", "other numbers", "other rows", "no numbers", "nan"])
def test_what_is_broken_is_made_anew_with_a_word(fault: str, model: Any, tmp_path: Path) -> None:
    whole = Counted(model)
    whole.learn(rows(), tmp_path, MADE_OF)
    (file,) = tmp_path.iterdir()
    kept = load_file(file)
    if fault == "cut off":
        file.write_bytes(file.read_bytes()[:100])
    elif fault == "other numbers":
        save_file({**kept, "logps": kept["logps"] - 1}, file)
    elif fault == "nan":
        kept["logps"][1] = float("nan")
        save_file(kept, file)
    elif fault == "other rows":
        save_file({"keys": kept["keys"][1:].clone(), "logps": kept["logps"][1:].clone()}, file)
    else:
        save_file({"keys": kept["keys"]}, file)
    again = Counted(model)
    said = again.learn(rows(), tmp_path, MADE_OF)
    assert said is not None and "made anew" in said and str(file) in said
    assert torch.allclose(again.of(rows()), whole.of(rows()))
    assert Counted(model).learn(rows(), tmp_path, MADE_OF) is None


def test_memory_that_runs_out_makes_passes_smaller(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Counted(model).of(rows())
    reference = Counted(model)
    sizes = list[int]()

    def short(model: Any, form: Any, batch: Any, targets: Any) -> Any:
        sizes.append(batch.input_ids.numel())
        if sizes[-1] > 20:
            raise RuntimeError("CUDA out of memory")
        return side_losses(model, form, batch, targets)

    monkeypatch.setattr("loraloom.evals.reference.side_losses", short)
    said = reference.learn(rows(), tmp_path, MADE_OF)
    assert said is not None and "memory ran out: the reference scores at most" in said
    assert torch.allclose(reference.of(rows()), whole, rtol=1e-5)
    failed = [size for size in sizes if size > 20]
    assert len(failed) == 2, "64 tokens, 32, 16: no size is tried again once it has failed"

    def never(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("loraloom.evals.reference.side_losses", never)
    with pytest.raises(RunError, match="scored one row of"):
        reference.found(rows())


def test_a_folder_that_cannot_be_written_costs_the_next_run_alone(model: Any, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    reference = Counted(model)
    said = reference.learn(rows(), place, MADE_OF)
    assert said is not None and "not kept" in said
    assert len(reference.of(rows())) == 24
