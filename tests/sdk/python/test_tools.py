"""Tools and structured answers through the official SDK."""

import json
from typing import List, Optional

import pytest
from pydantic import BaseModel

MODELS = ["gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.8-flash"]
MODEL = MODELS[-1]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer"},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FORCED = {"type": "function", "function": {"name": "get_weather"}}


def user(text):
    return [{"role": "user", "content": text}]


def check_weather(call):
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str)
    assert arguments["unit"] in ("celsius", "fahrenheit")


@pytest.mark.parametrize("model", MODELS)
def test_a_forced_call(strict, model):
    reply = strict.chat.completions.create(
        model=model, messages=user("Paris?"), tools=[WEATHER, CLOCK], tool_choice=FORCED
    )
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    check_weather(call)


@pytest.mark.parametrize("model", MODELS)
def test_a_forced_call_streamed(client, model):
    calls, finish = {}, None
    for chunk in client.chat.completions.create(
        model=model, messages=user("Paris?"), tools=[WEATHER], tool_choice=FORCED, stream=True
    ):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for delta in choice.delta.tool_calls or []:
                call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += delta.id or ""
                call["name"] += (delta.function and delta.function.name) or ""
                call["arguments"] += (delta.function and delta.function.arguments) or ""
    assert finish == "tool_calls"
    assert list(calls) == [0]
    assert calls[0]["name"] == "get_weather"
    assert calls[0]["id"]
    assert json.loads(calls[0]["arguments"])["city"]


def test_the_stream_helper_gathers_calls(client):
    with client.chat.completions.stream(
        model=MODEL, messages=user("Paris?"), tools=[WEATHER], tool_choice=FORCED
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    check_weather(final.choices[0].message.tool_calls[0])


def test_parallel_calls_have_their_own_ids(strict):
    reply = strict.chat.completions.create(
        model=MODEL, messages=user("use get_weather and get_time for Paris"), tools=[WEATHER, CLOCK]
    )
    calls = reply.choices[0].message.tool_calls
    assert sorted(call.function.name for call in calls) == ["get_time", "get_weather"]
    assert len({call.id for call in calls}) == 2


def test_no_parallel_calls_when_forbidden(strict):
    reply = strict.chat.completions.create(
        model=MODEL,
        messages=user("use get_weather and get_time for Paris"),
        tools=[WEATHER, CLOCK],
        parallel_tool_calls=False,
    )
    assert len(reply.choices[0].message.tool_calls) == 1


def test_tools_may_be_forbidden(strict):
    reply = strict.chat.completions.create(
        model=MODEL, messages=user("use get_weather"), tools=[WEATHER], tool_choice="none"
    )
    assert not reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "stop"


def test_required_calls_something(strict):
    reply = strict.chat.completions.create(
        model=MODEL, messages=user("hello"), tools=[WEATHER, CLOCK], tool_choice="required"
    )
    assert reply.choices[0].message.tool_calls


def plain(message):
    """A turn as clients write it that keep only the fields they know: no extra_content."""
    return {
        "role": "assistant",
        "content": message.content,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ],
    }


@pytest.mark.parametrize("keeps_extra_fields", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_two_rounds_of_tools(strict, model, keeps_extra_fields):
    messages = user("use get_weather and get_time for Paris")
    for _ in range(2):
        reply = strict.chat.completions.create(model=model, messages=messages, tools=[WEATHER, CLOCK])
        message = reply.choices[0].message
        if not message.tool_calls:
            break
        messages.append(message if keeps_extra_fields else plain(message))
        for call in reversed(message.tool_calls):
            result = json.dumps({"of": call.function.name, "value": 21})
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    assert len(messages) >= 4, "no tool was called"
    last = strict.chat.completions.create(model=model, messages=messages, tools=[WEATHER], tool_choice="none")
    assert last.choices[0].message.content
    assert last.choices[0].finish_reason == "stop"


def test_a_call_id_of_another_provider_is_taken(strict):
    reply = strict.chat.completions.create(
        model=MODEL,
        messages=[
            *user("Paris?"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_elsewhere", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_elsewhere", "content": "noon"},
        ],
        tools=[CLOCK],
        tool_choice="none",
    )
    assert reply.choices[0].message.content


class Step(BaseModel):
    explanation: str
    output: str


class Solution(BaseModel):
    steps: List[Step]
    final_answer: str
    confidence: Optional[float] = None


def test_parse_gives_the_pydantic_type(client):
    reply = client.chat.completions.parse(
        model=MODEL, messages=user("solve 8x + 7 = -23"), response_format=Solution
    )
    assert isinstance(reply.choices[0].message.parsed, Solution)
    assert reply.choices[0].finish_reason == "stop"


def test_the_stream_helper_parses_too(client):
    with client.chat.completions.stream(
        model=MODEL, messages=user("solve 8x + 7 = -23"), response_format=Solution
    ) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Solution)


@pytest.mark.parametrize("model", MODELS)
def test_a_json_schema(strict, model):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0},
            "kind": {"enum": ["cat", "dog"], "type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "age", "kind", "tags"],
        "additionalProperties": False,
    }
    reply = strict.chat.completions.create(
        model=model,
        messages=user("a pet"),
        response_format={"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": schema}},
    )
    pet = json.loads(reply.choices[0].message.content)
    assert set(pet) == {"name", "age", "kind", "tags"}
    assert isinstance(pet["age"], int)
    assert pet["kind"] in ("cat", "dog")


def test_json_mode(strict):
    reply = strict.chat.completions.create(
        model=MODEL, messages=user("say it in JSON"), response_format={"type": "json_object"}
    )
    json.loads(reply.choices[0].message.content)
