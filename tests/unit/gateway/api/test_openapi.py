"""The OpenAPI document is valid, complete and true, and whatever the gateway refuses is a problem."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes, right_for
from gateway.api.openapi import EXAMPLE_DETAILS
from gateway.api.openapi_document import document
from gateway.api.openapi_invoke import METHODS
from gateway.api.routes import api_routes
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import build_edge
from gateway.assembly.settings import Settings
from gateway.edge.app import build_app
from gateway.http.problems import TYPES
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.function_schema import FunctionSchema
from scheduler.deploy.declared import Declared

NOT_A_PROBLEM = {("/readyz", "503")}
"""Errors whose body is no problem: a probe's answer says what it waits for."""


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    """The parts of a gateway, not started, with an empty functions.yaml."""
    made = Runtime(Settings(), DataFolder(tmp_path / "data"), MemoryEngine(LoopClock()))
    made.scheduler_floor.registry.loaded = True
    yield made
    await made.close()


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_edge(runtime), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as made:
        yield made


def declare(runtime: Runtime) -> None:
    """One function of each kind, the HTTP one in trouble."""
    for definition, state in (
        (FunctionDefinition(name="hello", runtime="python", source="x", handler="a:b"), "ready"),
        (FunctionDefinition(name="api", image="api", port=8000), "failed"),
        (FunctionDefinition(name="count", image="busybox"), "building"),
    ):
        runtime.scheduler_floor.registry.declared[definition.name] = Declared(definition, state=state)


@pytest.fixture(params=["without functions", "with functions"])
async def shown(
    request: pytest.FixtureRequest, runtime: Runtime, client: httpx.AsyncClient
) -> dict[str, Any]:
    """The document as it is served."""
    if request.param == "with functions":
        declare(runtime)
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json())


