"""KnOTS (arXiv:2410.19735): one basis for all updates, and TIES within it.

    [D_1 ... D_n] = U S [V_1 ... V_n]^T        then  D = U ties(S V_1^T, ..., S V_n^T)

Updates of LoRA share few entries and few signs; in a common basis they can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.combine.ties import elected
from loraloom.adapters.factors import product_svd, truncated


def combined(task: LayerTask) -> tuple[Tensor, Tensor]:
    a_RN = torch.block_diag(*(a for a, _ in task.updates))
    b_OR = torch.cat([b for _, b in task.updates], 1)
    u_OS, values_S, vt_SN = product_svd(a_RN, b_OR)
    parts = (values_S[:, None] * vt_SN).chunk(len(task.updates), 1)
    merged_SD = elected(parts, task.weights, task.density)
    return truncated(merged_SD, u_OS, task.rank)
