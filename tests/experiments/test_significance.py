from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from loramill.experiments.significance import bootstrap_means, bootstrap_p, holm, mcnemar_p


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (9, 3), (10, 10), (60, 95), (500, 420)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_on_very_many_rows_is_close_to_exact() -> None:
    assert mcnemar_p(2600, 2450) == pytest.approx(binomtest(2600, 5050).pvalue, rel=0.02)


def test_a_bootstrap_finds_what_is_there_and_nothing_else() -> None:
    generator = np.random.default_rng(1)
    same = generator.choice([-1.0, 0.0, 1.0], 2000, p=[0.05, 0.9, 0.05])
    better = generator.choice([-1.0, 0.0, 1.0], 2000, p=[0.03, 0.87, 0.10])
    means = bootstrap_means(np.stack([same, better], axis=1))
    assert bootstrap_p(means[:, 0]) > 0.05
    assert bootstrap_p(means[:, 1]) < 0.01
    assert means.mean(axis=0) == pytest.approx([same.mean(), better.mean()], abs=0.002)
    assert means.std(axis=0) == pytest.approx(np.array([same.std(), better.std()]) / np.sqrt(2000), rel=0.1)


def test_a_bootstrap_is_the_same_every_time() -> None:
    differences = np.random.default_rng(0).normal(size=(100, 3))
    assert (bootstrap_means(differences) == bootstrap_means(differences)).all()


def test_under_no_difference_one_test_in_twenty_is_wrong() -> None:
    differences = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], (300, 400), p=[0.1, 0.8, 0.1])
    means = bootstrap_means(differences)
    wrong = sum(bootstrap_p(means[:, pair]) < 0.05 for pair in range(400))
    assert 5 <= wrong <= 36


def test_no_difference_at_all_is_no_evidence() -> None:
    assert bootstrap_p(bootstrap_means(np.zeros((50, 1)))[:, 0]) == 1.0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
