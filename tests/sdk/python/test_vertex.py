"""Embeddings over Vertex AI: both of its methods against the simulator, and what is left behind by a client that goes."""

import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import openai
import pytest

from conftest import ROOT, free_port, land, launch
from upstream import serving, until

CONFIG = """
[[sites]]
name = "vertex"
kind = "vertex"
project = "some-project"
location = "us-central1"
credentials = "api_key:AIza-not-a-real-one"
base_url = "{url}"
"""


def over(folder: pathlib.Path, url: str):
    config = folder / "gemway.toml"
    config.write_text(CONFIG.format(url=url))
    return launch(folder, GEMWAY_CONFIG=str(config))


def speaker(gateway, **options):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", max_retries=0, timeout=30, **options)


@pytest.fixture(scope="module")
def vertex(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("vertex"), free_port()
    binary = os.environ.get("GEMWAY_BIN", str(ROOT / "target" / "debug" / "gemway"))
    with open(folder / "simulator.log", "wb") as log:
        simulator = subprocess.Popen(
            [binary, "simulate", "--listen", f"127.0.0.1:{port}", "--ttft", "1ms"], stdout=log, stderr=log
        )
    try:
        for _ in range(400):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
            except urllib.error.HTTPError:
                pass
            except OSError:
                time.sleep(0.05)
                continue
            break
        gateway = over(folder, f"http://127.0.0.1:{port}")
        yield speaker(gateway)
        land(gateway)
    finally:
        simulator.kill()
        simulator.wait()


# The first takes one input a call and the second many, both by `predict`; the third has `embedContent` only.
@pytest.mark.parametrize("model", ["gemini-embedding-001", "text-embedding-005", "gemini-embedding-2"])
def test_each_method_keeps_order_and_numbers(vertex, model):
    inputs = [f"text number {number}" for number in range(30)]
    coded = vertex.embeddings.create(model=model, input=inputs, dimensions=128)
    plain = vertex.embeddings.create(model=model, input=inputs, dimensions=128, encoding_format="float")
    assert [one.index for one in coded.data] == [one.index for one in plain.data] == list(range(30))
    for left, right in zip(coded.data, plain.data):
        assert left.embedding == pytest.approx(right.embedding, abs=1e-6)
        assert abs(sum(value * value for value in left.embedding) - 1) < 1e-3
    assert len({tuple(one.embedding) for one in coded.data}) == 30
    assert coded.usage.prompt_tokens == plain.usage.prompt_tokens >= 30
    alone = vertex.embeddings.create(model=model, input=inputs[17], dimensions=128)
    assert alone.data[0].embedding == coded.data[17].embedding


def test_vertex_takes_task_and_title(vertex):
    extra = {"task_type": "RETRIEVAL_DOCUMENT", "title": "Of gorse"}
    for model in ("gemini-embedding-001", "gemini-embedding-2"):
        assert len(vertex.embeddings.create(model=model, input=["a", "b"], extra_body=extra).data) == 2


def test_what_vertex_is_asked(tmp_path):
    def answer(path, body):
        values = {"values": [3.0, 4.0] * 384}
        if path.endswith(":predict"):
            return 200, {"predictions": [{"embeddings": values | {"statistics": {"token_count": 3}}}]}
        return 200, {"embedding": values, "usageMetadata": {"promptTokenCount": 5}}

    with serving(answer) as google:
        gateway = over(tmp_path, google.url)
        try:
            client = speaker(gateway)
            for model, method, tokens in [
                ("gemini-embedding-001", "predict", 3),
                ("gemini-embedding-2", "embedContent", 5),
            ]:
                google.asked.clear()
                reply = client.embeddings.create(model=model, input=["one", "two", "three"], dimensions=768)
                assert reply.usage.prompt_tokens == 3 * tokens
                path = f"/v1beta1/projects/some-project/locations/us-central1/publishers/google/models/{model}:{method}"
                assert [asked.split("?")[0] for asked, _ in google.asked] == [path] * 3
                for _, body in google.asked:
                    if method == "predict":
                        assert len(body["instances"]) == 1
                        assert body["parameters"]["outputDimensionality"] == 768
                    else:
                        assert body["embedContentConfig"]["outputDimensionality"] == 768
                        assert len(body["content"]["parts"]) == 1
        finally:
            land(gateway)


def test_a_client_that_leaves_ends_all_calls(tmp_path):
    with serving(lambda *_: None) as google:
        gateway = over(tmp_path, google.url)
        try:
            client = speaker(gateway).with_options(timeout=2)
            with pytest.raises(openai.APITimeoutError):
                client.embeddings.create(model="gemini-embedding-001", input=["x"] * 50)
            assert until(lambda: google.left == 8), (google.left, len(google.asked))
            # None of the others is begun for nobody.
            time.sleep(0.5)
            assert len(google.asked) == google.left == 8
        finally:
            land(gateway)


def test_one_that_fails_fails_all(tmp_path):
    error = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The text is odd."}}

    def answer(_, body):
        if body["instances"][0]["content"] == "odd":
            return 400, error
        return None

    with serving(answer) as google:
        gateway = over(tmp_path, google.url)
        try:
            with pytest.raises(openai.BadRequestError):
                speaker(gateway).embeddings.create(model="gemini-embedding-001", input=["a", "odd", "b"])
            assert until(lambda: google.left == len(google.asked) - 1), (google.left, len(google.asked))
        finally:
            land(gateway)
