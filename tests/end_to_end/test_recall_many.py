"""Thousands of items in one write: all of them, or one message."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from doorway import call, write_rows
from small_memory import refusal

pytestmark = [pytest.mark.usefixtures("short_anchors"), pytest.mark.long]


def test_thousands_are_written_found_and_recognised(memory_base: str, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    rows = [{"question": f"Where is key k{n}?", "answer": f"under mat m{n % 700}"} for n in range(3000)]
    bad = write_rows(tmp_path / "bad.jsonl", [*rows, {"question": "Where?", "answer": ""}])
    told = refusal(call("recall", "write", folder, "--model", memory_base, "--data", bad))
    assert told.count("error:") == 1 and "bad.jsonl:3001" in told and not folder.exists()
    data = write_rows(tmp_path / "rows.jsonl", rows)
    wrote = call("recall", "write", folder, "--model", memory_base, "--data", data, "--json", "-q")
    assert wrote.code == 0, wrote.err
    assert Counter(one["outcome"] for one in wrote.json()["decisions"]) == {"insert": 3000}
    again = call("recall", "write", folder, "--data", data, "--write-rate", "0.5", "--json", "-q")
    assert Counter(one["outcome"] for one in again.json()["decisions"]) == {"reinforce": 3000}
    told = call("recall", "ask", folder, "Tell me where key k2718 is.", "--json", "-q").json()
    assert told[0]["found"]["answer"] == f"under mat m{2718 % 700}"
