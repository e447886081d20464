"""`loraloom evaluate`: the metrics of a saved adapter, or of the bare base, on a data set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from loraloom.config.asked import Config, DataConfig
from loraloom.data.batches import collate
from loraloom.data.encode import Encoded, Row, encode
from loraloom.data.load import load_table
from loraloom.data.recognise import recognise
from loraloom.data.split import Splits
from loraloom.data.split import split as cut_apart
from loraloom.errors import ConfigError, ModelError
from loraloom.evals.objective import objective_for
from loraloom.evals.scoring import RowSums, score_of
from loraloom.facts.device import device_facts
from loraloom.facts.model import model_facts, require_weights
from loraloom.lora.base import Base, load_base, load_tokenizer
from loraloom.lora.state import load_peft
from loraloom.pipeline.session import deciding_metric
from loraloom.store.folder import RunFolder

TOKENS_A_PASS = 8192


def evaluate(config: Config, adapter: str | None, split: str = "test") -> dict[str, Any]:
    """Score a model on data that the config names.

    Args:
        config: `model.name_or_path` may be left out with an adapter: it knows its base. `data.SPLIT` names the rows, or
            is a share: then they are the ones that a run of this config keeps aside. Data given as `data.train` alone
            are scored as they are.
        adapter: folder of a PEFT adapter, or of one of our runs (its best/); None for the bare base.
        split: "test", "validation" or "train": which file of the config's data, and the prefix of the metrics.

    Returns:
        {model, adapter, task, split, rows, metrics}.

    Raises:
        RequestError: the adapter, the model or the data cannot be used.
    """
    folder = None if adapter is None else adapter_folder(adapter)
    described = {} if folder is None else read_adapter_config(folder)
    name = config.model.name_or_path or described.get("base_model_name_or_path")
    if name is None:
        raise ConfigError("neither a model nor an adapter was given", next="--model NAME_OR_FOLDER or --adapter FOLDER")
    facts = model_facts(name, revision=config.model.revision, trust_remote_code=config.model.trust_remote_code)
    require_weights(facts)
    data = _rows(config, split, folder, facts.kind == "encoder_decoder", name, _labels(folder))
    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    base = load_base(
        name, data.task, label_names=data.label_names, dtype=dtype, seed=config.training.seed,
        revision=config.model.revision, trust_remote_code=config.model.trust_remote_code, device=device_facts().kind,
    )  # fmt: skip
    objective = objective_for(data.task, base.model)
    model = base.model.eval() if folder is None else load_peft(folder, base.model).get_base_model()
    metric, _ = deciding_metric("auto", data.task)
    score = score_of(_sums(model, base, data, objective), split, objective, metric)
    metrics = {f"{split}_{key}": value for key, value in score.metrics.items()}
    return {
        "model": name, "adapter": None if folder is None else str(folder), "task": data.task, "split": split,
        "rows": len(data.train), "metrics": metrics,
    }  # fmt: skip


def adapter_folder(place: str) -> Path:
    """The folder with adapter_config.json that `place` means: itself, or best/ of a run.

    Raises:
        ModelError: there is none.
    """
    path = Path(place)
    for candidate in (path, path / "best", path / "adapter"):
        if (candidate / "adapter_config.json").is_file():
            if not (candidate / "adapter_model.safetensors").is_file():
                raise ModelError(
                    f"adapter `{candidate}` has no weights",
                    need="adapter_model.safetensors beside adapter_config.json",
                    next="copy the file, or give another folder",
                )
            return candidate
    got = "no such folder" if not path.is_dir() else f"files: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'none'}"
    raise ModelError(
        f"`{place}` is no adapter", got=got, need="a folder with adapter_config.json, or a run folder", next="loraloom runs"
    )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder.

    Raises:
        ModelError: it is not a JSON object.
    """
    try:
        found = json.loads((folder / "adapter_config.json").read_text())
    except ValueError as error:
        raise ModelError(f"{folder}/adapter_config.json is not JSON", got=str(error), next="restore the file") from error
    if not isinstance(found, dict):
        raise ModelError(
            f"{folder}/adapter_config.json is not an adapter's config", need="a JSON object", next="restore the file"
        )
    return cast(dict[str, Any], found)


def _labels(folder: Path | None) -> tuple[str, ...] | None:
    """Class names of the run that made an adapter, in the order of its head; None where no run is near."""
    if folder is None:
        return None
    for place in folder.resolve().parents:
        if (place / "run.json").is_file():
            return tuple(RunFolder.open(place).result().labels) or None
    return None


def _rows(
    config: Config, split: str, folder: Path | None, encoder_decoder: bool, name: str, labels: tuple[str, ...] | None
) -> Encoded:
    source = {"test": config.data.test, "validation": config.data.validation, "train": config.data.train}.get(split)
    share = isinstance(source, float)
    source = source if isinstance(source, str) else config.data.train
    if source is None:
        raise ConfigError("no data was given to evaluate on", next="--data FILE")
    table = load_table(source, split="train" if share else split, max_rows=config.data.max_rows, seed=config.training.seed)
    asked: DataConfig = replace(config.data, train=source)
    recognised = recognise(table, asked, config.task, encoder_decoder=encoder_decoder)
    if share:
        # The rows that the run itself had kept aside, not those that it was trained on.
        parts = cut_apart(table, asked.validation, asked.test, recognised, seed=config.training.seed)
        table = parts.tables[split]
    tokenizer = load_tokenizer(str(folder) if folder else name, trust_remote_code=config.model.trust_remote_code)
    encoded = encode(Splits(table), recognised, tokenizer, recognised.task)
    length = config.data.max_length
    encoded = encoded.cut(length if isinstance(length, int) else min(tokenizer.model_max_length, 2**20))
    return encoded if labels is None else _relabel(encoded, labels)


def _relabel(encoded: Encoded, labels: tuple[str, ...]) -> Encoded:
    """Class numbers as the adapter's head has them.

    Raises:
        ConfigError: the data hold a class that the adapter does not know.
    """
    own = encoded.label_names or ()
    unknown = [name for name in own if name not in labels]
    if unknown:
        raise ConfigError(
            f"label `{unknown[0]}` is not one that the adapter was trained on", need=", ".join(labels), next="check the labels"
        )
    number = np.array([labels.index(name) for name in own], dtype=np.int32)
    rows = tuple(Row(row.input_ids, number[row.labels]) for row in encoded.train)
    return replace(encoded, train=rows, label_names=labels)


@torch.no_grad()
def _sums(model: Any, base: Base, data: Encoded, objective: Any) -> RowSums:
    """Row sums of a plain (PEFT or bare) model, shortest rows first."""
    out = np.zeros((3, len(data.train)))
    order = sorted(range(len(data.train)), key=lambda i: len(data.train[i].input_ids))
    start = 0
    while start < len(order):
        size = max(1, TOKENS_A_PASS // max(1, len(data.train[order[min(start + 64, len(order) - 1)]].input_ids)))
        chosen = order[start : start + min(size, 256)]
        batch = collate([data.train[i] for i in chosen], base.pad_id, data.task).to(base.model.device)
        result = objective.rows(model, batch)
        out[:, chosen] = torch.stack([result.loss, result.weight, result.correct]).double().cpu().numpy()
        start += len(chosen)
    return RowSums(*out)
