"""Losses of self-supervised training, named as in the papers: tensors in, tensors out.

V student views (the first two are the global crops that the teacher sees too), B samples, K prototypes. Losses are means over the
samples; `batch_size` divides by the global batch instead, so that shares of several processes or micro-batches add up.
"""

import torch
from torch.nn import functional


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
    views, samples, _ = student_logits_VBK.shape
    log_p_VBK = functional.log_softmax(student_logits_VBK / student_temperature, dim=-1)
    targets_2BK = teacher_distribution(teacher_logits_2BK, center_K, teacher_temperature)
    # every view meets both targets, except that a global view does not meet its own
    pairs = (targets_2BK.flip(0) * log_p_VBK[:2]).sum() + (targets_2BK.sum(0) * log_p_VBK[2:]).sum()
    return -pairs / (2 * (views - 1) * (samples if batch_size is None else batch_size))


@torch.no_grad()
def teacher_distribution(teacher_logits_2BK: torch.Tensor, center_K: torch.Tensor, teacher_temperature: float) -> torch.Tensor:
    """Centred and sharpened teacher distributions P_t, the same shape."""
    return functional.softmax((teacher_logits_2BK - center_K) / teacher_temperature, dim=-1)


@torch.no_grad()
def entropy(distribution_K: torch.Tensor) -> torch.Tensor:
    """Entropy in nats over the last dimension; between 0 and log K."""
    return -torch.xlogy(distribution_K, distribution_K).sum(-1)


@torch.no_grad()
def update_center(center_K: torch.Tensor, batch_mean_K: torch.Tensor, momentum: float = 0.9) -> torch.Tensor:
    """The centre for the next step (arXiv 2104.14294, equation 4): c <- m c + (1 - m) mean of the teacher's logits over the batch."""
    return center_K * momentum + batch_mean_K * (1 - momentum)
