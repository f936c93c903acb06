"""Dense features of titles, such as a text's or a poster's embedding, as an addition to the input.

They come with the catalogue, have one width for all, and any scale: so each is centred and scaled
by what pretraining saw of it. A title without features adds nothing, and the map starts at zero: a
model begins as if there were none.

Shape suffixes: T titles, F features, D width of the model.
"""

import torch
from torch import Tensor, nn


class FeatureMap(nn.Module):
    """W (f - mean) / scale.

    Args:
        features: F, > 0.
        dim: D.
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, features))
        self.mean_F: Tensor
        self.scale_F: Tensor
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("scale_F", torch.ones(features))

    @torch.no_grad()
    def fit(self, given_TF: Tensor) -> None:
        """Take mean and scale from these titles; rows of zeros are titles without features."""
        some_TF = given_TF[given_TF.any(1)].double()
        if len(some_TF) > 1:
            spread_F = some_TF.std(0)
            self.mean_F.copy_(some_TF.mean(0))
            # What never differs says nothing, and must not blow up once it does.
            self.scale_F.copy_(torch.where(spread_F > 0, spread_F, some_TF.abs().amax(0) + 1.0))

    def forward(self, given_TF: Tensor) -> Tensor:
        """What to add to the titles' inputs, shape (T, D).

        Args:
            given_TF: float32, zeros for a title without features; F = 0: nobody has any.

        Raises:
            ValueError: another F than that of pretraining.
        """
        width = given_TF.shape[1]
        if not width:
            return given_TF.new_zeros(len(given_TF), len(self.weight))
        if width != len(self.mean_F):
            raise ValueError(
                f"titles have {width} features, the model was trained with {len(self.mean_F)}: "
                "pretrain anew"
            )
        known_T1 = given_TF.any(1).unsqueeze(1)
        out_TD: Tensor = ((given_TF - self.mean_F) / self.scale_F * known_T1) @ self.weight.T
        return out_TD
