"""Embeddings through the official SDK, in both encodings, and as other clients send them."""

import base64
import json
import struct
import urllib.request

import openai
import pytest

MODEL = "gemini-embedding-001"


def single(value):
    """The nearest 32-bit float."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def length(vector):
    return sum(value * value for value in vector) ** 0.5


def raw(gateway, body):
    request = urllib.request.Request(
        f"{gateway.url}/v1/embeddings",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", "authorization": "Bearer unused"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer), answer.headers


def test_one_string(client):
    reply = client.embeddings.create(model=MODEL, input="the word is gorse")
    assert reply.object == "list"
    assert reply.model == MODEL
    (one,) = reply.data
    assert (one.object, one.index, len(one.embedding)) == ("embedding", 0, 3072)
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0


def test_both_encodings_of_2048_inputs_hold_the_same_numbers(client):
    inputs = [f"text number {number}" for number in range(2048)]
    coded = client.embeddings.create(model=MODEL, input=inputs, dimensions=32)
    plain = client.embeddings.create(model=MODEL, input=inputs, dimensions=32, encoding_format="float")
    assert [one.index for one in coded.data] == [one.index for one in plain.data] == list(range(2048))
    for left, right in zip(coded.data, plain.data):
        assert [single(value) for value in left.embedding] == [single(value) for value in right.embedding]
    assert coded.usage.prompt_tokens == plain.usage.prompt_tokens > 2048
    # Order is kept: each vector is the one its text gives alone.
    for number in (0, 99, 100, 2047):
        alone = client.embeddings.create(model=MODEL, input=inputs[number], dimensions=32)
        assert alone.data[0].embedding == coded.data[number].embedding


@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2"])
@pytest.mark.parametrize("dimensions", [64, 768, 3072])
def test_every_size_is_of_length_one(client, model, dimensions):
    reply = client.embeddings.create(model=model, input=["a", "b"], dimensions=dimensions)
    assert {len(one.embedding) for one in reply.data} == {dimensions}
    assert all(abs(length(one.embedding) - 1) < 1e-4 for one in reply.data)


def test_base64_is_what_it_says(gateway):
    body, headers = raw(gateway, {"model": MODEL, "input": "x", "encoding_format": "base64", "user": "u"})
    assert len(base64.b64decode(body["data"][0]["embedding"])) == 3072 * 4
    assert headers["x-gemway-dropped-params"] == "user"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]


def test_tokens_are_read_as_the_text_they_stand_for(client):
    text = client.embeddings.create(model=MODEL, input=["hello world", "hello"])
    tokens = client.embeddings.create(model=MODEL, input=[[15339, 1917], [15339]])
    assert [one.embedding for one in tokens.data] == [one.embedding for one in text.data]
    flat = client.embeddings.create(model=MODEL, input=[15339, 1917])
    assert flat.data[0].embedding == text.data[0].embedding


def test_extensions_and_media(client):
    query = client.embeddings.create(model=MODEL, input="x", extra_body={"task_type": "RETRIEVAL_QUERY"})
    assert len(query.data) == 1
    pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    part = {"type": "image_url", "image_url": {"url": pixel}}
    mixed = client.embeddings.create(
        model="gemini-embedding-2", input=["a", part, [{"type": "text", "text": "b"}, part]]
    )
    assert [one.index for one in mixed.data] == [0, 1, 2]


@pytest.mark.parametrize(
    "body, param",
    [
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": 5}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 4096}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": [[99999999]]}, "input[0]"),
        ({"input": "a", "extra_body": {"task_type": "poetry"}}, "task_type"),
    ],
)
def test_what_cannot_be_embedded_is_refused(client, body, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=MODEL, **body)
    assert refused.value.param == param


def test_a_model_that_does_not_embed(client):
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="gemini-3.8-flash", input="a")
