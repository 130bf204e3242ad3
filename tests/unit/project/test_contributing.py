"""The pages for contributors: what they name exists, and GitHub understands its forms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"[\w.-]+/(?:[\w.-]+/)*(?:[\w-]+\.\w+)?|[\w-]+\.(?:md|yaml|toml)")
"""A path with a folder, or a file of the root by its ending."""
CHANGES = ("a new key of functions.yaml", "a new problem", "a new metric", "a new contract", "a new command")
"""Changes that the table must have."""


def paths_in(text: str) -> list[str]:
    """Paths of the checkout that a page names: between backticks, in links, and in commands."""
    patterns = (r"`([^`\n]+)`", r"\]\(([^)#]+)", r" (tests/\S+)")
    spans = (span.rstrip('"') for pattern in patterns for span in re.findall(pattern, text))
    return [span for span in spans if PATH.fullmatch(span) and span != "functions.yaml"]


def rows() -> dict[str, tuple[str, str]]:
    """The table "Where do I change …": change to the cells with its code and its page."""
    _, _, rest = CONTRIBUTING.partition("## Where do I change …\n")
    table = rest.partition("\n## ")[0]
    found = re.findall(r"^\| (a new [^|]+?) \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    return {change: (code, page) for change, code, page in found}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    named = paths_in((ROOT / page).read_text())
    assert named or page.startswith("CODE")
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_table_has_every_change_with_at_most_three_files_and_its_page() -> None:
    assert set(CHANGES) <= set(rows())
    for change, (code, page) in rows().items():
        places = code.split(" · ")
        assert 1 < len(places) <= 3, change
        assert paths_in(code), change
        assert len(paths_in(page)) == 1, change


@pytest.mark.parametrize("form", ["bug", "idea"])
def test_an_issue_form_has_what_github_asks_for(form: str) -> None:
    content = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())
    assert {"name", "description", "body"} <= set(content)
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids) and all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_hooks_before_a_commit_need_no_network() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert 'license = "Apache-2.0"\nlicense-files = ["LICENSE"]\n' in (ROOT / "pyproject.toml").read_text()
    text = (ROOT / "LICENSE").read_text()
    assert (
        text.split()[:4] == ["Apache", "License", "Version", "2.0,"] and "END OF TERMS AND CONDITIONS" in text
    )
