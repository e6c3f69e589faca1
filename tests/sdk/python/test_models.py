"""The models: what Google lists, page by page, with what the catalogue knows and under the names clients use."""

import threading
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import openai
import pytest

from conftest import KEY, land, launch
from upstream import serving

FENCED = "sk-canary-of-a-fenced-client-01"

CONFIG = """
[[sites]]
name = "studio"
kind = "gemini_api"
base_url = "{url}"
api_key = "env:GEMINI_API_KEY"

[aliases]
"gpt-5.5" = "gemini-3.8-flash"
"mine" = "models/gemini-embedding-001"

[[keys]]
name = "all"
secret = "{key}"

[[keys]]
name = "fenced"
secret = "{fenced}"
models = ["gemini-3.8-flash"]
"""


def listed(name, *methods):
    return {
        "name": f"models/{name}",
        "inputTokenLimit": 1234567,
        "outputTokenLimit": 4321,
        "supportedGenerationMethods": list(methods),
    }


PAGES = [
    [listed("gemini-3.8-flash", "generateContent", "countTokens"), listed("aqa", "generateAnswer")],
    [listed("gemini-embedding-001", "embedContent")],
    [listed("gemini-9-argon", "generateContent"), listed("gemini-3.8-flash", "generateContent")],
]


def pages(path, _):
    """Three pages; the token of the next has letters that an address must escape."""
    query = parse_qs(urlsplit(path).query)
    number = int(query.get("pageToken", ["+/=&0"])[0].removeprefix("+/=&"))
    page = {"models": PAGES[number]}
    if number + 1 < len(PAGES):
        page["nextPageToken"] = f"+/=&{number + 1}"
    return 200, page


@contextmanager
def over(folder, answer):
    with serving(answer) as google:
        config = folder / "gemway.toml"
        config.write_text(CONFIG.format(url=google.url, key=KEY, fenced=FENCED))
        gateway = launch(folder, GEMWAY_CONFIG=str(config), GEMINI_API_KEY="AIza-canary-of-google")
        try:
            yield google, lambda key=KEY: openai.OpenAI(
                base_url=f"{gateway.url}/v1",
                api_key=key,
                max_retries=0,
                timeout=60,
                _strict_response_validation=True,
            )
        finally:
            land(gateway)


def lists(google):
    return [path for path, _ in google.asked if path.startswith("/v1beta/models?")]


def test_all_pages_are_read_once_and_keys_see_their_own(tmp_path):
    with over(tmp_path, pages) as (google, client):
        models = {model.id: model for model in client().models.list()}
        assert sorted(models) == [
            "gemini-3.8-flash",
            "gemini-9-argon",
            "gemini-embedding-001",
            "gpt-5.5",
            "mine",
        ]
        assert len(lists(google)) == 3
        flash, alias = models["gemini-3.8-flash"], models["gpt-5.5"]
        assert (flash.object, flash.owned_by) == ("model", "google")
        assert isinstance(flash.created, int)
        assert flash.context_window == alias.context_window == 1234567
        assert flash.max_output_tokens == 4321
        assert "text" in flash.modalities["input"]
        assert flash.pricing["input"] > 0
        for name in ("gpt-5.5", "gemini-9-argon", "models/gemini-3.8-flash", "google/gemini-3.8-flash", "mine"):
            found = client().models.retrieve(name)
            assert found.id == name.split("/")[-1]
        with pytest.raises(openai.NotFoundError) as unknown:
            client().models.retrieve("gemini-0-helium")
        assert unknown.value.code == "model_not_found"
        assert unknown.value.param == "model"
        assert "gemini-0-helium" in unknown.value.message

        fenced = client(FENCED)
        assert [model.id for model in fenced.models.list()] == ["gemini-3.8-flash", "gpt-5.5"]
        for name in ("gemini-9-argon", "mine"):
            with pytest.raises(openai.NotFoundError):
                fenced.models.retrieve(name)
        # All of that from the first reading.
        assert len(lists(google)) == 3


def test_many_who_ask_at_once_make_one_reading(tmp_path):
    def slow(path, body):
        time.sleep(0.3)
        return pages(path, body)

    with over(tmp_path, slow) as (google, client):
        one, seen = client(), []
        threads = [
            threading.Thread(target=lambda: seen.append(len(one.models.list().data))) for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [5] * 24
        assert len(lists(google)) == 3


def test_the_catalogue_stands_in_for_a_google_that_fails(tmp_path):
    with over(tmp_path, lambda *_: (500, {"error": {"code": 500, "status": "INTERNAL"}})) as (_, client):
        models = {model.id for model in client().models.list()}
        assert {"gemini-3.8-flash", "gemini-embedding-001", "gpt-5.5"} <= models
        assert client().models.retrieve("gemini-3.8-flash").context_window > 0


def test_a_credential_that_google_refuses_is_told(tmp_path):
    error = {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}
    with over(tmp_path, lambda *_: (403, {"error": error})) as (_, client):
        with pytest.raises(openai.APIStatusError) as refused:
            client().models.list()
        assert refused.value.status_code >= 400 and "AIza" not in refused.value.message


def test_the_simulators_models_are_listed(strict):
    models = {model.id for model in strict.models.list()}
    assert {"gemini-3.8-flash", "gemini-embedding-001"} <= models
    assert strict.models.retrieve("gemini-3.8-flash").id == "gemini-3.8-flash"
