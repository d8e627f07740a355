"""What tests of clients in other languages share: their compilers."""

import pytest

from tests.support.haskell import Build, compiler


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return compiler(tmp_path_factory.getbasetemp())
