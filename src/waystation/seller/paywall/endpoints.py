"""Wraps a FastAPI endpoint so that a paywall decides whether it runs."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, serialize_response

from waystation.seller.paywall.forms import KEPT

Endpoint = Callable[..., object]
Handler = Callable[[], Awaitable[Response]]


def with_request(endpoint: Endpoint, serve: Callable[[Request, Handler], Awaitable[Response]]) -> Endpoint:
    """Wraps an endpoint so that FastAPI also passes it the request."""
    signature = inspect.signature(endpoint, eval_str=True)
    own = next((name for name, p in signature.parameters.items() if p.annotation is Request), None)
    injected = own or "paywall_request"

    @functools.wraps(endpoint)
    async def wrapper(**values: object) -> Response:
        request = values[injected]
        if not isinstance(request, Request):
            raise TypeError(f"FastAPI passed {type(request).__name__} as {injected}; a request is needed")
        if own is None:
            del values[injected]

        async def handler() -> Response:
            if inspect.iscoroutinefunction(endpoint):
                result: object = await endpoint(**values)
            else:
                result = await asyncio.to_thread(endpoint, **values)
            return await _to_response(result, request)

        return await serve(request, handler)

    parameters = list(signature.parameters.values())
    if own is None:
        kind = inspect.Parameter.KEYWORD_ONLY
        variadic = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        plain = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters = [*plain, inspect.Parameter(injected, kind, annotation=Request), *variadic]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapper


async def _to_response(result: object, request: Request) -> Response:
    """Returns the response that FastAPI would build, with the route's response model and status."""
    if isinstance(result, Response):
        return result
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return JSONResponse(result)
    content = await serialize_response(
        field=route.response_field,
        response_content=result,
        include=route.response_model_include,
        exclude=route.response_model_exclude,
        by_alias=route.response_model_by_alias,
        exclude_unset=route.response_model_exclude_unset,
        exclude_defaults=route.response_model_exclude_defaults,
        exclude_none=route.response_model_exclude_none,
    )
    return JSONResponse(content, route.status_code or 200)


async def body_of(request: Request) -> bytes:
    """Returns the client's body, byte for byte: a payment is bound to it."""
    kept: bytes | None = request.scope.get(KEPT)
    if kept is not None:
        return kept
    try:
        return await request.body()
    except RuntimeError:  # FastAPI has already read a form
        raise RuntimeError(
            "a paid route with a form needs the middleware KeepForms of waystation.seller.paywall.forms"
        ) from None


def payment_authorization(request: Request) -> str | None:
    for value in request.headers.getlist("authorization"):
        for part in value.split(","):
            if part.strip().lower().startswith("payment "):
                return part.strip()
    return None
