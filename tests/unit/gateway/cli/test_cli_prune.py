"""`hearth prune` without an engine: what it lists as JSON, and when it refuses to ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.commands.serving import prune
from gateway.cli.leftovers import Leftovers

OWN = Leftovers("3fa85f64-5717-4562-b3fc-2c963f66afa6", containers={"1": "hearth-be5e875eabc7"})
OTHER = Leftovers("7c9e6679-7425-40de-944b-e07fc1f90ae7", networks=["hearth-egress-7c9e6679"])


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Gateways whose leftovers were removed, beside a folder whose gateway has left some."""
    gone: list[str] = []

    async def find(_: object) -> list[Leftovers]:
        return [OWN, OTHER]

    async def remove(_: object, left: Leftovers) -> list[tuple[str, str | None]]:
        gone.append(left.gateway)
        return [(name, None) for _, name in left.named()]

    monkeypatch.setattr(prune, "find", find)
    monkeypatch.setattr(prune, "remove", remove)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hearth").mkdir()
    (tmp_path / ".hearth" / "identity").write_text(f"{OWN.gateway}\n")
    return gone


def run(*options: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["prune", *options], input=stdin)


def test_json_lists_what_would_go_and_removes_nothing(removed: list[str]) -> None:
    own = {"gateway": OWN.gateway, "kind": "container", "name": "hearth-be5e875eabc7"}
    other = {"gateway": OTHER.gateway, "kind": "network", "name": "hearth-egress-7c9e6679"}
    assert json.loads(run("--json").stdout) == [own]
    assert json.loads(run("--json", "--all").stdout) == [own, other]
    assert run("--json", "--yes").exit_code == 2
    assert removed == []


def test_where_nobody_can_answer_it_removes_nothing_and_names_the_option(removed: list[str]) -> None:
    result = run()
    assert result.exit_code == 2 and "add --yes" in result.stderr
    assert removed == []


@pytest.mark.parametrize(
    ("options", "answers", "gone"),
    [
        (("--yes",), "", [OWN]),
        ((), "n\n", []),
        (("--all",), "y\nn\n", [OWN]),
        (("--all", "--yes"), "", [OWN, OTHER]),
    ],
)
def test_it_removes_what_is_agreed_to(
    removed: list[str], options: tuple[str, ...], answers: str, gone: list[Leftovers]
) -> None:
    result = run(*options, stdin=answers)
    assert result.exit_code == 0, result.output
    assert removed == [left.gateway for left in gone]
    assert ("Left alone: 1 object" in result.stdout) == ("--all" not in options)
