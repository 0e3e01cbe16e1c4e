"""One project that is really up, for all tests of this folder that drive it as a user does."""

from collections.abc import Iterator

import pytest

from fakes.running import Running, new_project


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(new_project(tmp_path_factory.mktemp("up") / "shop")).start()
    yield running
    running.stop()
