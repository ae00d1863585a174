"""Whether two sets of entries can be distinguished: neighbours and a two-sample classifier, one point per sample."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.errors import MissingExtraError

NEIGHBOURS = 5
"""Nearest neighbours of a point that are looked at."""

FOLDS = 5
"""Parts of the cross-validation of the classifier."""


def require_sklearn() -> None:
    """Refuse to begin without scikit-learn.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("this analysis needs scikit-learn: pip install 'c2c-lightning[analysis]'") from error


def neighbour_shares(first: Float[Tensor, "n width"], second: Float[Tensor, "n width"]) -> list[float]:
    """For each pair of points: the share of their nearest neighbours, in both sets, that are of the other set.

    The mean is n / (2 n - 1), about 0.5, for samples of one distribution, and 0 for sets that are far apart.

    Args:
        first: one set.
        second: the other set; the points of a row belong to one sample.

    Returns:
        One number for each row.
    """
    from sklearn.neighbors import NearestNeighbors

    n = len(first)
    points = _points(first, second)
    found = NearestNeighbors(n_neighbors=min(NEIGHBOURS, 2 * n - 1)).fit(points)
    # Without an argument, a point is not its own neighbour.
    indices = found.kneighbors(return_distance=False)
    is_other = (indices >= n) != (np.arange(2 * n) >= n)[:, None]
    shares = is_other.mean(1)
    return [float(share) for share in (shares[:n] + shares[n:]) / 2]


def classifier_accuracies(
    first: Float[Tensor, "n width"], second: Float[Tensor, "n width"], seed: int = 0
) -> list[float]:
    """For each pair of points: the share that a classifier, trained on other samples, assigns to the right set.

    The classifier is a support vector machine with a radial kernel on standardised entries. The mean is 0.5 for sets
    that cannot be distinguished and 1 for sets that always can.

    Args:
        first: one set.
        second: the other set; the points of a row belong to one sample, which is never split.
        seed: of the folds.

    Returns:
        One number for each row.
    """
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    n = len(first)
    labels, groups = np.repeat([0, 1], n), np.tile(np.arange(n), 2)
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    classifier = make_pipeline(StandardScaler(), SVC())
    predicted = cross_val_predict(classifier, _points(first, second), labels, groups=groups, cv=folds)
    is_right = predicted == labels
    return [float(share) for share in (is_right[:n] + is_right[n:].astype(float)) / 2]


def embed(clouds: list[Float[Tensor, "n _"]], perplexity: float, seed: int = 0) -> list[np.ndarray]:
    """t-SNE of several sets of points in one plane, 1,000 iterations as in the paper; (n, 2) for each set.

    Narrower points are padded with zeros to the width of the widest: distances within a set stay as they are, but sets
    of different widths lie apart in the additional dimensions.

    Args:
        clouds: the sets.
        perplexity: effective number of neighbours; below the number of all points.
        seed: of the embedding.
    """
    from sklearn.manifold import TSNE

    width = max(cloud.shape[1] for cloud in clouds)
    arrays = [cloud.float().cpu().numpy() for cloud in clouds]
    padded = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
    plane = TSNE(perplexity=perplexity, max_iter=1000, init="pca", random_state=seed).fit_transform(
        np.concatenate(padded)
    )
    return list(np.split(plane, np.cumsum([len(array) for array in arrays])[:-1]))


def _points(first: Tensor, second: Tensor) -> np.ndarray:
    return np.concatenate([first.float().cpu().numpy(), second.float().cpu().numpy()])
