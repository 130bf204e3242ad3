"""Which variables a trigger of the API's may name, and how the setting says it."""

from __future__ import annotations

import pytest

from gateway.cli.given_settings import SettingsFault, default_of, settings_from, unknown_variables
from scheduler.triggers.secret_names import SecretNames


@pytest.mark.parametrize(
    ("entries", "name", "allowed"),
    [
        (("HEARTH_SECRET_*",), "HEARTH_SECRET_GITHUB", True),
        (("HEARTH_SECRET_*",), "HEARTH_SECRET_", True),
        (("HEARTH_SECRET_*",), "HEARTH_SECRET", False),
        (("HEARTH_SECRET_*",), "HEARTH_ALLOWED_SECRETS", False),
        (("HEARTH_SECRET_*",), "XHEARTH_SECRET_A", False),
        (("HEARTH_SECRET_*",), "hearth_secret_a", False),
        (("GITHUB", "HOOK_*"), "GITHUB", True),
        (("GITHUB", "HOOK_*"), "GITHUB_SECRET", False),
        (("GITHUB", "HOOK_*"), "HOOK_A", True),
        (("*",), "PATH", True),
        ((), "HEARTH_SECRET_A", False),
    ],
)
def test_a_name_is_allowed_whole_or_by_its_beginning(
    entries: tuple[str, ...], name: str, allowed: bool
) -> None:
    names = SecretNames(entries)
    assert names.allow(name) is allowed
    if allowed:
        names.check(name)
    else:
        with pytest.raises(ValueError, match=f"{name} is not among the variables"):
            names.check(name)


@pytest.mark.parametrize("entry", ["", "A B", "*_SECRET", "A**", "A-B", "1A"])
def test_what_is_no_name_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="write the name of a variable"):
        SecretNames((entry,))


def test_the_setting_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_from({}).allowed_secrets == ["HEARTH_SECRET_*"]
    assert default_of("allowed_secrets") == "HEARTH_SECRET_*"
    monkeypatch.setenv("HEARTH_ALLOWED_SECRETS", "GITHUB_SECRET, HOOK_*")
    assert settings_from({}).allowed_secrets == ["GITHUB_SECRET", "HOOK_*"]
    monkeypatch.setenv("HEARTH_ALLOWED_SECRETS", "A B")
    with pytest.raises(SettingsFault, match="HEARTH_ALLOWED_SECRETS: 'A B' is not valid"):
        settings_from({})


def test_a_secret_is_not_taken_for_a_misspelt_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARTH_SECRET_GITHUB", "HEARTH_SECRETS"):
        monkeypatch.setenv(name, "x")
    assert [line.split()[0] for line in unknown_variables()] == ["HEARTH_SECRETS"]
