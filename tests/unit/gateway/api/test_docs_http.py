"""docs/http-api.md, docs/errors.md and docs/metrics.md say everything that there is, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.openapi_document import document
from gateway.api.openapi_invoke import METHODS
from gateway.api.routes import api_routes
from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.cli.given_settings import OTHERS
from gateway.edge.app import build_app
from gateway.http.problems import TYPES, Problem
from gateway.invoke.outcome import KINDS
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from pool.observe.metrics import Metrics
from pool.observe.plain_metrics import PlainCounter, PlainGauge, PlainHistogram
from pool.states import Reason, State
from scheduler.definitions.file import FunctionDefinition

DOCS = Path(__file__).parents[4] / "docs"
HTTP_API, ERRORS, METRICS = ((DOCS / f"{name}.md").read_text() for name in ("http-api", "errors", "metrics"))
FAMILIES = {
    family.name: family for family in text_string_to_metric_families(Metrics().registry.text().decode())
}
"""Every metric; prometheus_client names a counter without its `_total`."""


def rows(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the one table of a document whose first column is called `first`."""
    found: list[list[dict[str, str]]] = []
    columns: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if columns is None:
            columns = cells
            if columns[0] == first:
                found.append([])
        elif columns[0] == first and not set(line) <= set("|-"):
            found[-1].append(dict(zip(columns, (cell.strip("`") for cell in cells), strict=True)))
    assert len(found) == 1, f"{len(found)} tables begin with {first}"
    names = [row[first] for row in found[0]]
    assert len(names) == len(set(names)), f"something is there twice: {names}"
    return found[0]


def names(text: str, first: str) -> set[str]:
    return {row[first] for row in rows(text, first)}


def written_as(text: str, pattern: str) -> set[str]:
    """Everything in a document that looks so."""
    return set(re.findall(pattern, text))


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    """The parts of a gateway, not started."""
    made = Runtime(Settings(), DataFolder(tmp_path / "data"), MemoryEngine(LoopClock()))
    yield made
    await made.close()


# -- http-api.md ----------------------------------------------------------------------------------------------


