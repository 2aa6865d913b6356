"""The only way to get a Temporal client: the same data converter and settings in every process."""

import dataclasses
from contextlib import AsyncExitStack
from typing import Any

from temporalio.client import Client
from temporalio.converter import DataConverter, ExternalStorage, StorageDriver
from temporalio.envconfig import ClientConfig

from waystation.errors import StartError
from waystation.settings import Settings
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec
from waystation.temporal.payload_converter import SharedPydanticPayloadConverter, is_inline
from waystation.temporal.storage import FolderStorageDriver, ReachedDriver


async def connect(settings: Settings, resources: AsyncExitStack, *, lazy: bool = False) -> Client:
    """Returns a Temporal client; ``resources`` closes what it holds open (S3).

    With ``lazy`` it connects at its first call, so that a process can start while Temporal is down.

    Raises:
        StartError: Temporal can't be reached; never with ``lazy``.
    """
    config: dict[str, Any] = {"target_host": "127.0.0.1:7233", **ClientConfig.load_client_connect_config()}
    config["data_converter"] = await data_converter(settings, resources)
    try:
        return await Client.connect(**config, lazy=lazy)
    except RuntimeError as error:
        where = config["target_host"]
        raise StartError(
            f"Temporal can't be reached at {where}; set TEMPORAL_ADDRESS, or start it. ({error})"
        ) from error


async def data_converter(settings: Settings, resources: AsyncExitStack) -> DataConverter:
    """Returns a converter for pydantic payloads, with encryption and external storage if they are set.

    Payloads are encrypted before they go to external storage.

    Raises:
        EncryptionKeyError: A key can't be used.
        StartError: The payload storage can't be used.
    """
    converter = DataConverter(payload_converter_class=SharedPydanticPayloadConverter)
    if keys := settings.encryption_keys:
        converter = encrypting_data_converter(encryption_codec([key.get_secret_value() for key in keys]))
    stored = await _storage_driver(settings, resources)
    if stored is None:
        return converter
    driver = ReachedDriver(stored)
    return dataclasses.replace(
        converter,
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
        try:
            return FolderStorageDriver(settings.storage_dir)
        except OSError as error:
            raise StartError(
                f"The folder {settings.storage_dir} can't be reached; see WAYSTATION_STORAGE_DIR. ({error})"
            ) from error
    return None


async def _s3_driver(bucket: str, resources: AsyncExitStack) -> StorageDriver:
    try:
        import aioboto3
        from temporalio.contrib.aws.s3driver import S3StorageDriver
        from temporalio.contrib.aws.s3driver.aioboto3 import new_aioboto3_client
    except ImportError as error:
        raise StartError(
            "WAYSTATION_STORAGE_S3_BUCKET is set but its library is missing: pip install 'waystation[s3]'"
        ) from error
    session: Any = aioboto3.Session()
    client = await resources.enter_async_context(session.client("s3"))
    return S3StorageDriver(client=new_aioboto3_client(client), bucket=bucket)
