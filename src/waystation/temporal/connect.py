"""The only way to get a Temporal client: the same data converter and settings in every process."""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.converter import DataConverter, ExternalStorage, StorageDriver
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from waystation.errors import NotNowError, StartError
from waystation.folders import made_folder
from waystation.settings import Settings
from waystation.temporal.asking import AskAgain
from waystation.temporal.encryption import NoKeysCodec, encrypting_data_converter, encryption_codec
from waystation.temporal.payload_converter import (
    SharedPydanticPayloadConverter,
    StoringPydanticPayloadConverter,
    is_inline,
)
from waystation.temporal.storage import FolderStorageDriver, ReachedDriver

logger = logging.getLogger(__name__)

NO_SUCH_BUCKET: Final = 404
_CHECK_TIMEOUT_SECONDS: Final = 2.0
_NOBODY_THERE: Final = ("tcp connect error", "dns error", "timed out")
"""What Temporal's library says where the network ends, and not TLS."""


async def connect(settings: Settings, resources: AsyncExitStack, *, lazy: bool = False) -> Client:
    """Returns a Temporal client; ``resources`` closes what it holds open (S3).

    With ``lazy`` it connects at its first call, so that a process can start while Temporal is down.

    Raises:
        StartError: A setting can't be used, or Temporal refuses it. With ``lazy`` only if Temporal answers.
        NotNowError: Temporal can't be reached; never with ``lazy``.
    """
    config: dict[str, Any] = {"target_host": "127.0.0.1:7233", **_temporal_settings()}
    config["data_converter"] = await data_converter(settings, resources)
    try:
        client = await open_client(**config, lazy=lazy)
    except ValueError as error:
        raise _unusable(error) from error
    except RuntimeError as error:
        raise _not_reached(config, error) from error
    await _check_namespace(client, config["target_host"])
    return client


async def open_client(target_host: str, **options: Any) -> Client:
    """Opens a client; ``options`` are those of Temporal's ``Client.connect``."""
    return await Client.connect(target_host, interceptors=[AskAgain()], **options)


def _temporal_settings() -> Mapping[str, Any]:
    try:
        return ClientConfig.load_client_connect_config()
    except Exception as error:  # a broken file, a missing certificate: the library raises what it likes
        raise _unusable(error) from error


def _unusable(error: Exception) -> StartError:
    # The first line alone: the others may quote the file, which may hold a key.
    why = str(error).partition("\n")[0]
    return StartError(f"Temporal's settings (TEMPORAL_…, or its configuration file) can't be used: {why}")


def _not_reached(config: Mapping[str, Any], error: RuntimeError) -> StartError:
    where, why = config["target_host"], str(error)
    if config.get("tls") and not any(words in why for words in _NOBODY_THERE):
        return StartError(
            f"no TLS connection to Temporal at {where}; check TEMPORAL_TLS and the files of "
            f"TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH. ({why})"
        )
    return NotNowError(f"Temporal can't be reached at {where}; set TEMPORAL_ADDRESS, or start it. ({why})")


async def _check_namespace(client: Client, where: str) -> None:
    """Raises ``StartError`` if Temporal says that there is no such namespace, or that we may not use it."""
    described = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await asyncio.wait_for(client.workflow_service.describe_namespace(described), _CHECK_TIMEOUT_SECONDS)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise StartError(
                f"Temporal at {where} has no namespace '{client.namespace}'; create it, or set "
                "TEMPORAL_NAMESPACE."
            ) from error
        if error.status == RPCStatusCode.UNAUTHENTICATED:
            raise StartError(
                f"Temporal at {where} refuses this process; check TEMPORAL_API_KEY, or the certificate."
            ) from error
    except (RuntimeError, TimeoutError):  # a lazy client that reaches nobody
        return


CLEAR_DATA_CONVERTER: Final = DataConverter(
    payload_converter_class=SharedPydanticPayloadConverter, payload_codec=NoKeysCodec()
)
"""Converts pydantic payloads in an installation without keys."""


async def data_converter(settings: Settings, resources: AsyncExitStack) -> DataConverter:
    """Returns a converter for pydantic payloads, with encryption and external storage if they are set.

    Payloads are encrypted before they go to external storage.

    Raises:
        EncryptionKeyError: A key can't be used.
        StartError: The payload storage can't be used.
    """
    converter = CLEAR_DATA_CONVERTER
    if keys := settings.encryption_keys:
        converter = encrypting_data_converter(encryption_codec([key.get_secret_value() for key in keys]))
    stored = await _storage_driver(settings, resources)
    if stored is None:
        return converter
    driver = ReachedDriver(stored)
    return dataclasses.replace(
        converter,
        payload_converter_class=StoringPydanticPayloadConverter,
        external_storage=ExternalStorage(
            drivers=[driver],
            driver_selector=lambda _, payload: None if is_inline(payload) else driver,
            payload_size_threshold=settings.storage_threshold_bytes,
        ),
    )


async def _storage_driver(settings: Settings, resources: AsyncExitStack) -> StorageDriver | None:
    if settings.storage_s3_bucket:
        return await _s3_driver(settings.storage_s3_bucket, resources)
    if settings.storage_dir:
        return FolderStorageDriver(made_folder(settings.storage_dir, "WAYSTATION_STORAGE_DIR"))
    return None


async def _s3_driver(bucket: str, resources: AsyncExitStack) -> StorageDriver:
    try:
        import aioboto3
        import botocore.exceptions as s3_errors
        from temporalio.contrib.aws.s3driver import S3StorageDriver
        from temporalio.contrib.aws.s3driver.aioboto3 import new_aioboto3_client
    except ImportError as error:
        raise StartError(
            "WAYSTATION_STORAGE_S3_BUCKET is set but its library is missing: pip install 'waystation[s3]'"
        ) from error
    try:
        session: Any = aioboto3.Session()
        client = await resources.enter_async_context(session.client("s3"))
        await _check_bucket(client, bucket)
    except (s3_errors.BotoCoreError, ValueError) as error:
        raise StartError(f"WAYSTATION_STORAGE_S3_BUCKET: the bucket can't be used ({error}).") from error
    return S3StorageDriver(client=new_aioboto3_client(client), bucket=bucket)


async def _check_bucket(client: Any, bucket: str) -> None:
    """Raises ``StartError`` if there is no such bucket; one that is away comes back."""
    import botocore.exceptions as s3_errors  # comes with the extra

    try:
        await asyncio.wait_for(client.head_bucket(Bucket=bucket), _CHECK_TIMEOUT_SECONDS)
    except (s3_errors.ConnectionError, s3_errors.HTTPClientError, TimeoutError) as error:
        away = type(error).__name__
        logger.warning("The bucket '%s' can't be reached at the moment (%s)", bucket, away)
    except s3_errors.ClientError as error:
        # Whoever may not ask for the bucket may still read and write what is in it.
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == NO_SUCH_BUCKET:
            raise StartError(
                f"WAYSTATION_STORAGE_S3_BUCKET: there is no bucket '{bucket}'; create it, or check the name, "
                "AWS_DEFAULT_REGION and AWS_ENDPOINT_URL."
            ) from error
