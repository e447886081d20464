"""Several adapters over one base at once, as PEFT runs them: what their combination is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loraloom.adapters.artefacts import peft_folder
from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.verify import Reference, probes_of, task_of, trained_over
from loraloom.lora.untrusted_adapter import check_adapter


def reference_of_sum(forms: Sequence[Form], weights: Sequence[float], files: BaseFiles) -> Reference:
    """What adapters compute together, each with its weight.

    Raises:
        ModelError: one of them cannot be loaded over this base.
    """
    probes = probes_of(forms[0], files)
    first, *others = (form.folder for form in forms)
    with peft_folder(first, files, task_of(files)) as live:
        model = live.model
        names = [str(model.active_adapter), *(f"adapter{number}" for number in range(len(others)))]
        paths = [name for name, _ in model.get_base_model().named_modules() if name]
        for name, folder in zip(names[1:], others, strict=True):
            _add(model, name, folder, paths)
        model.base_model.set_adapter(names)
        for module in model.modules():
            scaling = getattr(module, "scaling", None)
            if isinstance(scaling, dict):
                for name, weight in zip(names, weights, strict=True):
                    if name in scaling:
                        scaling[name] *= weight
        trained = [live.logits(row) for row in probes.rows]
        with model.disable_adapter():
            bare = [live.logits(row) for row in probes.rows]
    notes = dict.fromkeys(note for form in forms for note in trained_over(form.folder))
    names_of_all = " + ".join(str(form.folder) for form in forms)
    return Reference(names_of_all, str(files.folder), probes, trained, bare, tuple(notes))


def _add(model: object, name: str, folder: Path, paths: Sequence[str]) -> None:
    check_adapter(folder, [path.replace(".base_layer", "") for path in paths])
    model.load_adapter(str(folder), adapter_name=name, use_safetensors=True)  # pyright: ignore
