import pytest
import torch

from patho_trainer.evaluation import metrics


def test_balanced_accuracy_is_the_mean_recall_of_each_run():
    labels_N = torch.tensor([0, 0, 0, 1])
    predictions_RN = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1]])
    confusion_RCC = metrics.confusion(predictions_RN, labels_N, 2)
    assert confusion_RCC.tolist() == [[[3, 0], [1, 0]], [[1, 2], [0, 1]]]
    assert metrics.balanced_accuracy(confusion_RCC).tolist() == pytest.approx([0.5, 2 / 3])


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_me_counts_the_directions_that_features_spread_over(rank: int):
    orthogonal_ND = torch.linalg.qr(torch.randn(64, 8, generator=torch.Generator().manual_seed(0))).Q
    orthogonal_ND[:, rank:] = 0
    assert metrics.rank_me(orthogonal_ND) == pytest.approx(rank, rel=1e-3)


def test_od_corr_is_high_for_copies_of_a_dimension_and_low_for_independent_ones():
    independent_ND = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    copies_ND = independent_ND[:, :1] * torch.tensor([1.0, -2.0, 3.0])
    assert metrics.od_corr(independent_ND) < 0.03
    assert metrics.od_corr(copies_ND) == pytest.approx(1)


def test_od_corr_equals_the_textbook_correlation_matrix():
    features_ND = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)) + 3
    off_diagonal = ~torch.eye(5, dtype=torch.bool)
    expected = torch.corrcoef(features_ND.double().T).abs()[off_diagonal].mean()
    assert metrics.od_corr(features_ND) == pytest.approx(float(expected))


def test_collapsed_features_have_rank_one_and_full_correlation():
    constant_ND = torch.randn(1, 8, generator=torch.Generator().manual_seed(2)).expand(32, 8)
    assert metrics.rank_me(constant_ND) == pytest.approx(1, rel=1e-3)
    assert metrics.od_corr(constant_ND) == 1
