"""The routes of functions: those that functions.yaml declares, and what is wrong with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from gateway.api.dependencies import DispatcherPart, RegistryPart
from gateway.api.functions.views import (
    FunctionView,
    FunctionWithSchemaView,
    function_view,
    function_with_schema_view,
)
from gateway.api.openapi import problem_responses
from gateway.http.pieces import list_response
from gateway.http.problems import Problem

FunctionName = Annotated[str, Path(description="Name of the function", examples=["hello"])]

router = APIRouter(tags=["functions"])


@router.get("/functions", summary="List the functions", response_model=list[FunctionView])
async def list_functions(registry: RegistryPart, dispatcher: DispatcherPart) -> Response:
    """List every function of functions.yaml, those that could not be set up included: `fault` says why."""
    return await list_response(
        registry.declared.values(),
        lambda declared: function_view(declared, dispatcher.revision_for(declared.definition.name)),
    )


@router.get("/functions/{name}", summary="Show a function", responses=problem_responses("no-such-function"))
async def show_function(
    name: FunctionName, registry: RegistryPart, dispatcher: DispatcherPart
) -> FunctionWithSchemaView:
    """Show one function: its kind, its state, its version, its schemas, and its fault if it has one."""
    declared = registry.declared.get(name)
    if declared is None:
        raise Problem("no-such-function", f"there is no function {name!r}; GET /functions lists them")
    return function_with_schema_view(declared, dispatcher.revision_for(name))
