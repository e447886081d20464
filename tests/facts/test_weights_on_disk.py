"""Reading headers of weight files: any set of tensors gives back its names, its size
and its main type."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from loraloom.facts.weights import find_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}\.weight", fullmatch=True), st.integers(1, 40), min_size=1, max_size=6
    ),
    st.sampled_from(sorted(DTYPES)),
)
def test_names_size_and_type_come_back(sizes: dict[str, int], dtype: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(
            {key: torch.zeros(size, dtype=DTYPES[dtype]) for key, size in sizes.items()},
            folder / "model.safetensors",
        )
        found = find_weights(folder)
        assert found.problem is None
        assert found.names == frozenset(sizes)
        assert found.dtype == dtype
        assert found.bytes == (folder / "model.safetensors").stat().st_size


def test_the_type_of_most_numbers_counts_not_of_most_tensors(tmp_path: Path) -> None:
    tensors = {f"norm{number}": torch.zeros(4) for number in range(5)}
    save_file(
        {**tensors, "big": torch.zeros(1000, dtype=torch.bfloat16)}, tmp_path / "model.safetensors"
    )
    assert find_weights(tmp_path).dtype == "bfloat16"


def test_a_pickle_counts_as_weights_with_names_unknown(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 10)
    found = find_weights(tmp_path)
    assert (found.bytes, found.names, found.problem) == (10, None, None)


def test_a_broken_index_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    for content in ("[]", "{", json.dumps({"weight_map": 3}), json.dumps({})):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        assert "index of the weight files" in str(find_weights(tmp_path).problem)


def test_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    assert find_weights(tmp_path).problem == "no model.safetensors and no pytorch_model.bin"
