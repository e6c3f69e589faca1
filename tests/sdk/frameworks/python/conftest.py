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
