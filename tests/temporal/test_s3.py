"""The SDK's own S3 driver, as the settings build it, against moto's S3 server."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from tests.support import eventually
from tests.temporal.support import running
from tests.world.s3 import running_s3
from tests.world.temporal import TemporalServer
from waystation.errors import StartError
from waystation.settings import Settings
from waystation.temporal.connect import data_converter

aioboto3 = pytest.importorskip("aioboto3", reason="needs the extra 's3'")
pytest.importorskip("moto.server", reason="needs moto[server]")

BUCKET = "payloads"


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    async with running_s3() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        async with aioboto3.Session().client("s3") as client:
            # The server's buckets outlive it, within this process.
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                await client.create_bucket(
                    Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
                )
        yield


async def keys() -> list[str]:
    async with aioboto3.Session().client("s3") as client:
        return [entry["Key"] for entry in (await client.list_objects_v2(Bucket=BUCKET)).get("Contents", [])]


@pytest.mark.usefixtures("s3")
async def test_a_session_above_the_threshold_lives_in_s3(temporal_server: TemporalServer) -> None:
    settings = Settings(storage_s3_bucket=BUCKET, storage_threshold_bytes=50_000)
    async with AsyncExitStack() as resources:
        converter = await data_converter(settings, resources)
        async with running(temporal_server, converter) as session:
            for turn in range(5):
                await session.say(f"question {turn}")

            async def continued() -> bool:
                return await session.runs() >= 2

            await eventually(continued)
            texts = await session.texts()
        assert sum(map(len, texts)) > 900_000
        assert any(session.handle.id in key for key in await keys())


@pytest.mark.usefixtures("s3")
async def test_a_bucket_that_does_not_exist_is_said_at_the_start() -> None:
    async with AsyncExitStack() as resources:
        with pytest.raises(StartError, match="there is no bucket 'nowhere'"):
            await data_converter(Settings(storage_s3_bucket="nowhere"), resources)


async def test_an_s3_that_is_away_is_waited_for(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    async with AsyncExitStack() as resources:
        assert (await data_converter(Settings(storage_s3_bucket=BUCKET), resources)).external_storage
