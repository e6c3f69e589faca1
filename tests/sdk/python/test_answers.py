"""Every recorded answer of Gemini's, as the official SDK reads it: checked against its types, put together from chunks."""

import json
import pathlib

import openai
import pytest
from conftest import land, launch
from openai.lib.streaming.chat import ChatCompletionStreamState
from upstream import serving

CASES = pathlib.Path(__file__).resolve().parents[2] / "golden" / "answer"
# What a request asks for in these words; cases of other shapes need a request of their own.
ASKED = {
    "include_usage": {},
    "thoughts": {"extra_body": {"google": {"thinking_config": {"include_thoughts": True}}}},
    "single_call": {"parallel_tool_calls": False},
    "may_be_empty": {"stop": ["x"]},
    "legacy_functions": {"functions": [{"name": "get_weather", "parameters": {"type": "object", "properties": {}}}]},
}


def cases():
    for folder in sorted(CASES.iterdir()):
        shape = folder / "shape.json"
        shape = json.loads(shape.read_text()) if shape.exists() else {}
        if set(shape) <= set(ASKED):
            yield pytest.param(folder, shape, id=folder.name)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    answers = {}

    def answer(path, _):
        body, whole = answers["now"]
        # An array is what streams come as without `alt=sse`.
        if whole and "stream" in path and not body.startswith(b"["):
            return 200, "text/event-stream", b"data: " + b" ".join(body.split(b"\n")) + b"\r\n\r\n"
        return 200, "application/json" if whole else "text/event-stream", body

    folder = tmp_path_factory.mktemp("answers")
    with serving(answer) as google:
        (folder / "gemway.toml").write_text(
            f'[[sites]]\nname = "g"\nkind = "gemini_api"\napi_key = "k"\nbase_url = "{google.url}"\n'
        )
        gateway = launch(folder, GEMWAY_CONFIG=str(folder / "gemway.toml"))
        with openai.OpenAI(
            base_url=f"{gateway.url}/v1",
            api_key="canary-of-nobody",
            max_retries=0,
            timeout=30,
            default_headers={"x-gemway-no-retry": "1"},
            _strict_response_validation=True,
        ) as client:
            yield answers, client
        land(gateway)


def seen(completion):
    """What counts of a reply, however it came."""
    for choice in completion["choices"]:
        message = choice["message"]
        calls = [
            (call["type"], call.get("function") or call.get("custom")) for call in message.get("tool_calls") or []
        ]
        calls = [(kind, what["name"], what.get("arguments", what.get("input"))) for kind, what in calls]
        ids = [call["id"] for call in message.get("tool_calls") or []]
        assert len(set(ids)) == len(ids) and all(ids)
        legacy = message.get("function_call") or {}
        yield (
            choice["index"],
            choice["finish_reason"],
            message.get("content") or "",
            message.get("refusal"),
            calls,
            (legacy.get("name"), legacy.get("arguments")),
            message.get("annotations") or [],
            [entry["token"] for entry in (choice.get("logprobs") or {}).get("content") or []],
        )


def chunked(client, request):
    """The chunks of a stream put together by the SDK's own helper, and the usage."""
    state, usage = ChatCompletionStreamState(), []
    chunks = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    for chunk in chunks:
        if usage:
            raise AssertionError("something came after the usage")
        state.handle_chunk(chunk)
        usage.extend([chunk.usage] if chunk.usage else [])
    return state.current_completion_snapshot.to_dict(), usage


@pytest.mark.parametrize(("folder", "shape"), list(cases()))
def test_an_answer_is_read_whole(scene, folder, shape):
    answers, client = scene
    whole = (folder / "response.gemini.json").exists()
    name = "response.gemini.json" if whole else "response.gemini.sse"
    answers["now"] = ((folder / name).read_bytes(), whole)
    request = {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "x"}]}
    for word in shape:
        request |= ASKED[word]
    expected = json.loads((folder / "response.openai.json").read_text())
    if "error" in expected:
        with pytest.raises(openai.APIError) as raised:
            chunked(client, request)
        assert raised.value.code == expected["error"]["code"]
        if whole:
            with pytest.raises(openai.APIStatusError) as raised:
                client.chat.completions.create(**request)
            assert raised.value.code == expected["error"]["code"]
        return
    snapshot, usage = chunked(client, request)
    assert list(seen(snapshot)) == list(seen(expected))
    assert [counts.to_dict() for counts in usage] == [expected["usage"]]
    if whole and not answers["now"][0].startswith(b"["):
        reply = client.chat.completions.create(**request).to_dict()
        assert list(seen(reply)) == list(seen(expected))
        assert reply["usage"] == expected["usage"]
