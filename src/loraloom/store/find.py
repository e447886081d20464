"""A run that a person names: by its folder, or by its name in the output folder."""

from __future__ import annotations

from pathlib import Path

from loraloom.store.folder import RunFolder


def find_run(place: str | Path, output_dir: str | Path) -> RunFolder:
    """The run folder at `place`, else the run of that name in `output_dir`.

    Raises:
        RequestError: neither is there; the message lists the runs that are.
    """
    path = Path(place)
    return RunFolder.open(path if path.exists() and RunFolder(path).is_run() else Path(output_dir, path))