async def test_exactly_the_routes_are_in_the_table(runtime: Runtime) -> None:
    app = build_app(runtime.api_parts)
    served = {
        f"{method} {route.path}"
        for route in (*api_routes(), *app.routes)
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert served >= {"GET /functions", "GET /docs"}
    served |= {f"GET {app.openapi_url}", "POST /invoke/{function}", "* /invoke/{function}/{path}"}
    assert names(HTTP_API, "route") == served
    assert set(document(app)["paths"]["/invoke/{function}/{path}"]) == set(METHODS)


async def test_every_header_of_an_answer_is_documented(runtime: Runtime) -> None:
    shown = document(build_app(runtime.api_parts))
    answers = shown["paths"]["/invoke/{function}"]["post"]["responses"]
    problems = [shown["components"]["responses"][name] for name in ("CallRefused", "CallFailed")]
    headers = {name for answer in (*answers.values(), *problems) for name in answer.get("headers", ())}
    assert names(HTTP_API, "header") == headers


def test_kinds_of_starts_states_and_kinds_of_functions() -> None:
    assert names(HTTP_API, "`X-Hearth-Start`") == set(KINDS)
    assert names(HTTP_API, "state") == {str(state) for state in State} - {State.GONE.value}
    assert names(HTTP_API, "part of `Server-Timing`") == {"queue", "start", "exec"}


async def test_numbers_and_keys_are_true(runtime: Runtime) -> None:
    assert runtime.pool_floor.logs.per_invocation == 256 * 1024 and "256 KiB" in HTTP_API
    assert runtime.pool_floor.logs.remembered == 10_000 and "10,000" in HTTP_API
    settings = Settings()
    assert f"http://{settings.host}:{settings.port}`" in HTTP_API


@pytest.mark.parametrize("text", [HTTP_API, ERRORS, METRICS], ids=["http-api", "errors", "metrics"])
def test_settings_keys_links_and_routes_in_the_text_exist(text: str) -> None:
    settings = {f"HEARTH_{name.upper()}" for name in Settings.model_fields} | OTHERS
    assert written_as(text, r"HEARTH_[A-Z_]+") <= settings
    keys = written_as(text, r"`((?:queue|max|min|keep)_\w+)`")
    assert keys <= set(FunctionDefinition.model_fields)
    known = {re.sub(r"\{\w+\}", "{}", route.split()[1]) for route in names(HTTP_API, "route")}
    for path in written_as(text, r"`(?:GET|POST|DELETE) (/[^`]*)`"):
        shown = re.sub(r"\{\w+\}", "{}", path)
        assert shown in known or re.fullmatch(r"/invoke/\w+/?", shown), path
    for target in written_as(text, r"\]\(([^)]+)\)"):
        file, _, anchor = target.partition("#")
        linked = DOCS / file if file else None
        assert linked is None or linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text() if linked else text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


# -- errors.md ------------------------------------------------------------------------------------------------


def test_exactly_the_problems_are_in_the_table_with_their_status_and_blame() -> None:
    documented = {row["slug"]: (int(row["status"]), row["blame"]) for row in rows(ERRORS, "slug")}
    assert documented == {slug: (status, blame) for slug, (status, _, blame) in TYPES.items()}
    assert all(row["when"] and row["what to do"] for row in rows(ERRORS, "slug"))


def test_the_example_is_what_the_gateway_sends() -> None:
    match = re.search(r"```json\n(.*?)```", ERRORS, re.DOTALL)
    assert match is not None
    example = json.loads(match[1])
    sent = json.loads(Problem("no-such-function", example["detail"]).body(example["invocation_id"]))
    assert example == sent
    assert names(ERRORS, "key") == set(sent)


# -- metrics.md -----------------------------------------------------------------------------------------------


def test_exactly_the_metrics_are_in_the_table_with_their_type_and_labels() -> None:
    documented = {row["metric"]: (row["type"], row["labels"]) for row in rows(METRICS, "metric")}
    kept = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, PlainCounter | PlainGauge | PlainHistogram):
            name, kind, labels = metric.name, metric.kind, metric.label_names
        elif isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            name, kind = family.name, family.type
            labels = metric._labelnames  # noqa: SLF001  # prometheus_client names labels only with a value
        else:
            continue  # the registry
        kept[name + ("_total" if kind == "counter" else "")] = (kind, "`, `".join(labels))
    assert len(kept) == sum(not name.endswith("_created") for name in FAMILIES)
    assert documented == kept
    assert all(row["meaning"] for row in rows(METRICS, "metric"))


def test_metrics_named_anywhere_exist() -> None:
    known = {name + suffix for name in FAMILIES for suffix in ("", "_total", "_bucket")}
    for text in (HTTP_API, ERRORS, METRICS):
        assert written_as(text, r"\bhearth_[a-z_]+") <= known


def test_labels_in_the_queries_exist() -> None:
    queries = re.findall(r"```promql\n(.*?)```", METRICS, re.DOTALL)
    assert len(queries) >= 3
    labels = {row["metric"].removesuffix("_total"): row["labels"] for row in rows(METRICS, "metric")}
    for query in queries:
        for metric, matchers in re.findall(r"(hearth_\w+)\{([^}]*)\}", query):
            for label in re.findall(r"(\w+)=", matchers):
                assert label in labels[re.sub("_(total|bucket)$", "", metric)]


def test_reasons_and_outcomes() -> None:
    assert names(METRICS, "`reason`") == {str(reason) for reason in Reason}
    assert names(METRICS, "`phase`") == {"queue", "start", "exec"}
    assert {"ok", "function-error", "client-gone", "cancelled"} < names(METRICS, "`outcome`")
