"""Settings of what has to do with money, read from the environment (``WAYSTATION_<FIELD>``)."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MoneySettings(BaseSettings):
    """Keys and credentials. All of them are secrets, none is ever logged."""

    model_config = SettingsConfigDict(env_prefix="WAYSTATION_", frozen=True)

    encryption_keys: tuple[SecretStr, ...] = ()
    """A JSON list of ``<key id>:<base64 of 32 bytes>``: the first encrypts, all of them decrypt."""
    stripe_key: SecretStr | None = None
    """The agent platform's secret key at the payment processor; purchases need it."""
    stripe_api_base: str | None = None
    """Where the processor is; unset is Stripe itself, the sandbox processor is ``http://127.0.0.1:…``."""
    seller_credentials: dict[str, SecretStr] = {}
    """Bearer credentials by seller origin, as a JSON object: ``{"https://shop.example": "…"}``."""
    seller_default_credential: SecretStr | None = None
    """The credential for sellers that are not listed; unset refuses them."""
    allowed_networks: tuple[str, ...] = ()
    """Private networks that payments may go to all the same, as a JSON list: ``["127.0.0.0/8"]``."""
    allowance_journal: Path = Path(".waystation/allowances.sqlite3")
    """Where a process that pays from an allowance by itself writes its payments down first."""
    seller_webhook_secrets: dict[str, tuple[SecretStr, ...]] = {}
    """Secrets of order webhooks by seller origin, newest first: ``{"https://shop.example": ["…"]}``."""
