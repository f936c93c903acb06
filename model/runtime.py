"""How the process runs torch."""

import torch


def use_threads(count: int) -> None:
    """Let each call of torch use `count` threads: a worker's lanes share few cores."""
    torch.set_num_threads(count)
