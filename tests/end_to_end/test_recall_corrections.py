"""A correction in other words at the command line."""

from __future__ import annotations

from pathlib import Path

from doorway import Answer, call, write_rows
from small_memory import refusal

FOUND = "Who found the key under the mat?"
ASKED_AGAIN = "The key under the mat, who was it that found it?"


def test_a_correction_is_recognised_or_offered_or_given(memory_base: str, tmp_path: Path) -> None:
    folder = tmp_path / "memory"

    def write(question: str, answer: str, *more: str) -> Answer:
        words = ("--model", memory_base, "--question", question, "--answer", answer, *more)
        return call("recall", "write", folder, *words, "--quiet")

    assert write("What is the capital of Norland?", "Tolm").code == 0
    certain = write("Tell me what Norland's capital is called.", "Brek")
    assert "replaces" in certain.out and "in other words, in place of m0001" in certain.out
    assert write(FOUND, "Ada").code == 0
    near = write(ASKED_AGAIN, "Olaf", "--dry-run")
    assert "if it corrects m0003, give it again with --corrects m0003" in " ".join(near.out.split())
    given = write(ASKED_AGAIN, "Olaf", "--corrects", "m0003")
    assert given.code == 0 and "in place of m0003" in given.out, given.err
    found = call("recall", "report", folder, "--json", "--quiet").json()
    kept = {one["question"]: one["answer"] for one in found["items"] if one["standing"] == "kept"}
    assert kept == {"What is the capital of Norland?": "Brek", FOUND: "Olaf"}
    assert "it is superseded already" in refusal(write("Who?", "Olaf", "--corrects", "m0003"))
    assert "--corrects is for the item" in refusal(
        call("recall", "write", folder, "--corrects", "m0004")
    )
    rows = [{"kind": "event", "who": "Ada", "what": "found a key", "corrects": "m0004"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert "`corrects` is about one thing" in refusal(call("recall", "write", folder, "--data", data))
    assert len(call("recall", "report", folder, "--json", "--quiet").json()["items"]) == 4
