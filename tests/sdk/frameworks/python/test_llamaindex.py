"""LlamaIndex, which keeps one call of each chunk and drops what it does not know."""

import pytest

pytest.importorskip("llama_index.llms.openai_like")

from llama_index.core.llms import ChatMessage  # noqa: E402
from llama_index.core.tools import FunctionTool  # noqa: E402
from llama_index.llms.openai_like import OpenAILike  # noqa: E402


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


@pytest.mark.parametrize("streams", [False, True])
def test_tools_over_two_turns(gateway, streams):
    llm = OpenAILike(
        model="gemini-3.8-flash",
        api_base=f"{gateway.url}/v1",
        api_key="canary-of-nobody",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    tool = FunctionTool.from_defaults(get_weather)
    messages = [ChatMessage(role="user", content="The weather in Oslo and in Rome? Call get_weather.")]
    if streams:
        *_, answer = llm.stream_chat_with_tools([tool], chat_history=messages, allow_parallel_tool_calls=True)
    else:
        answer = llm.chat_with_tools([tool], chat_history=messages, allow_parallel_tool_calls=True)
    calls = llm.get_tool_calls_from_response(answer)
    assert [call.tool_kwargs for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    messages.append(answer.message)
    for call in calls:
        result = get_weather(**call.tool_kwargs)
        messages.append(ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call.tool_id}))
    last = llm.chat_with_tools([tool], chat_history=messages)
    assert "12 degrees in Rome" in last.message.content


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kept", [False, True], ids=["whole history", "previous response"])
def test_tools_over_two_turns_of_responses(keeping, streams, kept):
    from llama_index.llms.openai import OpenAIResponses

    llm = OpenAIResponses(
        model="gemini-3.8-flash",
        api_base=f"{keeping.url}/v1",
        api_key="canary-of-nobody",
        max_retries=0,
        context_window=100_000,
        track_previous_responses=kept,
        store=kept,
        include=["reasoning.encrypted_content"],
    )
    tool = FunctionTool.from_defaults(get_weather)
    asked = ChatMessage(role="user", content="The weather in Oslo and in Rome? Call get_weather.")
    messages = [asked]
    if streams:
        *_, answer = llm.stream_chat_with_tools([tool], chat_history=messages, allow_parallel_tool_calls=True)
    else:
        answer = llm.chat_with_tools([tool], chat_history=messages, allow_parallel_tool_calls=True)
    calls = llm.get_tool_calls_from_response(answer)
    assert [call.tool_kwargs for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    messages = [] if kept else [asked, answer.message]
    for call in calls:
        result = get_weather(**call.tool_kwargs)
        messages.append(ChatMessage(role="tool", content=result, additional_kwargs={"call_id": call.tool_id}))
    last = llm.chat_with_tools([tool], chat_history=messages)
    assert "12 degrees in Rome" in last.message.content
