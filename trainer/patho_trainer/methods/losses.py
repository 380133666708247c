"""Losses of self-supervised training, named as in the papers: tensors in, tensors out.

V student views (the first two are the global crops that the teacher sees too), B samples, M masked tokens, D width, K prototypes,
G loss groups of N samples. Losses are means over the samples; `batch_size` divides by the global batch instead, so that shares of several
processes or micro-batches add up.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

KOLEO_EPSILON = 1e-8  # facebookresearch/dinov2's, in three places


def dino_loss(
    student_logits_VBK: torch.Tensor,
    teacher_logits_2BK: torch.Tensor,
    center_K: torch.Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Cross-entropy between teacher and student over all pairs of different views (arXiv 2104.14294, equation 3), a scalar.

    H(P_t, P_s) = -sum_k P_t log P_s with P_t = softmax((g_t - c) / tau_t), P_s = softmax(g_s / tau_s); mean over 2 (V - 1) pairs.
    No gradient flows into the teacher.
    """
    targets_2BK = teacher_distribution(teacher_logits_2BK, center_K, teacher_temperature)
    return view_loss(student_logits_VBK, targets_2BK, student_temperature=student_temperature, batch_size=batch_size)


def view_loss(
    student_logits_VBK: torch.Tensor, targets_2BK: torch.Tensor, *, student_temperature: float = 0.1, batch_size: int | None = None
) -> torch.Tensor:
    """The same cross-entropy for given teacher distributions, balanced in whichever way, a scalar."""
    views, samples, _ = student_logits_VBK.shape
    log_p_VBK = functional.log_softmax(student_logits_VBK / student_temperature, dim=-1)
    # every view meets both targets, except that a global view does not meet its own
    pairs = (targets_2BK.flip(0) * log_p_VBK[:2]).sum() + (targets_2BK.sum(0) * log_p_VBK[2:]).sum()
    return -pairs / (2 * (views - 1) * (samples if batch_size is None else batch_size))


def ibot_loss(
    student_logits_MK: torch.Tensor,
    targets_MK: torch.Tensor,
    weight_M: torch.Tensor,
    *,
    student_temperature: float = 0.1,
    batch_size: int,
) -> torch.Tensor:
    """Cross-entropy between teacher and student on masked tokens (arXiv 2111.07832, equation 2), a scalar: mean over 2 B global crops.

    `weight_M` is 1 / the number of masked tokens in the token's crop; crops without a mask count as 0.
    """
    log_p_MK = functional.log_softmax(student_logits_MK / student_temperature, dim=-1)
    return -((targets_MK * log_p_MK).sum(-1) * weight_M).sum() / (2 * batch_size)


def koleo_loss(features_GND: torch.Tensor, *, batch_size: int | None = None) -> torch.Tensor:
    """Kozachenko-Leonenko estimate of minus the entropy of normalised features (arXiv 1806.03198), a scalar.

    Mean over the samples of -log of the distance to the nearest neighbour within the loss group; minimising it spreads features.
    """
    x_GND = functional.normalize(features_GND.float(), dim=-1, eps=KOLEO_EPSILON)
    with torch.no_grad():
        cosine_GNN = x_GND @ x_GND.mT
        cosine_GNN.diagonal(dim1=1, dim2=2).fill_(-1)
        nearest_GN = cosine_GNN.argmax(dim=2)
    neighbour_GND = x_GND.gather(1, nearest_GN[..., None].expand_as(x_GND))
    distance_GN = torch.linalg.vector_norm(x_GND - neighbour_GND + KOLEO_EPSILON, dim=-1)
    return -torch.log(distance_GN + KOLEO_EPSILON).sum() / (distance_GN.numel() if batch_size is None else batch_size)


def kde_loss(features_GND: torch.Tensor, *, concentration: float = 5.0, batch_size: int | None = None) -> torch.Tensor:
    """Log density of normalised features under a von Mises-Fisher kernel of themselves (arXiv 2408.00738 in the place of KoLeo), a scalar.

    mean_i log mean_j exp(kappa x_i . x_j) over the pairs of a loss group, i = j included. Minimising it spreads features: the density is
    high where they crowd. Public copies add *minus* this term to what they minimise, which rewards collapse.
    """
    x_GND = functional.normalize(features_GND.float(), dim=-1)
    log_density_GN = torch.logsumexp(concentration * x_GND @ x_GND.mT, dim=2) - math.log(x_GND.shape[1])
    return log_density_GN.sum() / (log_density_GN.numel() if batch_size is None else batch_size)


@torch.no_grad()
def teacher_distribution(teacher_logits_2BK: torch.Tensor, center_K: torch.Tensor, teacher_temperature: float) -> torch.Tensor:
    """Centred and sharpened teacher distributions P_t, the same shape."""
    return functional.softmax((teacher_logits_2BK - center_K) / teacher_temperature, dim=-1)


@torch.no_grad()
def sinkhorn_knopp(
    teacher_logits_MK: torch.Tensor, temperature: float, all_reduce: Callable[[torch.Tensor], object] = lambda _: None, iterations: int = 3
) -> torch.Tensor:
    """Teacher distributions that use every prototype equally often over the batch (arXiv 2006.09882), the same shape.

    `all_reduce` sums a tensor over all processes, which hold rows of one batch; a process may hold none.
    """
    q_MK = torch.exp(teacher_logits_MK.float() / temperature)
    count, total = torch.tensor(float(len(q_MK)), device=q_MK.device), q_MK.sum()
    all_reduce(count)
    all_reduce(total)
    q_MK /= total
    for _ in range(iterations):
        column_K = q_MK.sum(0)
        all_reduce(column_K)
        q_MK /= column_K * q_MK.shape[1]
        q_MK /= q_MK.sum(1, keepdim=True) * count
    return q_MK * count


@torch.no_grad()
def entropy(distribution_K: torch.Tensor) -> torch.Tensor:
    """Entropy in nats over the last dimension; between 0 and log K."""
    return -torch.xlogy(distribution_K, distribution_K).sum(-1)


@torch.no_grad()
def update_center(center_K: torch.Tensor, batch_mean_K: torch.Tensor, momentum: float = 0.9) -> torch.Tensor:
    """The centre for the next step (arXiv 2104.14294, equation 4): c <- m c + (1 - m) mean of the teacher's logits over the batch."""
    return center_K * momentum + batch_mean_K * (1 - momentum)
