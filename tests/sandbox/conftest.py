from collections.abc import Iterator

import pytest

from tests.world.sandbox import Processor, running_processor


@pytest.fixture(scope="session")
def processor_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processor]:
    with running_processor(tmp_path_factory.mktemp("processor")) as server:
        yield server