def operations(shown: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation, with the responses that it refers to in their places."""
    for path, methods in shown["paths"].items():
        for method, operation in methods.items():
            yield path, method, {**operation, "responses": responses_of(operation, shown)}


def responses_of(operation: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """The responses of an operation by status."""
    shared = shown["components"]["responses"]
    return {
        status: shared[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
        for status, response in operation["responses"].items()
    }


def test_the_document_is_valid(shown: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(shown).validate()


def test_every_route_is_in_it_once_and_explained(shown: dict[str, Any], runtime: Runtime) -> None:
    routes = {
        (route.path, method.lower())
        for route in (*api_routes(), *build_app(runtime.api_parts).routes)
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }
    invoke = {("/invoke/{function}", "post"), *(("/invoke/{function}/{path}", m) for m in METHODS)}
    assert routes, "no route was found to compare with"
    assert {(path, method) for path, method, _ in operations(shown)} == routes | invoke
    ids = [operation["operationId"] for _, _, operation in operations(shown)]
    assert len(ids) == len(set(ids))
    assert all(i.isidentifier() and i == i.lower() for i in ids)
    tags = [tag["name"] for tag in shown["tags"]]
    assert tags == [
        "invoke",
        "calls",
        "async",
        "workflows",
        "jobs",
        "triggers",
        "functions",
        "pool",
        "logs",
        "health",
    ]
    for _, _, operation in operations(shown):
        assert operation["summary"] and operation["description"]
        assert len(operation["tags"]) == 1 and operation["tags"][0] in tags
        assert all(parameter["description"] for parameter in operation.get("parameters", []))


def test_paths_are_in_the_order_of_their_tags(shown: dict[str, Any]) -> None:
    met = list(dict.fromkeys(operation["tags"][0] for _, _, operation in operations(shown)))
    assert met == [tag["name"] for tag in shown["tags"]]


def test_every_error_is_a_problem_with_examples_that_fit_its_schema(shown: dict[str, Any]) -> None:
    schema = shown["components"]["schemas"]["Problem"]
    for path, _, operation in operations(shown):
        errors = {status: r for status, r in operation["responses"].items() if status >= "400"}
        assert {"4XX", "5XX"} == set(errors) if path.startswith("/invoke/") else {"403", "500"} <= set(errors)
        for status, response in errors.items():
            if (path, status) in NOT_A_PROBLEM:
                continue
            assert list(response["content"]) == ["application/problem+json"]
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["examples"]
            for slug, example in content["examples"].items():
                jsonschema.validate(example["value"], schema)
                assert example["value"]["type"] == f"urn:hearth:problem:{slug}"
                assert str(example["value"]["status"]) == status.replace(
                    "XX", str(example["value"]["status"])[1:]
                )
                assert slug in response["description"]


def test_invoke_documents_every_problem_but_the_other_routes_own(shown: dict[str, Any]) -> None:
    slugs: set[str] = set()
    for path, _, operation in operations(shown):
        if path.startswith("/invoke/"):
            for response in operation["responses"].values():
                slugs |= set(
                    response.get("content", {}).get("application/problem+json", {}).get("examples", ())
                )
    assert slugs == set(TYPES) - {
        "not-found",
        "ambiguous-id",
        "conflict",
        "invalid-input",
        "read-timeout",
        "head-timeout",
        "head-too-large",
    }


def test_each_problem_has_an_example_and_no_other() -> None:
    assert set(EXAMPLE_DETAILS) == set(TYPES)


def test_answers_that_ask_for_patience_have_retry_after(shown: dict[str, Any]) -> None:
    for path, _, operation in operations(shown):
        for status in ("429", "503", "4XX", "5XX"):
            if status in operation["responses"] and (path, status) not in NOT_A_PROBLEM:
                assert "Retry-After" in operation["responses"][status]["headers"]


def test_nothing_of_fastapis_default_422_is_left(shown: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(shown)
    for _, _, operation in operations(shown):
        for status in ("422", "4XX"):
            if status in operation["responses"]:
                assert set(operation["responses"][status]["content"]) == {"application/problem+json"}


async def test_a_route_that_takes_a_number_documents_and_answers_422_as_a_problem(runtime: Runtime) -> None:
    app = build_app(runtime.api_parts)

    @app.get("/numbers/{number}", tags=["pool"])
    async def number(number: int) -> int:
        return number

    shown = document(app)
    OpenAPIV31SpecValidator(shown).validate()
    content = responses_of(shown["paths"]["/numbers/{number}"]["get"], shown)["422"]["content"]
    assert set(content) == {"application/problem+json"}
    assert "ValidationError" not in json.dumps(shown)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        check_problem(await client.get("/numbers/one"), "invalid-input")
        assert (await client.get("/numbers/1")).json() == 1


@pytest.mark.parametrize("keys", [False, True])
async def test_each_route_says_which_scope_its_key_needs(tmp_path: Path, keys: bool) -> None:
    text, key = create("me", parse_scopes(["read", "invoke:hello"]), UNLIMITED, None, 0.0)
    settings = Settings(api_keys=[key] if keys else [])
    runtime = Runtime(settings, DataFolder(tmp_path / "keyed"), MemoryEngine(LoopClock()))
    declare(runtime)
    transport = httpx.ASGITransport(build_edge(runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        shown = (await client.get("/openapi.json")).json()
        seen = (await client.get("/openapi.json", headers={"authorization": f"Bearer {text}"})).json()
        probes = [(await client.get(path)).status_code for path in ("/healthz", "/functions", "/metrics")]
    await runtime.close()
    assert probes == ([200, 401, 401] if keys else [200, 200, 200])
    OpenAPIV31SpecValidator(shown).validate()
    assert shown["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, method, operation in operations(shown):
        scope = "invoke" if path.startswith("/invoke/") else right_for(method.upper(), path)
        if scope is None:
            assert operation["security"] == []
            assert ("401" in operation["responses"]) == path.startswith("/hooks/"), "a signature is no key"
            continue
        assert operation["security"] == ([{"key": [scope]}] if keys else [{}, {"key": [scope]}])
        assert f"Scope: `{scope}" in operation["description"]
        refused = ("4XX",) if path.startswith("/invoke/") else ("401", "403", "429")
        assert set(refused) <= set(operation["responses"])
        assert "WWW-Authenticate" in operation["responses"][refused[0]]["headers"]
    function = shown["paths"]["/invoke/{function}"]["post"]["parameters"][0]["schema"]
    assert function.get("enum") == (None if keys else ["api", "count", "hello"])
    assert seen["paths"]["/invoke/{function}"]["post"]["parameters"][0]["schema"]["enum"] == [
        "api",
        "count",
        "hello",
    ]


async def test_functions_are_a_choice_by_name(runtime: Runtime, client: httpx.AsyncClient) -> None:
    def choice(shown: dict[str, Any], path: str) -> Any:
        return shown["paths"][path]["post"]["parameters"][0]["schema"]

    empty = (await client.get("/openapi.json")).json()
    assert (
        choice(empty, "/invoke/{function}")
        == choice(empty, "/invoke/{function}/{path}")
        == {"type": "string"}
    )
    assert "/invoke/hello" not in empty["paths"]
    declare(runtime)
    full = (await client.get("/openapi.json")).json()
    assert choice(full, "/invoke/{function}")["enum"] == ["api", "count", "hello"]
    assert choice(full, "/invoke/{function}/{path}")["enum"] == ["api"]
    said = full["paths"]["/invoke/{function}"]["post"]["parameters"][0]["description"]
    assert said == "Name of the function. Not in service: `api` (failed), `count` (building)"
    assert choice(full, "/invoke/{function}")["default"] == "hello", "it is the only one in service"


SCHEMA: dict[str, Any] = {
    "title": "Greet somebody",
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/text"}, "friends": {"items": {"$ref": "#"}}},
    "$defs": {"text": {"type": "string"}},
}


async def test_a_function_that_describes_its_input_has_an_operation_of_its_own(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    declare(runtime)
    greet = FunctionDefinition(
        name="greet",
        image="busybox",
        schema=FunctionSchema(input=SCHEMA, output=True, example={"name": "Ada"}, check=True),
    )
    bare = FunctionDefinition(name="bare", image="busybox", schema=FunctionSchema(example=None))
    for definition in (greet, bare):
        runtime.scheduler_floor.registry.declared[definition.name] = Declared(definition, state="ready")
    shown = (await client.get("/openapi.json")).json()
    OpenAPIV31SpecValidator(shown).validate()
    assert list(shown["paths"])[:2] == ["/invoke/bare", "/invoke/greet"]
    operation = shown["paths"]["/invoke/greet"]["post"]
    assert operation["summary"] == "Greet somebody"
    assert "input-mismatch" in operation["description"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content == {"schema": {"$ref": "#/components/schemas/greet.input"}, "example": {"name": "Ada"}}
    schemas = shown["components"]["schemas"]
    assert schemas["greet.input"]["properties"] == {
        "name": {"$ref": "#/components/schemas/greet.input/$defs/text"},
        "friends": {"items": {"$ref": "#/components/schemas/greet.input"}},
    }
    assert schemas["greet.output"] is True
    assert (
        shown["paths"]["/invoke/bare"]["post"]["requestBody"]["content"]["application/json"]["example"]
        is None
    )
    generic = shown["paths"]["/invoke/{function}"]["post"]
    assert generic["parameters"][0]["schema"]["default"] == "bare"
    examples = generic["requestBody"]["content"]["application/json"]["examples"]
    assert {name: example["value"] for name, example in examples.items()} == {
        "bare": None,
        "greet": {"name": "Ada"},
    }


def fillers(schema: dict[str, Any], schemas: dict[str, Any], where: str) -> Iterator[str]:
    """Places that the page would show as `string` or 0."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in where.split("."):
            yield from fillers(schemas[name], schemas, f"{where}.{name}")
    elif schema.keys() & {"examples", "example", "default", "enum", "const", "format"}:
        return
    elif "anyOf" in schema:
        yield from fillers(schema["anyOf"][0], schemas, where)
    elif schema.get("type") == "array":
        yield from fillers(schema["items"], schemas, where)
    elif schema.get("type") == "object" or "properties" in schema:
        for name, field in schema.get("properties", {}).items():
            yield from fillers(field, schemas, f"{where}.{name}")
    elif schema.get("type") in ("string", "integer", "number"):
        yield where


def test_no_example_is_a_filler(shown: dict[str, Any]) -> None:
    for path, method, operation in operations(shown):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                if not content.keys() & {"example", "examples"}:
                    found = fillers(content.get("schema", {}), shown["components"]["schemas"], "")
                    assert list(found) == [], f"{method} {path} {status}"


def check_problem(answer: httpx.Response, slug: str) -> None:
    """The answer is this problem, whole, in the documented shape."""
    status, title, blame = TYPES[slug]
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert {key: problem[key] for key in ("type", "title", "status", "blame")} == {
        "type": f"urn:hearth:problem:{slug}",
        "title": title,
        "status": status,
        "blame": blame,
    }
    assert problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "slug"),
    [
        ("GET", "/", "not-found"),
        ("GET", "/nowhere", "not-found"),
        ("GET", "/docs/files/nothing.js", "not-found"),
        ("GET", "/docs/files/../../app.py", "not-found"),
        ("POST", "/docs/files/swagger-ui.css", "method-not-allowed"),
        ("GET", "/functions/nobody", "no-such-function"),
        ("GET", "/pool/instances/0", "not-found"),
        ("DELETE", "/pool/instances/0", "not-found"),
        ("GET", "/pool/instances/0/logs", "not-found"),
        ("GET", "/invocations/0/logs", "not-found"),
        ("POST", "/invoke/nobody", "no-such-function"),
        ("GET", "/invoke/", "no-such-function"),
    ],
)
async def test_refusals_are_problems(client: httpx.AsyncClient, method: str, path: str, slug: str) -> None:
    check_problem(await client.request(method, path), slug)


