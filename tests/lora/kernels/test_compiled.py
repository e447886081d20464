"""The kernels compile for Ampere and Hopper without a device, into tensor-core instructions, with
everything in registers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="needs Triton: pip install loraloom[gpu], on Linux")
TYPES = {
    "x_ptr": "*bf16",
    "h_ptr": "*bf16",
    "y_ptr": "*bf16",
    "table_ptr": "*i64",
    "spans_ptr": "*i32",
    "row_tokens": "i32",
    "layer": "i32",
}
TENSOR_CORES = {90: "wgmma.mma_async", 80: "mma.sync"}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was compiled before is no proof."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def compiled(
    kernel: Any, types: dict[str, str], values: dict[str, Any], capability: int, warps: int = 4
) -> Any:
    """The kernel as a launch would compile it, whose pointers are aligned to 16 bytes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: types.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in values.items()},
        {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if types.get(name, "").startswith("*")
        },
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def spills(kernel: Any, folder: Path) -> int:
    """Loads and stores of local memory in the machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    if not tool.exists():
        pytest.skip("this Triton brings no nvdisasm")
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    listing = subprocess.run([str(tool), str(file)], capture_output=True, text=True, check=True).stdout
    assert "EXIT" in listing
    return len(re.findall(r"\b(?:LDL|STL)\b", listing))


@pytest.mark.parametrize("capability", TENSOR_CORES)
@pytest.mark.parametrize(
    ("is_a", "rank"), [(True, 16), (False, 16), (True, 64)], ids=["A", "B", "A of 64 ranks"]
)
@pytest.mark.parametrize("name", ["shrink", "expand", "accumulate"])
def test_products_of_adapters_use_tensor_cores_and_spill_nothing(
    name: str, is_a: bool, rank: int, capability: int, tmp_path: Path
) -> None:
    from loraloom.lora.kernels import delta, pack_deltas, tables

    values: dict[str, Any] = {
        "F": 2048,
        "W": rank,
        "IS_A": is_a,
        "DROPS": True,
        "BIASED": not is_a,
        "ALIGNED": True,
        "WIDEN": False,
        "BLOCK_N": pack_deltas.SUMMED if name == "accumulate" else tables.TILE,
        "BLOCK_F": pack_deltas.FEATURES,
        "BLOCK_R": rank,
    }
    kernel = getattr(delta, name)
    found = compiled(
        kernel,
        TYPES,
        {key: value for key, value in values.items() if key in kernel.arg_names},
        capability,
    )
    assert TENSOR_CORES[capability] in found.asm["ptx"]
    assert spills(found, tmp_path) == 0


@pytest.mark.parametrize("capability", TENSOR_CORES)
@pytest.mark.parametrize("trains", [True, False], ids=["gradients", "right choices"])
def test_cross_entropy_stays_in_registers(trains: bool, capability: int, tmp_path: Path) -> None:
    from loraloom.lora.kernels import softmax

    types = {"logits_ptr": "*bf16", "targets_ptr": "*i64", "losses_ptr": "*fp32", "right_ptr": "*fp32"}
    values = {"V": 128_256, "TRAINS": trains, "BLOCK": softmax.LOGITS}
    found = compiled(softmax.cross_entropy, types, values, capability, warps=8)
    assert "ld.global.v4" in found.asm["ptx"] or "ld.global.L1::evict_first.v4" in found.asm["ptx"]
    assert spills(found, tmp_path) == 0


@pytest.mark.parametrize("capability", TENSOR_CORES)
def test_the_optimiser_stays_in_registers(capability: int, tmp_path: Path) -> None:
    from loraloom.lora.kernels import adamw

    types = {"addresses_ptr": "*i64", "values_ptr": "*fp32", "copy_ptr": "*bf16"}
    values = {"BETA1": 0.9, "BETA2": 0.999, "EPS": 1e-8, "COPIES": True, "BLOCK": adamw.NUMBERS}
    assert spills(compiled(adamw.adamw, types, values, capability), tmp_path) == 0


@pytest.mark.parametrize("capability", TENSOR_CORES)
@pytest.mark.parametrize("width", [128, 2048, 8192])
@pytest.mark.parametrize("backward", [False, True], ids=["forwards", "backwards"])
def test_norms_stay_in_registers(width: int, backward: bool, capability: int, tmp_path: Path) -> None:
    from loraloom.lora.kernels import base

    types = dict.fromkeys(("x_ptr", "w_ptr", "in_ptr", "out_ptr"), "*bf16") | {
        "eps": "fp32",
        "rows": "i32",
    }
    values = {
        "D": width,
        "ROWS": max(1, base.NUMBERS // width),
        "BLOCK": width,
        "SHIFTED": True,
        "BACKWARD": backward,
    }
    assert (
        spills(
            compiled(base.norm, types, values, capability, warps=4 if width <= base.NUMBERS else 8),
            tmp_path,
        )
        == 0
    )


@pytest.mark.parametrize("capability", TENSOR_CORES)
def test_gates_stay_in_registers(capability: int, tmp_path: Path) -> None:
    from loraloom.lora.kernels import base

    for kernel in (base.gated, base.gated_backward):
        types = {name: "*bf16" for name in kernel.arg_names if name.endswith("_ptr")} | {"count": "i32"}
        assert spills(compiled(kernel, types, {"BLOCK": base.NUMBERS}, capability), tmp_path) == 0
