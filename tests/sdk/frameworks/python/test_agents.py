"""openai-agents over Chat Completions: a tool loop, whole and streamed."""

import asyncio

import pytest

agents = pytest.importorskip("agents")

import openai  # noqa: E402

agents.set_tracing_disabled(True)


@agents.function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


@pytest.mark.parametrize("model", ["gemini-3.8-flash", "gemini-2.5-flash"])
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_loop(gateway, model, streams):
    async def run():
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0)
        chat = agents.OpenAIChatCompletionsModel(model=model, openai_client=client)
        agent = agents.Agent(name="a", instructions="Be brief.", model=chat, tools=[get_weather])
        asked = "What is the weather in Oslo? Use the get_weather tool."
        if not streams:
            return await agents.Runner.run(agent, asked)
        result = agents.Runner.run_streamed(agent, asked)
        async for _ in result.stream_events():
            pass
        return result

    result = asyncio.run(run())
    assert "12 degrees in Oslo" in result.final_output
    assert result.context_wrapper.usage.total_tokens > 0 or streams