@pytest.mark.parametrize("path", ["/functions", "/pool", "/pool/instances", "/healthz", "/metrics", "/docs"])
async def test_a_wrong_method_is_a_problem_that_names_the_right_one(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.post(path)
    check_problem(answer, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


async def test_a_fault_of_ours_is_a_problem(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("private")

    monkeypatch.setattr("pool.observe.plain_metrics.MetricRegistry.parts", fail)
    answer = await client.get("/metrics")
    check_problem(answer, "internal-error")
    assert "private" not in answer.text


async def test_the_page_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "//" not in page.text.replace("<!-- `SwaggerUIBundle` is now available on the page -->", "")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f'"/docs/files/{name}"' in page.text
        assert (await client.get(f"/docs/files/{name}")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/functions"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
        ("GET", "/invocations"),
        ("GET", "/invocations/0/logs"),
        ("GET", "/invocations/0/result"),
        ("GET", "/nowhere<script>"),
        ("GET", "/invoke/nobody"),
        ("POST", "/functions"),
        ("GET", "/docs/files/swagger-ui.css"),
    ],
)
async def test_no_answer_of_the_api_is_a_page(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'; frame-ancestors 'none'"
    assert len(answer.headers.get_list("content-type")) == 1


async def test_the_docs_page_alone_has_a_policy_that_lets_it_run(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert len(page.headers.get_list("content-security-policy")) == 1
    assert "sandbox" not in page.headers["content-security-policy"]


async def test_a_function_is_shown_with_its_schema(runtime: Runtime, client: httpx.AsyncClient) -> None:
    declare(runtime)
    for name, schema in (
        ("checked", FunctionSchema(input=SCHEMA, example={}, check=True)),
        ("described", FunctionSchema(output=True)),
    ):
        definition = FunctionDefinition(name=name, image="busybox", schema=schema)
        runtime.scheduler_floor.registry.declared[name] = Declared(definition, state="ready")
    listed = {each["name"]: each for each in (await client.get("/functions")).json()}
    assert {name: each["input"] for name, each in listed.items() if name != each["input"]} == dict.fromkeys(
        ("hello", "api", "count"), "any"
    )
    assert "schema" not in listed["checked"], "a thousand of them would be long"
    shown = (await client.get("/functions/checked")).json()
    assert shown["schema"] == {"input": SCHEMA, "example": {}, "check": True}
    assert (await client.get("/functions/hello")).json()["schema"] is None
