"""Wraps a FastAPI endpoint so that a paywall decides whether it runs, and runs it as FastAPI would."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fastapi import HTTPException, Request, Response
from fastapi.dependencies.utils import get_dependant
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, get_request_handler, request_response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from waystation.protocols.http402 import PAYMENT_AUTHORIZATION
from waystation.seller.paywall.forms import KEPT

Endpoint = Callable[..., object]

_CALL: Final = "waystation.paid_call"
# An answer is sold whole: a part of it would be kept as if it were all.
_PARTIAL_HEADERS: Final = (b"range", b"if-range")


@dataclass(frozen=True, slots=True)
class Call:
    """One request's call of an endpoint, with what FastAPI has resolved for it."""

    endpoint: Endpoint
    values: dict[str, object]
    request: Request
    response: Response
    """What endpoint and dependencies set headers and a status on, as FastAPI injects it."""

    async def result(self) -> object:
        """Runs the endpoint and returns what it returns."""
        if inspect.iscoroutinefunction(self.endpoint):
            return await self.endpoint(**self.values)
        result = await run_in_threadpool(self.endpoint, **self.values)
        return await result if inspect.isawaitable(result) else result

    async def respond(self, send: Send) -> None:
        """Runs the endpoint and sends the response that FastAPI would: response class, model, status,
        injected headers, exception handlers.

        Raises:
            Exception: What the endpoint raised and the app has no handler for.
        """
        headers = [pair for pair in self.request.scope["headers"] if pair[0] not in _PARTIAL_HEADERS]
        # Without the server's extensions, a file is sent as its bytes and not as its path.
        scope = {**self.request.scope, "headers": headers, "extensions": {}, _CALL: self}
        await request_response(_handler_like(self.request))(scope, _never_disconnected, send)


async def _endpoint(request: Request, response: Response) -> object:
    """Stands in for the endpoint of a call in ``get_request_handler``."""
    call: Call = request.scope[_CALL]
    result = await call.result()
    response.headers.raw.extend(call.response.headers.raw)
    response.status_code = call.response.status_code
    return result


_DEPENDANT: Final = get_dependant(path="/", call=_endpoint)


def _handler_like(request: Request) -> Callable[[Request], Awaitable[Response]]:
    """Returns FastAPI's handler with the response settings of the request's route.

    A route of an included router has its settings in the context that FastAPI keeps with the request.
    """
    route = request.scope.get("fastapi", {}).get("effective_route_context") or request.scope.get("route")
    if route is None or not hasattr(route, "response_model_by_alias"):
        return get_request_handler(_DEPENDANT, response_class=JSONResponse)
    settings: APIRoute = route
    return get_request_handler(
        _DEPENDANT,
        status_code=settings.status_code,
        response_class=settings.response_class,
        response_field=settings.response_field,
        response_model_include=settings.response_model_include,
        response_model_exclude=settings.response_model_exclude,
        response_model_by_alias=settings.response_model_by_alias,
        response_model_exclude_unset=settings.response_model_exclude_unset,
        response_model_exclude_defaults=settings.response_model_exclude_defaults,
        response_model_exclude_none=settings.response_model_exclude_none,
    )


async def _never_disconnected() -> Message:
    """The ``receive`` of a paid run: the body has been read, and the run doesn't end with the client."""
    forever: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await forever


def with_call(endpoint: Endpoint, serve: Callable[[Call], Awaitable[object]]) -> Endpoint:
    """Wraps an endpoint so that ``serve`` gets its calls and returns what FastAPI answers.

    Raises:
        TypeError: The endpoint is a generator.
    """
    if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
        raise TypeError("a paid endpoint can't be a generator; return a StreamingResponse of one")
    signature = inspect.signature(endpoint, eval_str=True)
    request_name, request_added = _parameter(signature, Request, "paywall_request")
    response_name, response_added = _parameter(signature, Response, "paywall_response")

    @functools.wraps(endpoint)
    async def wrapper(**values: object) -> object:
        request, response = values[request_name], values[response_name]
        if not isinstance(request, Request) or not isinstance(response, Response):
            raise TypeError(f"FastAPI must pass the request as {request_name}, a response as {response_name}")
        for name in (*request_added, *response_added):
            del values[name]
        return await serve(Call(endpoint, values, request, response))

    added = [*request_added.values(), *response_added.values()]
    variadic = [p for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    plain = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*plain, *added, *variadic]
    )
    return wrapper


def _parameter(
    signature: inspect.Signature, kind: type, name: str
) -> tuple[str, dict[str, inspect.Parameter]]:
    """Returns the name of the endpoint's parameter of a kind, and what to add to it if it has none."""
    for own, parameter in signature.parameters.items():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, kind):
            return own, {}
    return name, {name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)}


async def body_of(request: Request) -> bytes:
    """Returns the client's body, byte for byte: a payment is bound to it."""
    kept: bytes | None = request.scope.get(KEPT)
    if kept is not None:
        return kept
    try:
        return await request.body()
    except ClientDisconnect:
        # Nobody reads this; as it is, it would be an error in the merchant's log.
        raise HTTPException(400, "The request didn't arrive whole.") from None
    except RuntimeError:  # FastAPI has already read a form
        raise RuntimeError(
            "a paid route with a form needs the middleware KeepForms of waystation.seller.paywall.forms"
        ) from None


def payment_authorization(request: Request) -> str | None:
    """Returns the MPP credential, from either of its headers: ``Authorization`` may carry a login."""
    for name in (PAYMENT_AUTHORIZATION, "authorization"):
        for value in request.headers.getlist(name):
            for part in value.split(","):
                if part.strip().lower().startswith("payment "):
                    return part.strip()
    return None


def is_preflight(request: Request) -> bool:
    """Returns whether a browser only asks if it may send a request (CORS)."""
    return request.method == "OPTIONS" and "access-control-request-method" in request.headers
