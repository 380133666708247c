import pytest

from patho_trainer.evaluation import protocols


@pytest.mark.parametrize(
    ("train_samples", "patience"),
    [(268, 1250), (1132, 500), (2175, 278), (3657, 167), (6270, 100), (15303, 42), (100_000, 7), (262_144, 3)],
    ids=["BACH", "BreaKHis", "MHIST", "BRACS", "UniToPatho", "Gleason", "CRC", "PCam"],
)
def test_eva_patience_is_that_of_its_own_configuration_files(train_samples: int, patience: int):
    assert protocols.eva(train_samples).patience_epochs == patience


@pytest.mark.parametrize(
    ("train_samples", "val_samples", "batch_size", "patience"),
    [(268, 132, 256, 400), (2175, 977, 256, 51), (100_000, 7180, 4096, 24), (262_144, 32_768, 4096, 9)],
    ids=["BACH", "MHIST", "CRC", "PCam"],
)
def test_paper_batch_and_patience_are_those_of_eva_in_2024(train_samples: int, val_samples: int, batch_size: int, patience: int):
    recipe = protocols.paper(train_samples, val_samples)
    assert (recipe.batch_size, recipe.patience_epochs) == (batch_size, patience)
    assert recipe.learning_rate == 0.01 * batch_size / 4096


def test_eva_starts_at_a_third_of_the_rate_for_five_epochs():
    recipe = protocols.eva(1000)
    assert [protocols.learning_rate(recipe, 0, epoch) for epoch in (0, 4, 5)] == pytest.approx([1e-4, 1e-4, 3e-4])


def test_paper_ends_its_cosine_at_zero():
    recipe = protocols.paper(5000, 1000, max_steps=100)
    assert [protocols.learning_rate(recipe, step, 0) for step in (0, 50, 100)] == pytest.approx([0.01, 0.005, 0])


def test_max_steps_shortens_patience_in_proportion():
    assert protocols.recipe("Eva", 2175, 977, max_steps=1250).patience_epochs == 28
