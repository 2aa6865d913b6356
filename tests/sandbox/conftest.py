from collections.abc import Iterator

import pytest

from tests.sandbox.servers import Server, processor


@pytest.fixture(scope="session")
def processor_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from processor(tmp_path_factory.mktemp("processor"))
