"""Settings of the server's and the agents' processes, read from the environment.

Each field is a variable ``WAYSTATION_<FIELD>``; docs/settings.md lists them all. Where the
Temporal server is comes from Temporal's own variables (``TEMPORAL_ADDRESS``, …) or its
configuration file, so that the same setting serves its command line too.
"""

import difflib
import hashlib
import ipaddress
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from waystation.errors import StartError
from waystation.models.base import Frozen
from waystation.models.events import Identifier
from waystation.models.sessions import SessionLimits
from waystation.models.urls import MAX_PORT, check_url

logger = logging.getLogger(__name__)

ApiRole = Literal["client", "agent", "operator", "approver", "service"]


ANY_AGENT = "*"


class ApiKey(Frozen):
    """A bearer key as the API knows it: only its hash."""

    id: Identifier
    """Who its holder is: the actor's id in sessions."""
    role: ApiRole
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    agents: tuple[str, ...] = ()
    """With the role ``agent``: the agents it may spend for, besides the one called ``id``; ``*`` is all."""


def hash_api_key(key: str) -> str:
    """Returns what goes into ``WAYSTATION_API_KEYS`` for a key.

    Keys are 256-bit random values, so a plain hash is enough: there is nothing to guess.

    >>> hash_api_key("secret")[:8]
    '2bb80d53'
    """
    return hashlib.sha256(key.encode()).hexdigest()


def _check_redis_url(url: SecretStr) -> SecretStr:
    if urlsplit(url.get_secret_value()).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("a URL of Redis begins with redis://, rediss:// or unix://")
    return url


def _check_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            "a network is written as 10.0.0.0/8 or fd00::/8, without bits beyond its mask"
        ) from None
    return text


def _check_vapid_public_key(text: str) -> str:
    if not re.fullmatch(r"B[A-Za-z0-9_-]{86}", text):
        raise ValueError("a public key of VAPID is an uncompressed point of P-256, 65 bytes in base64url")
    return text


def _check_contact(text: str) -> str:
    if not text.startswith(("mailto:", "https://")):
        raise ValueError("it begins with mailto: or https://")
    return text


