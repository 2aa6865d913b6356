"""The API keeps to its OpenAPI document, whatever it is asked, and by whom."""

import asyncio
import functools
import json
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.odd import TEXTS, shaped
from tests.support import EXAMPLES_FACTOR
from tests.world.stack import KEYS, ROLES, Stack

EXAMPLES_PER_OPERATION = 4 * EXAMPLES_FACTOR
EXAMPLES_OF_SCHEMATHESIS = 2 * EXAMPLES_FACTOR
DESCRIBED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
AT_ONCE = 8
METHODS = {"get", "post", "put", "patch", "delete"}
NEVER_ENDING = {("get", "/sessions/{session_id}/events")}
"""A stream ends with its session."""
TEMPORAL_IS_AWAY = {"temporal-unavailable", "no-worker"}
"""What an answer of 503 may say. Other tests leave workflows behind that no worker serves any more."""
IDS = st.sampled_from(["s", "nope", "contract", "auth0|1", "a b", "x" * 300, "%", "\u00e9", "a/b", "$"])


class Asked(NamedTuple):
    method: str
    path: str
    url: str
    query: dict[str, Any]
    body: Any


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS and (method, path) not in NEVER_ENDING
    ]


def asked(
    method: str, path: str, operation: dict[str, Any], document: dict[str, Any]
) -> st.SearchStrategy[Asked]:
    defs = document.get("components", {}).get("schemas", {})
    given = operation.get("parameters", ())
    inside = {one["name"]: IDS for one in given if one["in"] == "path"}
    query = {one["name"]: shaped(one["schema"], defs) | TEXTS for one in given if one["in"] == "query"}
    content = operation.get("requestBody", {}).get("content", {})
    body = shaped(content["application/json"]["schema"], defs) if "application/json" in content else st.none()
    return st.builds(
        lambda places, query, body: Asked(
            method, path, path.format(**{k: quote(v, safe="") for k, v in places.items()}), query, body
        ),
        st.fixed_dictionaries(inside),
        st.fixed_dictionaries({}, optional=query),
        body,
    )


@functools.cache
def examples(of: str) -> list[Asked]:
    """Returns what is asked of each operation of a document, the same whoever asks."""
    document, found = json.loads(of), list[Asked]()
    for method, path, operation in operations(document):

        @settings(
            max_examples=EXAMPLES_PER_OPERATION,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(asked(method, path, operation, document))
        def collect(one: Asked) -> None:
            found.append(one)

        collect()
    return found


def faults(document: dict[str, Any], one: Asked, answer: httpx.Response) -> str | None:
    """What is wrong with an answer, if anything is."""
    responses = document["paths"][one.path][one.method]["responses"]
    status = str(answer.status_code)
    what = f"{one.method} {one.url} {one.query} {str(one.body)[:200]}: {status} {answer.text[:200]}"
    if answer.status_code == 503 and answer.json().get("code") in TEMPORAL_IS_AWAY:
        return None
    if answer.status_code >= 500:
        return what
    if status not in responses:
        return f"undocumented status: {what}"
    kinds = responses[status].get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if answer.content and kinds and kind not in kinds:
        return f"undocumented content type {kind}: {what}"
    return None


@pytest.mark.parametrize("role", [*ROLES, None])
async def test_the_api_keeps_to_its_document(stack: Stack, role: str | None) -> None:
    headers = {"Authorization": f"Bearer {KEYS[role]}"} if role else {}
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=90) as http:
        document = (await http.get("/openapi.json")).json()

        async def ask(one: Asked) -> str | None:
            async with gate:
                sent: dict[str, Any] = {} if one.body is None else {"json": one.body}
                query = {name: "" if value is None else value for name, value in one.query.items()}
                answer = await http.request(one.method.upper(), one.url, params=query, **sent)
                return faults(document, one, answer)

        found = await asyncio.gather(*(ask(one) for one in examples(json.dumps(document))))
    wrong = [one for one in found if one]
    assert not wrong, "\n".join(wrong)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "mode", [pytest.param(GenerationMode.POSITIVE, marks=pytest.mark.slow), GenerationMode.NEGATIVE]
)
def test_what_comes_is_what_the_document_describes(stack: Stack, mode: GenerationMode) -> None:
    """Schemathesis' own inputs, valid and invalid, and its own reading of the document."""
    schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json")
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    wrong: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if (operation.method.lower(), operation.path) in NEVER_ENDING:
            continue

        @settings(
            max_examples=EXAMPLES_OF_SCHEMATHESIS,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(base_url=stack.url, headers=headers, timeout=90)
            if answer.status_code == 503 and answer.json().get("code") in TEMPORAL_IS_AWAY:
                return
            try:
                case.validate_response(answer, checks=DESCRIBED)
            except (FailureGroup, Failure) as failure:
                wrong.append(f"{case.method} {case.formatted_path}: {answer.status_code} {failure!r:.600}")

        try:
            ask()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, f"nothing fits {operation.path}"
    assert not wrong, "\n".join(dict.fromkeys(wrong))
