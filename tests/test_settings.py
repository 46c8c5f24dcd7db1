from __future__ import annotations

import re
from pathlib import Path

import pytest

from loramill.errors import ConfigError
from loramill.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_documented_and_has_a_name_of_its_own() -> None:
    aliases = [field.alias for field in Settings.model_fields.values()]
    assert all(field.description for field in Settings.model_fields.values())
    assert len(set(aliases)) == len(aliases)


def test_variables_that_belong_to_the_system_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    untouched = Settings.load()
    for name, field in Settings.model_fields.items():
        if name.upper() != field.alias:
            monkeypatch.setenv(name.upper(), "12345")
    assert Settings.load() == untouched
    assert untouched.home == Path()


def test_the_home_is_a_variable_and_its_dotenv_fills_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".env").write_text("API_PORT=8100\nUI_PORT=8600\nDATABASE_URL=\n")
    monkeypatch.setenv("LORAMILL_HOME", str(home))
    monkeypatch.setenv("UI_PORT", "8700")
    settings = Settings.load()
    assert (settings.home, settings.api_port, settings.ui_port) == (home, 8100, 8700)
    assert settings.database_url is None, "an empty variable means the default"
    assert settings.effective_database_url == f"sqlite:///{home}/results/experiments.db"


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JWT_SECRET", "LORAMILL_AUDIT_KEY", "LORAMILL_ADMIN_PASSWORD", "LORAMILL_NEW_PASSWORD"):
        monkeypatch.setenv(name, "a very secret value")
    assert "a very secret value" not in repr(Settings.load()) + Settings.load().model_dump_json()


def test_every_wrong_variable_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "s3cret")
    monkeypatch.setenv("LORAMILL_ENV", "s3cret")
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    assert [problem.key for problem in caught.value.problems] == ["API_PORT", "LORAMILL_ENV"]
    assert "input should be a valid integer" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999"])
def test_a_port_that_no_machine_has_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would take the rest of a division for it, and listen where nobody looks."""
    monkeypatch.setenv("API_PORT", port)
    with pytest.raises(ConfigError, match="API_PORT: input should be"):
        Settings.load()


def test_a_dotenv_that_is_no_text_has_a_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfeA\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        Settings.load()


def test_the_example_file_names_every_setting_and_changes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / ".env.example"
    names = [line.partition("=")[0] for line in example.read_text().splitlines() if line and not line.startswith("#")]
    known = {str(field.alias) for field in Settings.model_fields.values()}
    compose = (example.parent / "docker-compose.yml").read_text(encoding="utf-8")
    assert set(names) == known | {"COMPOSE_PROFILES", *re.findall(r"(?<!\$)\$\{(\w+)", compose)}
    assert len(set(names)) == len(names)
    untouched = Settings.load()
    (tmp_path / ".env").write_bytes(example.read_bytes())
    assert Settings.load() == untouched
