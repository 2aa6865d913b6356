"""One attempt at telling a browser that something waits."""

import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

import httpx
from temporalio import activity

from activities.contract import PushCall, PushOutcome
from activities.heartbeats import heartbeating
from activities.posting import no_answer, out_of_time, post
from waystation import __version__
from waystation.buyer.networks import checked_client, read_networks
from waystation.buyer.origins import RequestInvalidError
from waystation.errors import StartError
from waystation.models.webhooks import WebhookAttempt
from waystation.retry_after import retry_after
from waystation.settings import Settings
from waystation.web_push import VapidSigner, encrypted

_GONE: Final = frozenset({404, 410})
_PASSING: Final = frozenset({408, 425, 429})
_FIRST_SERVER_ERROR: Final = 500
_NO_KEY: Final = "this worker has no WAYSTATION_VAPID_PRIVATE_KEY and WAYSTATION_VAPID_SUBJECT"


class Pushes:
    """Sends to push services, signed; ``signer`` is ``None`` where no key is set."""

    def __init__(self, http: httpx.AsyncClient, signer: VapidSigner | None) -> None:
        self._http, self._signer = http, signer

    @activity.defn
    @heartbeating
    async def deliver_push(self, call: PushCall) -> PushOutcome:
        """Sends it. The status alone is kept: what an endpoint says may be anybody's."""
        began, at = time.monotonic(), datetime.now(UTC)
        status: int | None = None
        error: str | None = None
        wait, final = None, False
        try:
            if self._signer is None:
                error = _NO_KEY
            else:
                response = await self._send(call, self._signer)
                status, wait = response.status_code, retry_after(response.headers.get("retry-after"))
                if not response.is_success:
                    error = f"answered with {status}"
                    final = status < _FIRST_SERVER_ERROR and status not in _PASSING
        except RequestInvalidError as refused:
            error, final = str(refused), True
        except TimeoutError:
            error = out_of_time()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as failed:
            error = no_answer(failed)
        spent = round((time.monotonic() - began) * 1_000)
        attempt = WebhookAttempt(time=at, milliseconds=spent, status=status, error=error and error[:300])
        return PushOutcome(
            attempt=attempt, delivered=error is None, gone=status in _GONE, final=final, retry_after=wait
        )

    async def _send(self, call: PushCall, signer: VapidSigner) -> httpx.Response:
        headers = {
            "authorization": signer.authorization(call.endpoint),
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "topic": call.topic,
            "ttl": str(call.keep_seconds),
            "urgency": "high",
            "user-agent": f"Waystation/{__version__}",
        }
        content = encrypted(call.body.encode(), call.p256dh, call.auth)
        return await post(self._http, call.endpoint, content, headers)


async def open_pushes(settings: Settings, resources: AsyncExitStack) -> Pushes:
    """Returns them with a client that goes to public addresses, and to ``WAYSTATION_PUSH_NETWORKS``.

    Raises:
        StartError: The key is none, or only a part of it is set.
    """
    http = checked_client(read_networks(settings.push_networks), setting="WAYSTATION_PUSH_NETWORKS")
    return Pushes(await resources.enter_async_context(http), _signer(settings))


def _signer(settings: Settings) -> VapidSigner | None:
    key, subject = settings.vapid_private_key, settings.vapid_subject
    if key is None and subject is None:
        return None
    if key is None or subject is None:
        raise StartError(
            "WAYSTATION_VAPID_PRIVATE_KEY and WAYSTATION_VAPID_SUBJECT are set together, or neither is."
        )
    try:
        return VapidSigner(key.get_secret_value(), subject)
    except ValueError:
        raise StartError("WAYSTATION_VAPID_PRIVATE_KEY is no key: 32 bytes in base64url.") from None
