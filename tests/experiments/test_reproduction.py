from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from loramill.config.schema import ValidationRules
from loramill.errors import NotFoundError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.reproduction import WEIGHTS_FILE, config_to_repeat, hold_against


def with_weights(folder: ExperimentFolder, **weights: np.ndarray) -> ExperimentFolder:
    folder.final_model.mkdir(exist_ok=True)
    save_file(weights, folder.final_model / WEIGHTS_FILE)
    return folder


def test_equal_runs(make_run) -> None:
    first = with_weights(make_run(), a=np.arange(6.0))
    second = with_weights(make_run(), a=np.arange(6.0))
    found = hold_against(first, second)
    assert (found.equal, found.difference, found.metrics, found.environment) == (True, 0.0, {}, {})
    assert found.same_data
    json.dumps(found.as_dict())


def test_the_difference_and_what_may_explain_it(make_run) -> None:
    first = with_weights(make_run(), a=np.zeros(3), b=np.ones(2))
    second = with_weights(
        make_run("other", np.arange(200) % 4 != 0, eval_version="v2"), a=np.zeros(3), b=np.ones(2) + 1e-3
    )
    second.write_environment({**first.read_environment(), "packages": {"torch": "3"}})
    found = hold_against(first, second)
    assert not found.equal
    assert found.difference == pytest.approx(1e-3)
    assert found.metrics["eval_accuracy"] == (0.9, 0.75)
    assert found.environment == {"packages.torch": ("2", "3")}
    assert not found.same_data


def test_other_shapes_have_no_difference(make_run) -> None:
    found = hold_against(with_weights(make_run(), a=np.zeros(3)), with_weights(make_run(), a=np.zeros(4)))
    assert (found.equal, found.difference) == (False, None)


def test_the_stored_rows_are_trained_on_again(make_run) -> None:
    rules = {"remove_html": True, "min_text_length": 3}
    data = {"train_samples": 10, "text_column": "a", "on_findings": "clean", "validation_rules": rules}
    config = config_to_repeat(make_run(config={"data": {"dataset_name": "reviews.csv", **data}}))
    assert config.data.text_column is None  # stored rows have names of their own
    assert config.data.dataset_name == "version:v-train+v-eval"
    assert config.data.train_samples is None
    assert config.data.on_findings == "warn"  # they were cleaned before they were stored
    assert config.data.validation_rules == ValidationRules(min_text_length=3, remove_html=False)
    assert config.training.seed == 42


def test_what_cannot_be_repeated(make_run) -> None:
    unfinished = make_run()
    with pytest.raises(NotFoundError, match="finished model"):
        hold_against(unfinished, unfinished)
    unfinished.data_file.unlink()
    with pytest.raises(NotFoundError, match="data versions"):
        config_to_repeat(unfinished)
