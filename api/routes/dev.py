"""What the start page of ``waystation dev`` shows. Elsewhere there is no such route."""

from fastapi import APIRouter, FastAPI

from api.dependencies import Caller, Parts
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Forbidden
from waystation.models.base import Frozen
from waystation.settings import Settings


class Places(Frozen):
    """The addresses of what runs beside the API, by name."""

    places: dict[str, str]


router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES)


@router.get("/dev/places", include_in_schema=False)
async def places(caller: Caller, parts: Parts) -> Places:
    """Returns where everything is, for whoever is not confined to some sessions."""
    if caller.sessions is not None:
        raise Forbidden("A token for particular sessions may not see this.")
    return Places(places=dict(parts.settings.dev_places))


def install(app: FastAPI, settings: Settings) -> None:
    """Adds the route where there is something to show."""
    if settings.dev_places:
        app.include_router(router)
