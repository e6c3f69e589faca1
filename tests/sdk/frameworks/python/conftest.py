"""The gateway for the frameworks' suites: started as the plain SDK suites start it."""

import importlib.util
import pathlib

import pytest

_path = pathlib.Path(__file__).resolve().parents[2] / "python" / "conftest.py"
_spec = importlib.util.spec_from_file_location("sdk_conftest", _path)
_sdk = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_sdk)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    started = _sdk.launch(tmp_path_factory.mktemp("gateway"))
    yield started
    _sdk.land(started)


@pytest.fixture(scope="session")
def keeping(tmp_path_factory):
    """With a store."""
    folder = tmp_path_factory.mktemp("keeping")
    (folder / "gemway.toml").write_text('[store]\nurl = "sqlite:state.db"\n')
    started = _sdk.launch(folder, GEMWAY_CONFIG=str(folder / "gemway.toml"))
    yield started
    _sdk.land(started)