HttpUrl = Annotated[str, AfterValidator(check_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MAX_LOG_BYTES_WITHOUT_STORAGE = 1_000_000
"""Half of what Temporal accepts as one payload: a session's state holds more than its log."""


class MoneySettings(BaseSettings):
    """What a process pays with, and where payments may go. The keys are secrets; none is ever logged."""

    model_config = SettingsConfigDict(
        env_prefix="WAYSTATION_", frozen=True, env_ignore_empty=True, extra="ignore"
    )

    stripe_key: SecretStr | None = None
    """The agent platform's secret key at the payment processor; purchases need it."""
    stripe_api_base: HttpUrl | None = None
    """Where the processor is; unset is Stripe itself, the sandbox processor is ``http://127.0.0.1:…``."""
    seller_credentials: dict[str, SecretStr] = {}
    """Bearer credentials by seller origin, as a JSON object: ``{"https://shop.example": "…"}``."""
    seller_default_credential: SecretStr | None = None
    """The credential for sellers that are not listed; unset refuses them."""
    allowed_networks: tuple[Annotated[str, AfterValidator(_check_network)], ...] = ()
    """Private networks that payments may go to anyway, as a JSON list: ``["127.0.0.0/8"]``."""
    allowance_journal: Path = Path(".waystation/allowances.sqlite3")
    """Where a process that makes an allowance's payments itself records them first."""
    seller_webhook_secrets: dict[str, tuple[SecretStr, ...]] = {}
    """Secrets of order webhooks by seller origin, newest first: ``{"https://shop.example": ["…"]}``."""


class WalletSettings(BaseSettings):
    """Where the key is: ``WAYSTATION_WALLET_KEYSTORE`` and ``_PASSPHRASE``, or ``_PRIVATE_KEY``.

    ``WAYSTATION_WALLET_RPC_URL`` is a JSON-RPC endpoint of the chain, to learn
    whether an authorization was used after an answer was lost.
    """

    model_config = SettingsConfigDict(
        env_prefix="WAYSTATION_WALLET_", frozen=True, env_ignore_empty=True, extra="ignore"
    )

    keystore: Path | None = None
    passphrase: SecretStr | None = None
    private_key: SecretStr | None = None
    rpc_url: HttpUrl | None = None


class Settings(BaseSettings):
    """Everything that can be set, with its default: made once by a process, and passed on in parts."""

    model_config = SettingsConfigDict(
        env_prefix="WAYSTATION_", env_nested_delimiter="__", frozen=True, env_ignore_empty=True
    )

    # Where things are
    host: str = "127.0.0.1"
    """The address the API listens on."""
    port: int = Field(default=8470, ge=1, le=MAX_PORT)
    """The port the API listens on."""
    url: HttpUrl = "http://127.0.0.1:8470"
    """Where agents, workers and the command line find the API."""
    api_key: SecretStr | None = None
    """The key with which agents, workers and the command line call the API."""
    redis_url: RedisUrl | None = None
    """The live bus between several API processes; without it there is one API process."""

    # Who may call
    api_keys: tuple[ApiKey, ...] = ()
    """The keys the API accepts: a JSON list of ``{"id", "role", "sha256"}``."""
    token_secrets: tuple[SecretStr, ...] = ()
    """Secrets that sign session tokens: the first signs, all verify, so that they can be rotated."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins that may call the API from a browser, besides its own."""

    allowed_hosts: tuple[str, ...] = ()
    """The names under which the API is reached, as ``Host`` has them; empty: any. ``dev`` sets loopback's."""

    dev_places: dict[str, HttpUrl] = Field(default_factory=dict)
    """What the start page of ``waystation dev`` shows; without it there is no such page."""

    temporal_web_url: HttpUrl | None = None
    """Where Temporal's web page is: the console links to the workflows of sessions."""

    # Payloads
    encryption_keys: tuple[SecretStr, ...] = ()
    """A JSON list of ``<key id>:<base64 of 32 bytes>``: the first encrypts, all of them decrypt."""
    storage_dir: Path | None = None
    """A folder, shared by all processes, for payloads too large for Temporal."""
    storage_s3_bucket: str | None = None
    """An S3 bucket for them instead (extra ``s3``; credentials and region the usual AWS way)."""
    storage_threshold_bytes: int = Field(default=256 * 1024, ge=1_024)
    """Payloads from this size on are stored outside the history."""

    # Who decides
    decision_keys: tuple[SecretStr, ...] = ()
    """For the API: a JSON list of ``<id>:<base64 of 32 bytes>``. The first signs people's decisions."""
    decision_public_keys: tuple[str, ...] = ()
    """For workers: a JSON list of the public keys, in the same form. All of them verify."""
    unsigned_decisions: bool = False
    """For workers in development: decisions count without a signature."""
    token_keys: tuple[SecretStr, ...] = ()
    """For workers: a JSON list of ``<id>:<base64 of 32 bytes>``. The first seals secrets of payments and
    webhooks."""

    # Webhooks
    webhook_networks: tuple[Annotated[str, AfterValidator(_check_network)], ...] = ()
    """For workers: private networks that webhooks may go to anyway, as a JSON list: ``["10.1.0.0/16"]``."""

    # Web Push
    vapid_public_key: Annotated[str, AfterValidator(_check_vapid_public_key)] | None = None
    """For the API: with which browsers subscribe. Without it nothing is pushed."""
    vapid_private_key: SecretStr | None = None
    """For workers: the other half, 32 bytes in base64url. It signs to push services who sends."""
    vapid_subject: Annotated[str, AfterValidator(_check_contact)] | None = None
    """For workers: where push services find whoever runs this, ``mailto:…`` or ``https://…``."""
    push_networks: tuple[Annotated[str, AfterValidator(_check_network)], ...] = ()
    """For workers: private networks that a push service may be in, as a JSON list; none in most cases."""

    # Money
    money: MoneySettings = Field(default_factory=MoneySettings)
    """Read from variables of its own, ``WAYSTATION_STRIPE_KEY`` and so on."""
    wallet: WalletSettings = Field(default_factory=WalletSettings)
    """Read from ``WAYSTATION_WALLET_…``."""

    # Pace and bounds
    limits: SessionLimits = SessionLimits()
    """Bounds for new sessions, e.g. ``WAYSTATION_LIMITS__AGENT_START_TIMEOUT_SECONDS=60``."""
    durable_interval_ms: int = Field(default=300, ge=1)
    """The shortest pause between two durable batches of a session."""
    idle_poll_seconds: Seconds = 15.0
    """How often a feed looks for news that the live bus has not announced, while nothing runs."""
    busy_poll_seconds: Seconds = 1.0
    """The same while a turn runs."""
    heartbeat_seconds: Seconds = 15.0
    """The pause between comment lines that keep an idle event stream open."""
    stream_lifetime_seconds: Seconds = 3_600.0
    """After this an event stream ends and the client resumes, so that load can move."""
    max_subscribers_per_session: int = Field(default=2_000, ge=1)
    """Event streams of one session on one API process."""
    temporal_timeout_seconds: Seconds = 4.0
    """After this a request returns 503 if Temporal or its workers haven't answered."""
    agent_concurrency: int = Field(default=200, ge=1)
    """Turns that one agent process runs at once."""
    worker_cached_workflows: int = Field(default=1_000, ge=0)
    """Workflows that one worker keeps in memory; it reads any other's history again for each of its tasks."""

    @property
    def session_limits(self) -> SessionLimits:
        """Returns the limits of a new session: without external storage its whole state is one payload."""
        if self.storage_dir or self.storage_s3_bucket:
            return self.limits
        bounded = min(self.limits.max_log_bytes, MAX_LOG_BYTES_WITHOUT_STORAGE)
        return self.limits.model_copy(update={"max_log_bytes": bounded})


OTHER_VARIABLES: Final = ("WAYSTATION_STATE", "WAYSTATION_SHOP_", "WAYSTATION_LLM_")
"""Of the command line, the sandbox and the model agents."""


def read_settings() -> Settings:
    """Returns the settings of the environment, and warns of variables that mean nothing.

    Raises:
        StartError: A variable can't be read; names it, and doesn't quote it.
    """
    for unknown, meant in unknown_variables(os.environ).items():
        hint = f"; did you mean {meant}?" if meant else "."
        logger.warning("%s is no setting%s See docs/settings.md.", unknown, hint)
    try:
        return Settings()
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        variable = f"WAYSTATION_{named[1].upper()}" if named else "a setting"
        raise StartError(f"{variable} is no JSON; docs/settings.md has its form.") from None
    except ValidationError as error:
        wrong = "; ".join(f"WAYSTATION_{_variable(item['loc'])}: {item['msg']}" for item in _errors(error))
        raise StartError(f"The settings can't be used. {wrong}") from None


def _errors(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_input=False, include_url=False, include_context=False)


def _variable(place: tuple[int | str, ...]) -> str:
    """Returns how a setting's variable goes on after the prefix, with the place within it.

    >>> _variable(("api_keys", 0, "role")), _variable(("limits", "max_attempts"))
    ('API_KEYS, at 0.role', 'LIMITS__MAX_ATTEMPTS')
    """
    names, within = list(place[:1]), list(place[1:])
    if within and place[0] == "limits":
        names.append(within.pop(0))
    variable = "__".join(str(name) for name in names).upper()
    return f"{variable}, at {'.'.join(map(str, within))}" if within else variable


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Returns variables that begin like settings and are none, each with the one that it resembles.

    >>> unknown_variables({"WAYSTATION_REDIS_ULR": "", "WAYSTATION_URL": ""})
    {'WAYSTATION_REDIS_ULR': 'WAYSTATION_REDIS_URL'}
    """
    known = [f"WAYSTATION_{name.upper()}" for name in (*Settings.model_fields, *MoneySettings.model_fields)]
    known += [f"WAYSTATION_WALLET_{name.upper()}" for name in WalletSettings.model_fields]
    known += [f"WAYSTATION_LIMITS__{name.upper()}" for name in SessionLimits.model_fields]
    unknown = [
        name
        for name in environment
        if name.startswith("WAYSTATION_") and name not in known and not name.startswith(OTHER_VARIABLES)
    ]
    return {name: next(iter(difflib.get_close_matches(name, known, 1)), None) for name in unknown}
