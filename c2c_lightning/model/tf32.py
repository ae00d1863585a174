"""TF32 for float32 matrix products on CUDA."""

import logging
import os

import torch

logger = logging.getLogger(__name__)

VARIABLE = "C2C_TF32"
"""Environment variable: 0 leaves PyTorch's precision as it is."""

_decided: set[str] = set()


def prefer_tf32(device: torch.device) -> None:
    """Let float32 matrix products on CUDA use TF32: the float32 fuser is then two to three times as fast.

    Once per process, when the first fuser comes to a CUDA device, and only if the process has PyTorch's default
    precision (`highest`) until then; a precision that is set later stays. Results on CPUs do not change:
    `torch.set_float32_matmul_precision` would change the precision there too.

    Args:
        device: the fuser's device.
    """
    if device.type != "cuda" or device.type in _decided:
        return
    _decided.add(device.type)
    if os.environ.get(VARIABLE) == "0" or torch.get_float32_matmul_precision() != "highest":
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    logger.info(
        "Float32 matrix products on CUDA use TF32. Set %s=0, or call "
        "`torch.set_float32_matmul_precision('highest')` after loading, for full precision.",
        VARIABLE,
    )
