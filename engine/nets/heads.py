"""Small nets that stand on an upstream."""

import torch
from torch import Tensor, nn


class MeanPoolHead(nn.Module):
    """Linear map, mean over valid frames, linear map: SUPERB's head for labels of whole clips (Yang et al. 2021)."""

    def __init__(self, dim: int, classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (batch, frames, dim) -> (batch, classes)."""
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        mean = (self.project(x) * valid[..., None]).sum(1) / lengths[:, None]
        scores: Tensor = self.classify(mean)
        return scores
