"""What a model says of single rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from diffusionkit.tabular.codec import TableCodec


def row_losses(diffusion: nn.Module, codec: TableCodec, df: pd.DataFrame, draws: int) -> np.ndarray:
    """(n,) the training loss of each row, averaged over so many draws of noise by torch's generator.

    Raises:
        UserError: if the frame does not fit the codec.
    """
    table, device = codec.table(df), next(diffusion.parameters()).device
    diffusion.eval()
    total = torch.zeros(len(df))
    with torch.no_grad():
        for part in torch.arange(len(df)).split(4096):
            for _ in range(draws):
                part = part[torch.randperm(len(part))]  # the times of a batch may be spread evenly over its rows
                x = {name: leaf.to(device) for name, leaf in table.states(part, None).items()}
                total[part] += diffusion.loss(x).cpu()
    return (total / draws).numpy()
