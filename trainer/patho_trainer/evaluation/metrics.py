"""Scores of predictions (with labels) and of features (without). Tensors in, tensors or numbers out."""

# R runs, N samples, D feature width, C classes

import torch

RANK_ME_EPSILON = 1e-7  # Garrido et al.: for float32 features


def confusion(predictions_RN: torch.Tensor, labels_N: torch.Tensor, classes: int) -> torch.Tensor:
    """Counts (R, C, C): entry [r, i, j] is how often run r took class i for class j. Both inputs hold class indices."""
    runs = predictions_RN.shape[0]
    run_R1 = torch.arange(runs, device=predictions_RN.device)[:, None]
    cell_RN = (run_R1 * classes + labels_N) * classes + predictions_RN
    return torch.bincount(cell_RN.flatten(), minlength=runs * classes**2).view(runs, classes, classes)


def shares(confusion_RCC: torch.Tensor) -> torch.Tensor:
    """Counts as shares of the true class (the row), float64; a class that does not occur has shares of 0."""
    return confusion_RCC.double() / confusion_RCC.sum(dim=2, keepdim=True).clamp_min(1)


def balanced_accuracy(confusion_RCC: torch.Tensor) -> torch.Tensor:
    """Mean recall over the classes (R,), float64; for two classes (sensitivity + specificity) / 2, as in kaiko-eva.

    Every class must occur among the labels.
    """
    return shares(confusion_RCC).diagonal(dim1=1, dim2=2).mean(dim=1)


def rank_me(features_ND: torch.Tensor) -> float:
    """Effective rank of the features, between 1 and min(N, D); higher is better.

    exp(-sum p_k log p_k) with p_k = sigma_k / sum(sigma) + epsilon over the singular values: Garrido et al., "RankMe",
    ICML 2023 (arXiv 2210.02885). Features are not centred.
    """
    sigma_K = torch.linalg.svdvals(features_ND.float()).double()
    p_K = sigma_K / sigma_K.sum().clamp_min(RANK_ME_EPSILON) + RANK_ME_EPSILON
    return float(torch.exp(-(p_K * p_K.log()).sum()))


def od_corr(features_ND: torch.Tensor) -> float:
    """Mean absolute correlation of two different dimensions, between 0 and 1; lower is better.

    The label-free measure of arXiv 2404.15217 (ODCorr), computed as the mean of |corr| off the diagonal of the D x D correlation
    matrix. Dimensions that never vary have no correlation and are left out; fewer than two that vary count as 1: collapsed.
    """
    centred_ND = features_ND.double() - features_ND.double().mean(dim=0)
    norm_D = centred_ND.norm(dim=0)
    varies_D = norm_D > 1e-6 * features_ND.double().norm(dim=0)  # below that, float32 rounding is all that varies
    width = int(varies_D.sum())
    if width < 2:
        return 1.0
    unit_ND = centred_ND[:, varies_D] / norm_D[varies_D]
    total = (unit_ND.T @ unit_ND).abs().sum() - width
    return float(total / (width * (width - 1)))
