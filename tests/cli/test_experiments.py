from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loramill.cli import db, experiments, models
from loramill.errors import ConfigError, ConflictError, NotFoundError
from loramill.experiments.folder import ExperimentFolder
from run_folders import make_run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAMILL_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


@pytest.fixture
def runs(home: Path) -> list[ExperimentFolder]:
    configs = [{"training": {"seed": number}} for number in range(3)]
    folders = [make_run(home / "results", f"run{n}", number=n, config=config) for n, config in enumerate(configs)]
    invoke(experiments, "reindex")
    return folders


def invoke(module: object, *arguments: str) -> Result:
    result = CliRunner().invoke(module.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def read_json(module: object, *arguments: str) -> object:
    return json.loads(invoke(module, *arguments, "--json").stdout)


def listed(*arguments: str) -> list[str]:
    return [item["id"] for item in read_json(experiments, "list", *arguments)["experiments"]]


def test_an_empty_home_says_what_to_do(home: Path) -> None:
    for module in (experiments, models):
        assert "loramill train" in invoke(module, "list").stdout
        assert "loramill train" not in invoke(module, "list", "--tag", "mine").stdout  # nothing has it
    assert read_json(experiments, "list") == {"experiments": [], "next_cursor": None}


def test_a_filter_that_nothing_can_pass_is_wrong_use(home: Path) -> None:
    unknown = CliRunner().invoke(experiments.app, ["list", "--status", "DONE"])
    assert unknown.exit_code == 2
    assert "'SUCCESS'" in unknown.stderr
    with pytest.raises(ConfigError, match="min_accuracy: must be a finite number"):
        CliRunner().invoke(experiments.app, ["list", "--min-accuracy", "nan"], catch_exceptions=False)


def test_list_filters_sorts_and_pages(runs: list[ExperimentFolder]) -> None:
    ids = [folder.id for folder in runs]
    assert listed() == ids[::-1]
    assert listed("--asc", "--sort-by", "train_runtime") == ids
    assert listed("--name", "RUN1") == [ids[1]]
    assert listed("--max-runtime", "1") == [ids[0]]
    assert listed("--min-accuracy", "0.99") == []
    assert listed("--status", "SUCCESS") == ids[::-1]
    assert listed("--status", "FAILURE") == []
    assert listed("--start-date", "2027-01-01") == []
    assert listed("--end-date", "2026-01-01") == ids[::-1]  # with its whole day
    assert listed("--end-date", "2025-12-31") == []
    printed = read_json(experiments, "show", ids[1])["created_at"]
    assert listed("--start-date", printed) == ids[:0:-1]
    assert listed("--end-date", printed) == ids[1::-1]
    assert listed("--start-date", "2026-01-01 12:01") == []
    assert CliRunner().invoke(experiments.app, ["list", "--end-date", "yesterday"]).exit_code == 2
    page = read_json(experiments, "list", "--limit", "2")
    assert listed("--limit", "2", "--cursor", page["next_cursor"]) == [ids[0]]


def test_a_metric_that_no_run_has_sorts_nothing_and_is_named(runs: list[ExperimentFolder]) -> None:
    result = invoke(experiments, "list", "--sort-by", "acuracy", "--json")
    assert [item["id"] for item in json.loads(result.stdout)["experiments"]] == [folder.id for folder in runs[::-1]]
    assert "'acuracy'" in result.stderr
    assert "Did you mean eval_accuracy?" in result.stderr
    assert "metric" not in invoke(experiments, "list", "--sort-by", "eval_loss").stderr
    assert "'acuracy'" in invoke(experiments, "analyze", "--by", "model", "--metric", "acuracy").stderr
    assert "metric" not in invoke(experiments, "analyze", "--by", "model", "--json").stderr


def test_the_table_cuts_nothing_in_a_pipe(runs: list[ExperimentFolder]) -> None:
    table = invoke(experiments, "list", "--sort-by", "eval_f1_macro").stdout
    assert all(folder.id in table for folder in runs)
    assert "distilbert-base-uncased" in table
    assert "eval_f1_macro" in table


def test_show_stats_and_report(runs: list[ExperimentFolder]) -> None:
    shown = read_json(experiments, "show", runs[0].id)
    assert shown["config"]["training"]["seed"] == 0
    assert shown["metrics"]["eval_accuracy"] == 0.9
    assert shown["data"] == {"train": ["v-train"], "eval": ["v-eval"]}
    assert "v-train" in invoke(experiments, "show", runs[0].id).stdout
    assert read_json(experiments, "stats")["by_status"] == {"SUCCESS": 3}
    invoke(experiments, "report", runs[0].id)
    assert runs[0].report_file.is_file()
    with pytest.raises(NotFoundError):
        invoke(experiments, "show", "nothing")


def test_a_run_in_a_folder_of_its_own_is_shown_there(home: Path) -> None:
    folder = make_run(home / "results", config={"training": {"output_dir": "elsewhere"}})
    invoke(experiments, "reindex")
    assert read_json(experiments, "show", folder.id)["folder"] == str(folder.path)
    (home / "elsewhere").mkdir()
    moved = folder.path.rename(home / "elsewhere" / folder.id)
    assert read_json(experiments, "show", folder.id)["folder"] == str(moved)
    assert invoke(experiments, "report", folder.id).stdout.replace("\n", "") == str(moved / "report.html")
    other = make_run(home / "results", number=1)
    assert read_json(experiments, "compare", folder.id, other.id)["ids"] == [folder.id, other.id]


def test_compare_as_table_json_csv_and_page(runs: list[ExperimentFolder], home: Path) -> None:
    ids = [folder.id for folder in runs[:2]]
    csv, html = home / "out" / "a.csv", home / "out" / "a.html"
    compared = json.loads(invoke(experiments, "compare", *ids, "--csv", str(csv), "--html", str(html), "--json").stdout)
    assert compared["parameters"] == {"training.seed": [0, 1]}
    assert compared["verdict"]["winner"] is None
    assert csv.read_text().splitlines()[0] == f"name,{ids[0]},{ids[1]}"
    assert "<svg" in html.read_text()
    assert "No winner" in invoke(experiments, "compare", *ids).stdout


@pytest.mark.parametrize("by", ["model", "dataset", "owner", "metrics"])
def test_analyze(runs: list[ExperimentFolder], home: Path, by: str) -> None:
    lines = read_json(experiments, "analyze", "--by", by, "--html", str(home / "a.html"), "--csv", str(home / "a.csv"))
    assert len((home / "a.csv").read_text().splitlines()) == len(lines) + 1
    assert "<table" in (home / "a.html").read_text()
    assert "0.9" in invoke(experiments, "analyze", "--by", by).stdout


def test_what_people_say_survives_the_database(runs: list[ExperimentFolder], home: Path) -> None:
    first, second, third = (folder.id for folder in runs)
    invoke(experiments, "tag", first, "good", "中文")
    invoke(experiments, "tag", first, "good", "--remove")
    invoke(experiments, "note", second, "try again")
    invoke(experiments, "archive", third)
    invoke(models, "promote", first, "production", "--reason", "best so far")
    invoke(models, "alias", "live", first)
    before = [read_json(experiments, "show", run) for run in (first, second, third)]
    assert (before[0]["tags"], before[1]["notes"], before[2]["archived"]) == (["中文"], "try again", True)
    history = read_json(models, "history", first)
    for file in (home / "results").glob("experiments.db*"):
        file.unlink()
    assert len(read_json(experiments, "reindex")["added"]) == 3
    assert [read_json(experiments, "show", run) for run in (first, second, third)] == before
    assert read_json(models, "history", first) == history
    assert listed("--archived") == [third]
    invoke(experiments, "archive", third, "--undo")
    assert third in listed()


def test_models(runs: list[ExperimentFolder]) -> None:
    first = runs[0].id
    invoke(models, "promote", first, "staging", "--reason", "tests pass")
    invoke(models, "alias", "live", first)
    [model] = read_json(models, "list", "--stage", "staging")
    assert (model["id"], model["stage"], model["aliases"]) == (first, "staging", ["live"])
    assert "tests pass" in invoke(models, "history", first).stdout
    assert "live" in invoke(models, "list").stdout
    invoke(models, "alias", "live")
    invoke(models, "promote", first, "none")
    assert read_json(models, "list", "--stage", "staging") == []
    assert [move["new_value"] for move in read_json(models, "history", first)] == ["staging", "live", None, None]


def test_delete_asks_and_refuses_what_is_in_use(runs: list[ExperimentFolder]) -> None:
    first, second, third = runs
    declined = CliRunner().invoke(experiments.app, ["delete", first.id], input="n\n")
    assert declined.exit_code == 1
    assert first.path.is_dir()
    invoke(experiments, "delete", "--yes", first.id)
    assert not first.path.exists()
    invoke(experiments, "delete", "--yes", "--keep-files", second.id)
    assert second.path.is_dir()
    assert listed() == [third.id]
    invoke(models, "promote", third.id, "production")
    with pytest.raises(ConflictError):
        invoke(experiments, "delete", "--yes", third.id)


def test_database_commands(home: Path) -> None:
    assert "Migration" in invoke(db, "upgrade").stdout
    assert "was there already" in invoke(db, "upgrade").stdout
    file = Path(invoke(db, "backup").stdout.strip())
    assert file.read_bytes().startswith(b"SQLite format 3")
