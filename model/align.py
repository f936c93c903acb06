"""Turn a retrained model's vectors into the published space, and say how far vectors moved.

A model that is trained anew lands in a space of its own: its dot products mean the same, its axes
do not. The orthogonal matrix R that brings its vectors nearest to the published ones,

    argmin |A R - B|_F  over R'R = I,    R = U V'  where  A'B = U S V',

leaves every dot product between its vectors as it was. Consumers that hold vectors of the old space
go on with those of the new.

Source: P. Schönemann, "A Generalized Solution of the Orthogonal Procrustes Problem", Psychometrika
31(1), 1966.

Shape suffixes: T titles, D width.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.semantic_gnn import SemanticGNN

Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the vectors of the same titles lie apart.

    Attributes:
        titles: those that have a vector on both sides.
        mean_cosine: over them; NaN without any.
        p1_cosine: the first percentile: a hundredth of the titles moved further.
        norm_ratio: mean norm of the new over mean norm of the old.
    """

    titles: int
    mean_cosine: float
    p1_cosine: float
    norm_ratio: float


def drift(new_TD: Float32s, old_TD: Float32s) -> Drift:
    """Compare vectors row by row; a row of zeros is a title without a vector.

    The longer table's further rows are left out: titles that the other does not know.
    """
    new_TD, old_TD, both_T = common(new_TD, old_TD)
    if not both_T.any():
        nan = float("nan")
        return Drift(0, nan, nan, nan)
    new_T, old_T = (np.linalg.norm(one[both_T], axis=1) for one in (new_TD, old_TD))
    cosine_T = (new_TD[both_T] * old_TD[both_T]).sum(1) / (new_T * old_T)
    return Drift(
        int(both_T.sum()),
        float(cosine_T.mean()),
        float(np.percentile(cosine_T, 1)),
        float(new_T.mean() / old_T.mean()),
    )


def procrustes(new_TD: Float32s, published_TD: Float32s) -> npt.NDArray[np.float64]:
    """The orthogonal matrix R, shape (D, D), for which `new_TD @ R` lies nearest to the published.

    Args:
        new_TD, published_TD: by dense id; rows of zeros, and rows that only one side has, do not
            count. Without any common title R is the identity.

    Raises:
        ValueError: the widths differ, or a vector is not finite.
    """
    if new_TD.shape[1] != published_TD.shape[1]:
        raise ValueError(
            f"new vectors have width {new_TD.shape[1]}, published ones {published_TD.shape[1]}: "
            "an orthogonal matrix cannot change it; publish to a new space unaligned"
        )
    for name, one in (("new", new_TD), ("published", published_TD)):
        bad = np.flatnonzero(~np.isfinite(one).all(1))
        if len(bad):
            raise ValueError(f"the {name} vector of title {bad[0]} is not finite: leave it out")
    new_TD, published_TD, both_T = common(new_TD, published_TD)
    product_DD = new_TD[both_T].astype(np.float64).T @ published_TD[both_T]
    if not both_T.any():
        return np.eye(len(product_DD))
    left_DD, _, right_DD = np.linalg.svd(product_DD)
    return np.asarray(left_DD @ right_DD, np.float64)


def align(model: SemanticGNN, rotation_DD: npt.NDArray[np.float64]) -> SemanticGNN:
    """A copy of the model whose vectors are the model's times `rotation_DD`.

    The rotation goes into the output maps, so that refreshes and micro-training go on in it.
    """
    turned = model.clone()
    turn_DD = torch.from_numpy(rotation_DD).to(turned.output.weight.dtype)
    with torch.no_grad():
        turned.output.weight.copy_(turn_DD.T @ model.output.weight)
        turned.output.bias.copy_(model.output.bias @ turn_DD)
        turned.past_layers.weight.copy_(turn_DD.T @ model.past_layers.weight)
        turned.popularity.weight.copy_(turn_DD.T @ model.popularity.weight)
    return turned


def common(a_TD: Float32s, b_TD: Float32s) -> tuple[Float32s, Float32s, Bools]:
    """Both, as long as the shorter, and which titles have a vector in both."""
    titles = min(len(a_TD), len(b_TD))
    a_TD, b_TD = a_TD[:titles], b_TD[:titles]
    return a_TD, b_TD, np.asarray(a_TD.any(1) & b_TD.any(1))
