"""``loramill sweep``: many trials as one command, each of them an experiment of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select
from typer.testing import CliRunner

from loramill.cli.sweep import app as sweep_app
from loramill.cli.train import app as train_app
from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.engine.base import FrozenBase
from loramill.errors import DatasetNotFoundError, DiskFullError, LoramillError, ModelNotFoundError, TrainingError
from loramill.experiments.deletion import delete_experiment
from loramill.experiments.models import Experiment, Status
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.store import ExperimentStore
from loramill.jobs.sweep import Sweep, trial_config
from loramill.settings import Settings
from loramill.training import stages
from small_models import save_small_model
from small_runs import small_config, write_rows

RATES = "training.learning_rate=1e-5,1e-2"


@pytest.fixture
def config_file(home: Path) -> Path:
    """A config that a small random model learns from in a second."""
    config = small_config(
        save_small_model("bert", home / "model"), write_rows(home / "rows"), training__num_train_epochs=3
    )
    file = home / "small.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    return file


def call(app: Any, *arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def folder_of(found: dict[str, Any]) -> Path:
    return Sweep.load(Settings.load(), found["sweep_id"]).folder(Settings.load())


def adapter_of(trial: dict[str, Any]) -> bytes:
    return (Path(trial["folder"]) / "artifacts" / "final_model" / "adapter_model.safetensors").read_bytes()


def test_a_grid_trains_every_trial_and_names_the_best(config_file: Path, home_database: Database) -> None:
    found = call(sweep_app, config_file, "--grid", "lora.r=2,4", "--grid", RATES, "--json")

    assert len(found["trials"]) == 4
    assert [trial["status"] for trial in found["trials"]] == ["SUCCESS"] * 4
    settings = {
        (trial["config"]["lora"]["r"], trial["config"]["training"]["learning_rate"]) for trial in found["trials"]
    }
    assert settings == {(2, 1e-5), (2, 1e-2), (4, 1e-5), (4, 1e-2)}
    accuracies = {trial["experiment_id"]: trial["metrics"]["eval"]["accuracy"] for trial in found["trials"]}
    assert accuracies[found["best"]] == max(accuracies.values()) > min(accuracies.values())
    with home_database.reading() as session:
        rows = [ExperimentStore(session).get(name) for name in accuracies]
        assert {(row.status, row.sweep_id) for row in rows} == {("SUCCESS", found["sweep_id"])}
        assert [row.id for row in rows if row.stage == "staging"] == [found["best"]]
        (move,) = ModelRegistry(session).history(found["best"])
        assert move.reason == f"best accuracy of 4 trials of sweep {found['sweep_id']}"
    page = (folder_of(found) / "report.html").read_text(encoding="utf-8")
    assert "What the trials tried" in page
    assert "Learning curves" in page
    assert all(name in page for name in accuracies)
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_each_adapter_is_the_one_that_a_run_alone_gives(config_file: Path) -> None:
    swept = call(sweep_app, config_file, "--grid", "training.seed=1,2", "--json")
    for trial in swept["trials"]:
        alone = call(train_app, config_file, "--seed", trial["config"]["training"]["seed"], "--json")
        assert adapter_of(alone) == adapter_of(trial)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the reader's own
def test_every_trial_reports_to_the_trackers(config_file: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = call(sweep_app, config_file, "--grid", RATES, "--set", "training.report_to=tensorboard", "--json")
    for trial in found["trials"]:
        seen = EventAccumulator(str(Path(trial["folder"]) / "tensorboard")).Reload()
        [*_, last] = seen.Scalars("eval/accuracy")
        assert last.value == pytest.approx(trial["metrics"]["eval"]["accuracy"])


def test_halving_stops_the_worse_trials_early(config_file: Path) -> None:
    rates = "training.learning_rate=1e-6,1e-5,1e-4,1e-2"
    found = call(sweep_app, config_file, "--grid", rates, "--halving", "--keep", 4, "--rungs", 1, "--json")
    states = {trial["config"]["training"]["learning_rate"]: trial["status"] for trial in found["trials"]}
    assert sorted(states.values()) == ["PRUNED", "PRUNED", "PRUNED", "SUCCESS"]
    steps = {trial["status"]: trial["metrics"]["train"]["steps"] for trial in found["trials"]}
    assert steps["PRUNED"] < steps["SUCCESS"]


def test_a_trial_that_diverges_fails_alone(config_file: Path, home_database: Database) -> None:
    found = call(
        sweep_app, config_file, "--grid", "lora.lora_alpha=16,1e38", "--set", "training.max_grad_norm=0", "--json"
    )
    failed, finished = sorted(found["trials"], key=lambda trial: trial["status"])
    assert (failed["status"], finished["status"]) == ("FAILURE", "SUCCESS")
    assert found["best"] == finished["experiment_id"]
    with home_database.reading() as session:
        assert ExperimentStore(session).get(failed["experiment_id"]).error_code == "loss_not_finite"


def test_a_trial_that_cannot_be_trained_fails_alone(config_file: Path, home: Path, home_database: Database) -> None:
    """Another base is a group of its own, other rows are not; neither costs the trials that come after."""
    tried = {"model.name": (home / "missing", home / "model"), "data.dataset_name": (home / "none.csv", home / "rows")}
    grid = [part for key, values in tried.items() for part in ("--grid", f"{key}={','.join(map(str, values))}")]
    result = CliRunner().invoke(sweep_app, [str(config_file), *grid, "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert (result.exit_code, [trial["status"] for trial in found["trials"]]) == (0, ["FAILURE"] * 3 + ["SUCCESS"])
    failed, best = [trial["experiment_id"] for trial in found["trials"][:3]], found["trials"][3]["experiment_id"]
    assert found["best"] == best
    assert all(f"{name} cannot be trained: There is no" in result.stderr for name in failed)
    with home_database.reading() as session:
        codes = [ExperimentStore(session).get(name).error_code for name in failed]
    assert codes == ["model_not_found", "model_not_found", "dataset_not_found"]


@pytest.mark.parametrize(
    ("key", "error"), [("model.name", ModelNotFoundError), ("data.dataset_name", DatasetNotFoundError)]
)
def test_where_no_trial_can_be_trained_the_sweep_says_why(
    key: str, error: type[LoramillError], config_file: Path, home: Path
) -> None:
    result = CliRunner().invoke(sweep_app, [str(config_file), "--grid", f"{key}={home / 'a'},{home / 'b'}"])
    assert isinstance(result.exception, error)


def test_trials_that_ended_before_an_error_keep_their_success(
    config_file: Path, home: Path, home_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = stages.load_frozen_base

    def second_base_finds_the_disk_full(context: Any, dtype: Any) -> FrozenBase:
        if context.config.model.name.endswith("other"):
            raise DiskFullError("No space is left.")
        return load(context, dtype)

    monkeypatch.setattr(stages, "load_frozen_base", second_base_finds_the_disk_full)
    models = f"model.name={home / 'model'},{save_small_model('bert', home / 'other')}"
    result = CliRunner().invoke(sweep_app, [str(config_file), "--grid", models, "--json"])
    assert isinstance(result.exception, DiskFullError)
    (sweep_id,) = (folder.name for folder in (home / "results" / "sweeps").iterdir())
    printed = json.loads(result.stdout)
    assert (printed["sweep_id"], printed["error"]["code"]) == (sweep_id, "disk_full")
    assert f"loramill sweep --resume {sweep_id}" in result.stderr
    sweep = Sweep.load(Settings.load(), sweep_id)
    with home_database.reading() as session:
        rows = [ExperimentStore(session).get(trial.experiment_id) for trial in sweep.trials]
        assert [(row.status, row.error_code) for row in rows] == [("SUCCESS", None), ("FAILURE", "disk_full")]
    assert [trial.status for trial in sweep.trials] == ["SUCCESS", "PENDING"]  # what a resumed sweep still owes


def test_a_sweep_of_which_every_trial_failed_has_failed(config_file: Path) -> None:
    diverging = ["--grid", "lora.lora_alpha=1e38,2e38", "--set", "training.max_grad_norm=0"]
    result = CliRunner().invoke(sweep_app, [str(config_file), *diverging, "--json"])
    assert isinstance(result.exception, TrainingError)
    assert "2 FAILURE" in str(result.exception)
    assert [trial["status"] for trial in json.loads(result.stdout)["trials"]] == ["FAILURE", "FAILURE"]


def test_a_sweep_that_its_time_limit_ended_goes_on_when_resumed(config_file: Path) -> None:
    two_steps = ["--set", "training.num_train_epochs=1", "--set", "training.per_device_train_batch_size=64"]
    arguments = [str(config_file), "--grid", RATES, *two_steps, "--set", "training.max_seconds=1e-9", "--json"]
    result = CliRunner().invoke(sweep_app, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert (result.exit_code, [trial["status"] for trial in found["trials"]]) == (0, ["REVOKED", "REVOKED"])
    assert f"Stopped (time_limit). Go on with: loramill sweep --resume {found['sweep_id']}" in result.stderr
    again = call(sweep_app, "--resume", found["sweep_id"], "--json")
    assert [trial["status"] for trial in again["trials"]] == ["SUCCESS", "SUCCESS"]


def test_fewer_trials_than_asked_are_all_there_are(config_file: Path) -> None:
    arguments = [str(config_file), "--grid", "lora.r=2..3", "--trials", "16", "--json"]
    result = CliRunner().invoke(sweep_app, arguments, catch_exceptions=False)
    assert "There are only 2 different trials; 16 were asked for." in result.stderr
    assert sorted(trial["config"]["lora"]["r"] for trial in json.loads(result.stdout)["trials"]) == [2, 3]


def test_a_second_ctrl_c_ends_the_record_of_every_trial(
    config_file: Path, home_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loramill.sweeps.run.run_sweep", interrupted)
    CliRunner().invoke(sweep_app, [str(config_file), "--grid", RATES])
    with home_database.reading() as session:
        assert set(session.scalars(select(Experiment.status))) == {Status.REVOKED}


@pytest.mark.parametrize(("name", "kept"), [("n" * 100, "n" * 96), ("名" * 66, "名" * 65)])
def test_the_names_of_trials_fit(name: str, kept: str) -> None:
    config = trial_config(ExperimentConfig(experiment_name=name), {"lora.r": 4}, 3)
    assert (config.lora.r, config.experiment_name) == (4, f"{kept}_t03")


def test_tpe_draws_from_the_ranges(config_file: Path) -> None:
    rates = "training.learning_rate=1e-4..1e-2"
    found = call(sweep_app, config_file, "--grid", rates, "--sampler", "tpe", "--trials", 4, "--batch", 2, "--json")
    drawn = [trial["config"]["training"]["learning_rate"] for trial in found["trials"]]
    assert len(set(drawn)) == 4
    assert all(1e-4 <= rate <= 1e-2 for rate in drawn)


def test_an_interrupted_sweep_goes_on_with_what_it_owes(config_file: Path) -> None:
    whole = call(sweep_app, config_file, "--grid", RATES, "--json")
    settings = Settings.load()
    sweep = Sweep.load(settings, whole["sweep_id"])
    sweep.trials[1].status = "REVOKED"  # as a stopped sweep leaves it
    sweep.save(settings)

    again = call(sweep_app, "--resume", whole["sweep_id"], "--json")

    assert [trial["status"] for trial in again["trials"]] == ["SUCCESS", "SUCCESS"]
    assert [adapter_of(trial) for trial in again["trials"]] == [adapter_of(trial) for trial in whole["trials"]]


@pytest.mark.parametrize("deleted", [0, 1], ids=["a finished trial", "an owed trial"])
@pytest.mark.parametrize("files", [True, False], ids=["with its files", "the row alone"])
def test_a_sweep_goes_on_without_a_trial_that_was_deleted(
    files: bool, deleted: int, config_file: Path, home_database: Database
) -> None:
    whole = call(sweep_app, config_file, "--grid", RATES, "--json")
    settings = Settings.load()
    sweep = Sweep.load(settings, whole["sweep_id"])
    sweep.trials[1].status = "REVOKED"
    sweep.save(settings)
    gone, left = (sweep.trials[place].experiment_id for place in (deleted, 1 - deleted))
    delete_experiment(home_database, settings.results_folder, gone, files=files)

    again = call(sweep_app, "--resume", whole["sweep_id"], "--json")

    assert (again["best"], [trial["experiment_id"] for trial in again["trials"]]) == (left, [left])
    assert {trial.status for trial in Sweep.load(settings, whole["sweep_id"]).trials} == {"SUCCESS", "DELETED"}
    with home_database.reading() as session:
        assert ExperimentStore(session).get(left).stage == "staging"


def test_values_that_no_config_allows_are_refused_before_anything_is_recorded(config_file: Path, home: Path) -> None:
    result = CliRunner().invoke(sweep_app, [str(config_file), "--grid", "lora.r=4,0", "--json"])
    assert result.exit_code != 0
    assert "lora.r" in str(result.exception)
    assert not list((home / "results").glob("small*"))
