"""What the official SDK raises, retries and refuses to take for an answer."""

import json
import time
import urllib.error
import urllib.request

import openai
import pytest

from conftest import KEY

MODEL = "gemini-3.8-flash"


def user(text):
    return [{"role": "user", "content": text}]


class Watched(openai.OpenAI):
    """Notes how long the SDK would have waited before each retry, and does not wait."""

    def __init__(self, gateway, **options):
        self.waits = []
        super().__init__(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", timeout=60, **options)

    def _calculate_retry_timeout(self, *args, **kwargs):
        self.waits.append(super()._calculate_retry_timeout(*args, **kwargs))
        return 0.0


def shape(error):
    """Every error carries the four members of OpenAI's error object."""
    assert set(error.body) >= {"message", "type", "param", "code"}
    assert isinstance(error.body["message"], str) and error.body["message"]
    assert isinstance(error.body["type"], str)
    for name in ("param", "code"):
        assert error.body[name] is None or isinstance(error.body[name], str)
    assert error.request_id
    return error


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0]"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": 9.5}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"tool_choice": {"type": "function", "function": {"name": "missing"}}}, "tool_choice"),
        ({"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]}, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:nonsense"}}]}]},
            "messages[0]",
        ),
    ],
)
def test_a_bad_request_names_the_parameter(client, change, param):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**{"model": MODEL, "messages": user("hi"), **change})
    error = shape(raised.value)
    assert error.type == "invalid_request_error"
    assert error.param is not None and error.param.startswith(param)


def test_no_key_and_a_wrong_key(closed):
    for key in ("sk-wrong", KEY[:-1], KEY + "0"):
        with openai.OpenAI(base_url=f"{closed.url}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as raised:
                client.chat.completions.create(model=MODEL, messages=user("hi"))
            error = shape(raised.value)
            assert error.code == "invalid_api_key"
            assert key not in error.message
            with pytest.raises(openai.AuthenticationError):
                client.models.list()


def test_the_right_key(closed):
    with openai.OpenAI(base_url=f"{closed.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.chat.completions.create(model=MODEL, messages=user("hi")).choices


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model(client, stream):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gemini-nope", messages=user("hi"), stream=stream)
    error = shape(raised.value)
    assert error.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gemini-nope")


def test_an_unknown_path_suggests_a_known_one(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.post("/chat/completion", cast_to=object, body={})
    error = shape(raised.value)
    assert error.code == "unknown_url"
    assert "/chat/completions" in error.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_says_when_to_come_back(gateway, stream):
    with Watched(gateway, max_retries=2) as client:
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(model="sim-429", messages=user("hi"), stream=stream)
        error = shape(raised.value)
        headers = error.response.headers
        seconds = float(headers["retry-after"])
        assert seconds >= 1
        if headers.get("x-should-retry") == "false":
            assert client.waits == []
        else:
            assert len(client.waits) == 2
            asked = float(headers.get("retry-after-ms", seconds * 1000)) / 1000
            if asked <= 60:
                assert all(abs(wait - asked) < 5 for wait in client.waits)


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_upstream(gateway, stream):
    with Watched(gateway, max_retries=1) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(model="sim-503", messages=user("hi"), stream=stream)
        error = shape(raised.value)
        assert error.status_code == 503
        told = error.response.headers.get("x-should-retry")
        assert len(client.waits) == (0 if told == "false" else 1)


@pytest.mark.parametrize("model", ["sim-error-mid", "sim-reset", "sim-cut"])
def test_a_stream_that_breaks_does_not_end_cleanly(client, model):
    seen = []
    with pytest.raises(openai.APIError):
        for chunk in client.chat.completions.create(model=model, messages=user("one two three"), stream=True):
            seen.append(chunk)
    assert not any(c.finish_reason for chunk in seen for c in chunk.choices)


@pytest.mark.parametrize("model", ["sim-reset", "sim-cut"])
def test_a_whole_answer_that_breaks_is_an_error(client, model):
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=model, messages=user("one two three"))


def test_a_blocked_prompt_is_told(client):
    try:
        reply = client.chat.completions.create(model="sim-blocked", messages=user("hi"))
    except openai.BadRequestError as error:
        assert shape(error).code == "content_policy_violation" or error.code == "content_filter"
    else:
        assert reply.choices[0].finish_reason == "content_filter"


def post(url, body, **headers):
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model":"x"', b"\xff\xfe", b"[" * 100_000])
def test_malformed_json_is_a_400(gateway, body):
    status, answer = post(f"{gateway.url}/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


def test_a_missing_model_is_named(gateway):
    body = json.dumps({"messages": user("hi")}).encode()
    status, answer = post(f"{gateway.url}/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["param"] == "model"


def in_flight(gateway):
    lines = gateway.metrics().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("gemway_inflight_requests "))


def test_a_client_that_leaves_frees_its_request(gateway):
    """Leaves in the middle of a paced stream, which would go on for many seconds."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
        words = " ".join(f"w{n}" for n in range(2000))
        stream = client.chat.completions.create(model=MODEL, messages=user(words), stream=True)
        next(iter(stream))
        assert in_flight(gateway) == 1
        stream.close()
        deadline = time.monotonic() + 2
        while in_flight(gateway) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert in_flight(gateway) == 0


def test_probes_and_metrics(gateway):
    for path in ("/livez", "/readyz"):
        with urllib.request.urlopen(gateway.admin + path, timeout=5) as answer:
            assert answer.status == 200
    assert "gemway_" in gateway.metrics()


def test_a_stream_that_is_over_before_it_said_anything_is_an_http_error(client):
    with pytest.raises(openai.InternalServerError) as raised:
        client.with_options(max_retries=0).chat.completions.create(
            model="sim-malformed", messages=[{"role": "user", "content": "x"}], stream=True
        )
    assert raised.value.status_code == 502
    assert raised.value.code == "upstream_malformed_output"
