"""How far a preference run has moved its model from what it began with, on what that writes now.

Both write answers to the same held-out prompts, drawn token by token as the model gives them. The mean
of log pi(y) - log pi0(y) over the tokens of what the adapter pi writes estimates KL(pi || pi0) without
bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from loraloom.data.rows import Row, causal_row
from loraloom.diagnose.rules.length_hacking import longer_than_base
from loraloom.evals.writing import exercise, generated, of_one_length, room_for, stop_ids
from loraloom.lora.base import share_copy
from loraloom.lora.state import load_peft
from loraloom.pipeline.initial_adapter import TRIAL as INITIAL
from loraloom.pipeline.initial_adapter import as_saved
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.workbench import Workbench
from loraloom.records import Score
from loraloom.report.words import with_error
from loraloom.search.compare import ratio_of_sums

SPLIT = "written"
"""Before the metrics of a trial: `written_kl`, `written_length_ratio`."""
PROMPTS = 8
"""Each is continued by itself, token by token, twice: few enough to wait for."""
MOST_TOKENS = 64
PLAIN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
"""Drawn from the model's own distribution, whatever its generation_config.json asks for."""

Ids = tuple[int, ...]


def measure_drift(bench: Workbench, log: RunLog, winner: str) -> None:
    """Let the best adapter and what it began with write, and keep KL and lengths as metrics of the
    winner. Only of preference runs: other rows say themselves what is to be written."""
    prepared = bench.prepared
    if prepared.task != "preference":
        return
    examples = prepared.data.validation or prepared.data.train
    count = min(PROMPTS, len(examples))
    chosen = [examples[place * len(examples) // count] for place in range(count)]
    prompts = [exercise(one.sides[0], "causal_lm").prompt for one in chosen]
    try:
        score = _drift(bench, log, winner, prompts)
    except Exception as error:
        # As of samples: the adapter is trained and proven, whatever generate() objects to.
        log.recorder.note(f"drift was not measured: {type(error).__name__}: {error}")
        return
    found = score.metrics
    log.recorder.scored(winner, score)
    ratio, error = found["length_ratio"], found["length_ratio_se"]
    log.recorder.note(
        f"what {winner} writes: KL {with_error(found['kl'], found['kl_se'])} nats a token from"
        f" {prepared.config.adapter.init_from or 'the bare base'}, and {with_error(ratio, error)} times"
        f" as long ({count} prompts)"
    )
    if told := longer_than_base(ratio, error, count):
        log.of_run.append(told)


def _drift(bench: Workbench, log: RunLog, winner: str, prompts: Sequence[Ids]) -> Score:
    base, seed = bench.base, bench.prepared.config.training.seed
    initial = as_saved(bench.prepared.plan, log.folder.path)

    def model(folder: Any) -> Any:
        return load_peft(folder, share_copy(base.model, own_biases=True))

    ours = drawn(model(log.folder.best), prompts, bench.prepared.tokenizer, base.pad_id, seed)
    first = model(initial[0][1]) if initial else share_copy(base.model).eval()
    theirs = drawn(first, prompts, bench.prepared.tokenizer, base.pad_id, seed)
    rows = [_row(prompt, answer) for prompt, answer in zip(prompts, ours, strict=True) if answer]
    trained = (log.recorder.records[winner].job.candidate, log.recorder.adapter_folder(winner))
    with bench.seated([trained, *initial]):
        sums = bench.sums(rows, [made.id for made, _ in (trained, *initial)])
        before = sums[INITIAL] if initial else bench.sums(rows, [])[""]
    now = sums[winner]
    kl = ratio_of_sums(before.loss - now.loss, now.weight)
    now_N, before_N = (np.array([max(1, len(ids)) for ids in texts], float) for texts in (ours, theirs))
    ratio = ratio_of_sums(now_N, before_N)
    return Score(
        SPLIT,
        {
            "kl": kl.mean,
            "kl_se": kl.se,
            "length_ratio": ratio.mean,
            "length_ratio_se": ratio.se,
            "tokens": float(now_N.mean()),
        },
    )


@torch.no_grad()
def drawn(model: Any, prompts: Sequence[Ids], tokenizer: Any, pad_id: int, seed: int) -> list[Ids]:
    """Token ids of one answer to each prompt, up to and with the token that ends it."""
    ends = set(stop_ids(model, tokenizer))
    texts = [()] * len(prompts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for lot in of_one_length(prompts):
            length = len(prompts[lot[0]])
            room = room_for(model, "causal_lm", length, MOST_TOKENS)
            if room <= 0:
                continue
            asked = [prompts[place] for place in lot]
            out = generated(model, asked, tokenizer, pad_id, room, 1.0, **PLAIN).sequences
            for place, ids in zip(lot, out[:, length:].tolist(), strict=True):
                end = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1)
                texts[place] = tuple(ids[: end + 1])
    return texts


def _row(prompt: Ids, answer: Ids) -> Row:
    """A row whose answer alone is scored."""
    marks = np.zeros(len(prompt) + len(answer), dtype=bool)
    marks[len(prompt) :] = True
    return causal_row([*prompt, *answer], marks)
