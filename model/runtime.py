"""How the process runs torch: threads, and where and how precisely a model is trained."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16"]


def use_threads(count: int) -> None:
    """Let each call of torch use `count` threads: a worker's lanes share few cores."""
    torch.set_num_threads(count)


def device_of(name: Device, rank: int = 0) -> torch.device:
    """Where to train; trainers that share a machine share its GPUs evenly.

    Args:
        name: `auto`: a GPU where there is one.
        rank: of this trainer.

    Raises:
        ValueError: `cuda`, and torch finds no GPU.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device cuda: torch finds no GPU here; use cpu, or auto")
    if name == "cpu" or not found:
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply in bfloat16; `auto`: where the machine has instructions for it.

    Without them a product of bfloat16 takes a CPU many times as long as one of float32.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """Matrix products in bfloat16, all else in float32; nothing where `bf16` is false."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
