"""Temporal's search attributes: their names, what they hold, and whether a namespace has them.

Lists of what waits, runs or was said last are found by them among all that there is. They aren't encrypted,
so nothing that anybody said is in them; people and words only as keyed digests (``terms``).

A workflow whose task sets an attribute that its namespace doesn't have is stuck. So it sets them only where
who started it has seen that they are there: that is in its history (``search_key`` of a session's start, the
attributes of any other).
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from waystation.temporal.encryption import parse_key
from waystation.temporal.terms import derived_key

logger = logging.getLogger(__name__)

STATUS: Final = SearchAttributeKey.for_keyword("WaystationStatus")
"""Of a session: ``running``, ``waiting``, ``idle``, ``paused``, ``failed`` or ``closed``."""
AGENT: Final = SearchAttributeKey.for_keyword("WaystationAgent")
"""The agent of a session, a purchase or a paid request."""
SESSION: Final = SearchAttributeKey.for_keyword("WaystationSession")
"""The session that a purchase or a paid request belongs to."""
WAITS_FOR: Final = SearchAttributeKey.for_keyword_list("WaystationWaitsFor")
"""Whose decision or answer is waited for: ``role:approver``, or a person's digest (``terms``)."""
TERMS: Final = SearchAttributeKey.for_keyword_list("WaystationTerms")
"""Digests of the words of a session's title, of its people and of who looks after it; ``terms``."""
LAST_ACTIVITY: Final = SearchAttributeKey.for_datetime("WaystationLastActivity")
"""When something last happened in a session, in odd milliseconds."""

ALL: Final = (STATUS, AGENT, SESSION, WAITS_FOR, TERMS, LAST_ACTIVITY)
MAX_VALUE_BYTES: Final = 2_048
"""Temporal's own limit for one attribute. A workflow that sets a longer one is stuck."""
ADMIN_TIMEOUT: Final = timedelta(seconds=5)

_TYPE_NAMES: Final = {
    IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD: "Keyword",
    IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST: "KeywordList",
    IndexedValueType.INDEXED_VALUE_TYPE_DATETIME: "Datetime",
}

TYPES: Final = {key.name: _TYPE_NAMES[IndexedValueType.ValueType(int(key.indexed_value_type))] for key in ALL}
"""The type of each, as Temporal's command line calls it."""

SERVER_OPTIONS: Final = tuple(
    part for name, kind in TYPES.items() for part in ("--search-attribute", f"{name}={kind}")
)
"""What has Temporal's dev server register them."""


def how_to_register(namespace: str) -> str:
    """Returns the commands that register them: on one's own server, and in Temporal Cloud."""
    each = " ".join(f"--name {name} --type {kind}" for name, kind in TYPES.items())
    cloud = " ".join(f'--sa "{name}={kind}"' for name, kind in TYPES.items())
    return (
        f"temporal operator search-attribute create --namespace {namespace} {each}\n"
        f"or, in Temporal Cloud: tcld namespace search-attributes add --namespace {namespace} {cloud}"
    )


async def are_registered(client: Client, *, within: timedelta = ADMIN_TIMEOUT) -> bool:
    """Returns whether the namespace has all of them, of the right types, and can be searched by them.

    Raises:
        RPCError: Temporal doesn't answer.
    """
    query = (
        f"{STATUS.name}='-' AND {AGENT.name}='-' AND {SESSION.name}='-' AND {WAITS_FOR.name}='-' "
        f"AND {TERMS.name}='-' AND {LAST_ACTIVITY.name}>'2000-01-01T00:00:00Z'"
    )
    try:
        await client.count_workflows(query, rpc_timeout=within)
    except RPCError as error:
        if error.status in (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNIMPLEMENTED):
            return False
        raise
    return True


async def register(client: Client) -> None:
    """Registers them where that is allowed, else says in the log how to; never raises."""
    try:
        if await are_registered(client):
            return
        wanted = {key.name: IndexedValueType.ValueType(int(key.indexed_value_type)) for key in ALL}
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=wanted),
            timeout=ADMIN_TIMEOUT,
        )
        if await are_registered(client):
            logger.info("Registered the search attributes of sessions in '%s'", client.namespace)
            return
        why = "it has taken them and doesn't know them yet"
    except (RPCError, RuntimeError) as error:
        why = str(error)
    logger.warning(
        "The namespace '%s' has no search attributes for sessions (%s), so sessions can be listed but not "
        "filtered or searched. Whoever administers it runs: %s",
        client.namespace,
        why,
        how_to_register(client.namespace),
    )


def sets_attributes(given: TypedSearchAttributes) -> bool:
    """Whether a purchase or paid request that was started with these attributes may set others."""
    return given.get(AGENT) is not None


def keys_of(encryption_keys: Sequence[str]) -> list[str]:
    """Returns the keys of an installation's digests, as new sessions take it first.

    Where payloads aren't encrypted there is nothing to hide: the last key is known to everybody. Sessions
    that began before there were encryption keys have it.

    Args:
        encryption_keys: ``<key id>:<base64 of 32 bytes>`` each, as in the settings.

    Raises:
        EncryptionKeyError: One can't be read.
    """
    return [*(derived_key(parse_key(text)[1]) for text in encryption_keys), derived_key(b"")]
