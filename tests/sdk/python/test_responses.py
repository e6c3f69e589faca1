"""Responses through the official SDK: the examples people start with, as it is and checking every reply."""

import json
from typing import List

import openai
import pytest
from pydantic import BaseModel

MODELS = ["gemini-2.5-flash", "gemini-3.8-flash"]
MODEL = MODELS[-1]
PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PATCH = {"type": "custom", "name": "apply_words", "description": "Takes free text."}
ENCRYPTED = ["reasoning.encrypted_content"]


class Step(BaseModel):
    city: str
    population: int


class Plan(BaseModel):
    steps: List[Step]


@pytest.fixture(params=["lax", "strict"])
def sdk(request):
    return request.getfixturevalue("client" if request.param == "lax" else "strict")


def only(response, kind):
    (found,) = [item for item in response.output if item.type == kind]
    return found


def check_order(events):
    """What a reader of the stream relies on: numbers without gaps, and nothing closed that was not opened."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    opened, closed = [], []
    for event in events:
        if event.type == "response.output_item.added":
            assert event.output_index == len(opened)
            opened.append(event.item.id)
        elif event.type == "response.output_item.done":
            assert opened[event.output_index] == event.item.id
            closed.append(event.output_index)
        elif hasattr(event, "item_id"):
            assert opened[event.output_index] == event.item_id and event.output_index not in closed
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert [item.id for item in last.response.output] == opened
    assert sorted(closed) == list(range(len(opened)))
    return last.response


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_response(sdk, model):
    response = sdk.responses.create(model=model, input="the word is gorse", instructions="Be brief.")
    assert response.id.startswith("resp_") and response.object == "response"
    assert response.status == "completed" and response.model == model
    assert "gorse" in response.output_text
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0
    assert response.instructions == "Be brief." and response.error is None
    assert response._request_id


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_response(sdk, model):
    with sdk.responses.create(model=model, input="write 30 words", stream=True) as stream:
        events = list(stream)
    response = check_order(events)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == response.output_text and text.endswith("word30")


def test_the_stream_helper(sdk):
    with sdk.responses.stream(model=MODEL, input="the word is gorse") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed" and "response.output_text.delta" in kinds
    assert "gorse" in final.output_text


def test_parse_and_its_stream(sdk):
    asked = {"model": MODEL, "input": "A plan through Paris", "text_format": Plan}
    parsed = sdk.responses.parse(**asked).output_parsed
    assert isinstance(parsed, Plan) and parsed.steps
    with sdk.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == parsed


def test_reasoning_is_summed_up(sdk):
    asked = {"model": MODEL, "input": "Think.", "reasoning": {"effort": "high", "summary": "auto"}}
    response = sdk.responses.create(**asked)
    assert only(response, "reasoning").summary[0].text
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    with sdk.responses.create(**asked, stream=True) as stream:
        events = list(stream)
    check_order(events)
    thought = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(thought) == only(events[-1].response, "reasoning").summary[0].text


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_turn_without_state(sdk, model, streams):
    """The client carries everything, and what it carries is enough for the next turn."""
    said = [{"role": "user", "content": "What is the weather in Oslo and in Rome? Use get_weather."}]
    asked = {"model": model, "tools": [WEATHER], "store": False, "include": ENCRYPTED}

    def turn():
        if not streams:
            return sdk.responses.create(input=said, **asked)
        with sdk.responses.create(input=said, stream=True, **asked) as stream:
            return check_order(list(stream))

    first = turn()
    calls = [item for item in first.output if item.type == "function_call"]
    assert {json.loads(call.arguments)["city"] for call in calls} == {"Oslo", "Rome"}
    if model == MODEL:
        assert all(item.encrypted_content for item in first.output if item.type == "reasoning")
    said += [item.model_dump(exclude_none=True) for item in first.output]
    for call in calls:
        said.append({"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"})
    second = turn()
    assert second.output_text.count("12 degrees") == 2
    said += [item.model_dump(exclude_none=True) for item in second.output]
    said.append({"role": "user", "content": "the word is gorse"})
    assert "gorse" in turn().output_text


def test_a_forced_call_streams_its_arguments(sdk):
    forced = {"type": "function", "name": "get_weather"}
    asked = {"model": MODEL, "input": "Paris?", "tools": [WEATHER], "tool_choice": forced}
    with sdk.responses.create(**asked, stream=True) as stream:
        events = list(stream)
    call = only(check_order(events), "function_call")
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(pieces) == done.arguments == call.arguments


def test_a_custom_tool(sdk):
    asked = {"model": MODEL, "tools": [PATCH], "store": False, "include": ENCRYPTED}
    said = [{"role": "user", "content": "Please use apply_words."}]
    first = sdk.responses.create(input=said, **asked)
    call = only(first, "custom_tool_call")
    assert call.name == "apply_words" and isinstance(call.input, str)
    with sdk.responses.create(input=said, stream=True, **asked) as stream:
        events = list(stream)
    check_order(events)
    pieces = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    assert "".join(pieces) == call.input
    said += [item.model_dump(exclude_none=True) for item in first.output]
    said.append({"type": "custom_tool_call_output", "call_id": call.call_id, "output": "gorse was taken"})
    assert "gorse was taken" in sdk.responses.create(input=said, **asked).output_text


def test_web_search(sdk):
    asked = {"model": MODEL, "input": "the word is gorse", "tools": [{"type": "web_search"}]}
    response = sdk.responses.create(**asked, include=["web_search_call.action.sources"])
    search = only(response, "web_search_call")
    assert search.status == "completed" and search.action.type == "search" and search.action.sources
    (citation,) = only(response, "message").content[0].annotations
    assert citation.type == "url_citation" and citation.url.startswith("https://")
    assert response.output_text[citation.start_index : citation.end_index]
    with sdk.responses.create(**asked, stream=True) as stream:
        kinds = [event.type for event in stream]
    for kind in ("in_progress", "searching", "completed"):
        assert f"response.web_search_call.{kind}" in kinds
    assert "response.output_text.annotation.added" in kinds


def test_code_interpreter_is_offered(sdk):
    tool = {"type": "code_interpreter", "container": {"type": "auto"}}
    response = sdk.responses.create(model=MODEL, input="the word is gorse", tools=[tool])
    assert "gorse" in response.output_text and response.tools[0].type == "code_interpreter"


def test_an_image_as_a_data_url(sdk):
    content = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PNG}]
    response = sdk.responses.create(model=MODEL, input=[{"role": "user", "content": content}])
    assert "1 image, image/png" in response.output_text


def test_an_address_that_nobody_reads_is_refused_by_its_place(sdk):
    image = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"}
    said = [{"role": "user", "content": [image]}]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="gemini-2.0-flash", input=said)
    assert refused.value.param == "input[0].content[0].image_url"
    assert refused.value.code == "invalid_image_url"


def test_too_few_tokens_leave_it_incomplete(sdk):
    asked = {"model": MODEL, "input": "write 200 words", "max_output_tokens": 20}
    response = sdk.responses.create(**asked)
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
    with sdk.responses.create(**asked, stream=True) as stream:
        assert check_order(list(stream)).status == "incomplete"


def test_tokens_are_counted_and_conversations_compacted(sdk):
    if not hasattr(sdk.responses, "input_tokens"):
        pytest.skip("this SDK cannot ask")
    said = [{"role": "user", "content": "the word is gorse"}, {"role": "assistant", "content": "Yes."}]
    few = sdk.responses.input_tokens.count(model=MODEL, input="Hello")
    more = sdk.responses.input_tokens.count(model=MODEL, input=said, instructions="Be brief.")
    assert more.object == "response.input_tokens" and more.input_tokens > few.input_tokens > 0
    compacted = sdk.responses.compact(model=MODEL, input=said)
    assert compacted.object == "response.compaction" and compacted.usage.total_tokens > 0
    carried = [item.model_dump(exclude_none=True) for item in compacted.output]
    carried.append({"role": "user", "content": "the word is furze"})
    assert "furze" in sdk.responses.create(model=MODEL, input=carried).output_text


@pytest.mark.parametrize(
    ("asked", "param", "error"),
    [
        ({"model": "no-such-model", "input": "x"}, "model", openai.NotFoundError),
        ({"model": MODEL, "input": "x", "temperature": 9}, "temperature", openai.BadRequestError),
        ({"model": MODEL, "input": [{"type": "message"}]}, "input[0].role", openai.BadRequestError),
        ({"model": MODEL, "input": "x", "tools": [{"type": "file_search"}]}, "tools[0]", openai.BadRequestError),
        ({"model": MODEL, "input": "x", "prompt": {"id": "pmpt_1"}}, "prompt", openai.BadRequestError),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_errors_say_which_field(sdk, asked, param, error, streams):
    with pytest.raises(error) as refused:
        sdk.responses.create(**asked, stream=streams)
    assert (refused.value.param or "").startswith(param) and refused.value.type == "invalid_request_error"


async def gather(gateway):
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", max_retries=0) as client:
        stream = await client.responses.create(model=MODEL, input="the word is gorse", stream=True)
        return [event async for event in stream]


def test_the_asynchronous_client(gateway):
    import asyncio

    assert "gorse" in check_order(asyncio.run(gather(gateway))).output_text
