"""Routes for those who operate the process: is it alive, can it serve, what does it count."""

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.dependencies import Parts
from api.door import DoorRoute

READY_TIMEOUT_SECONDS = 2.0

router = APIRouter(route_class=DoorRoute, tags=["operations"])


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Is the process alive")
async def health() -> dict[str, str]:
    """Answers as long as the process is alive."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", summary="Can it serve", responses={503: {"description": "Temporal can't be reached"}})
async def ready(parts: Parts, response: Response) -> dict[str, bool]:
    """Returns whether Temporal answers. The live bus is reported too, but losing it only costs latency."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_SECONDS):
            temporal = await parts.gateway.client.service_client.check_health()
    except Exception:
        temporal = False
    response.status_code = 200 if temporal else 503
    return {"temporal": temporal, "live_bus": parts.bus.healthy}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def prometheus() -> Response:
    """Returns this process's counters and gauges in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
