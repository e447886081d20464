"""Where a model comes from: a folder, or the hub through transformers' own loading.
Every failure says what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from loraloom.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MOST = {
    "label": 10_000_000,
    "layer": 2000,
    "block": 2000,
    "expert": 10_000,
    "depth": 2000,
    "stage": 2000,
}
"""Words in the keys of a config that count parts, and more of them than any model has."""
WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]


def load_config(
    name_or_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Read the config of a folder or of a hub model.

    Raises:
        ModelError: no such folder or hub model, no config.json, a broken one, or a
            family that is not known.
    """
    try:
        folder = Path(name_or_path).expanduser()
        if folder.is_dir():
            _check_folder(name_or_path, folder)
        elif looks_like_path(name_or_path):
            raise _no_folder(name_or_path, folder)
    except (
        OSError,
        RuntimeError,
    ) as fault:  # a closed folder, a name too long for a disk, or "~name" of a user that does not exist
        raise ModelError(
            f"{name_or_path} cannot be opened", got=cause_line(fault), next="check `model.name_or_path`"
        ) from fault
    from transformers import AutoConfig

    local = folder.is_dir()
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        # without a network each file would be asked for again and again, for half a minute
        options["local_files_only"] = not local and not hub_has_address()
        return cast(
            "PreTrainedConfig",
            AutoConfig.from_pretrained(str(folder) if local else name_or_path, **options),
        )
    # a config is user input: each family validates its own, with errors of its own
    except Exception as fault:
        raise _explain(name_or_path, local, fault) from fault


def model_folder(name_or_path: str, revision: str | None = None) -> Path | None:
    """The folder that holds a model's files: itself, or the hub's cache. None when
    nothing is here yet."""
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name_or_path, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def fetch_weights(name: str, revision: str | None = None) -> Path:
    """Fetch a hub model into the local cache, safetensors where the hub has them.

    Raises:
        ModelError: no network, no access, or no such model.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=WEIGHT_PATTERNS))
        if not any(folder.glob("*.safetensors")):
            folder = Path(
                snapshot_download(name, revision=revision, allow_patterns=["pytorch_model*.bin*"])
            )
    except (OSError, ValueError) as fault:
        raise _explain(name, False, fault) from fault
    return folder


def hub_has_address() -> bool:
    """Whether the hub's name can be resolved, or a proxy stands in between that would do it."""
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(urlsplit(ENDPOINT).hostname, None))
    except OSError:
        return False


def cause_line(fault: BaseException) -> str:
    """What an error says, in one line; where it only wraps another one that came from a
    check, that one's."""
    return cause_line(fault.__cause__) if isinstance(fault.__cause__, ValueError) else first_line(fault)


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a folder: hub names have at most one slash
    and start with no dot."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or name.endswith("/")


def _check_folder(name: str, folder: Path) -> None:
    if (folder / "config.json").is_file():
        return _check_counts(name, folder / "config.json")
    files = sorted(path.name for path in folder.iterdir())
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} is an adapter, not a base model",
            got="an adapter_config.json and no config.json",
            need="the folder or hub name of the base model",
            next=f"--model {_base_of(folder) or 'BASE_MODEL'}",
        )
    if any(file.endswith(".gguf") for file in files):
        raise ModelError(
            f"{name} holds a GGUF file, a format to run models in, not to train them",
            got=", ".join(file for file in files if file.endswith(".gguf")),
            need="the original model in Hugging Face format (config.json and safetensors)",
            next="give the model that the GGUF file was made from",
        )
    raise ModelError(
        f"{name} has no config.json",
        got=(
            f"a folder with {', '.join(files[:8])}{', ...' if len(files) > 8 else ''}"
            if files
            else "an empty folder"
        ),
        need="a folder in Hugging Face format: config.json, weights, tokenizer",
        next="point `model.name_or_path` at the folder that holds config.json",
    )


def _check_counts(name: str, path: Path) -> None:
    """Refuse a config that asks for more parts than a model has: each would be built,
    one after another, without end."""
    try:
        content = json.loads(path.read_bytes())
    except (RecursionError, ValueError):
        return  # transformers says what is wrong with it
    for key, value in _whole_numbers(content):
        if (word := next((word for word in MOST if word in key), None)) and value > MOST[word]:
            raise ModelError(
                f"the config.json of {name} cannot be used",
                got=f"{key}: {value if value < 10**18 else 'a number of more than 18 digits'}",
                need=f"at most {MOST[word]:,}",
                next="restore the file",
            )


def _whole_numbers(content: Any) -> Iterator[tuple[str, int]]:
    """Keys that hold a whole number (or a list of them), at any depth."""
    parts: list[tuple[str, Any]] = [("", content)]
    while parts:
        key, value = parts.pop()
        if isinstance(value, dict):
            parts += cast("dict[str, Any]", value).items()
        elif isinstance(value, list):
            parts += [(key, item) for item in cast("list[Any]", value)]
        elif isinstance(value, int):
            yield key, value


def _base_of(folder: Path) -> str | None:
    try:
        content = cast(
            "dict[str, Any]", json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        )
        return content.get("base_model_name_or_path")
    except (OSError, RecursionError, ValueError, AttributeError):
        return None


def _no_folder(name: str, folder: Path) -> ModelError:
    if folder.is_file():
        return ModelError(
            f"{name} is a file, not a model folder",
            need="the folder that holds config.json",
            next=f"--model {folder.parent}",
        )
    parent = next((path for path in folder.parents if path.is_dir()), Path())
    near = sorted(
        path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")
    )[:8]
    return ModelError(
        f"the model folder {name} does not exist",
        got=f"{parent} has the folders {', '.join(near)}" if near else f"{parent} has no folders",
        need="a folder with config.json, or a hub name such as Qwen/Qwen2.5-0.5B-Instruct",
        next="check the spelling of `model.name_or_path`",
    )


def _explain(name: str, is_folder: bool, fault: Exception) -> ModelError:
    text = str(fault)
    first = cause_line(fault)
    if "trust_remote_code" in text:
        return ModelError(
            f"{name} brings its own model code, which is not run unless you allow it",
            need="your consent, after a look at the code",
            next="model.trust_remote_code: true",
        )
    if is_folder:
        return ModelError(
            f"the config.json of {name} cannot be used",
            got=first,
            need="a `model_type` that the installed transformers knows, in valid JSON",
            next="check config.json; a newer family may need a newer transformers",
        )
    if any(word in text.lower() for word in ("gated", "401", "403", "authoris", "authoriz", "private")):
        return ModelError(
            f"the hub refuses to give {name}",
            got=first,
            need="a name that exists, and your access to it",
            next=(
                "check the spelling; for a gated model accept its terms on the hub and run `hf auth"
                " login`"
            ),
        )
    return ModelError(
        f"{name} is neither a folder here nor a model that the hub gives",
        got=first,
        need="a folder with config.json, or a hub name and a connection (or a copy in the hub's cache)",
        next="check the spelling, or give the path of a folder",
    )
