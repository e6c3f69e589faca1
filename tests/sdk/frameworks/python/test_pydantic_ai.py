"""Pydantic AI, which checks every reply against OpenAI's types: tools, structured output, streams."""

import asyncio

import pytest

pytest.importorskip("pydantic_ai")

from pydantic import BaseModel  # noqa: E402
from pydantic_ai import Agent  # noqa: E402
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402


class Person(BaseModel):
    name: str
    age: int


def model(gateway, name):
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody"))


@pytest.mark.parametrize("name", ["gemini-3.8-flash", "gemini-2.5-flash"])
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_loop(gateway, name, streams):
    agent = Agent(model(gateway, name))

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"12 degrees in {city}"

    async def run():
        asked = "What is the weather in Oslo? Use the get_weather tool."
        if not streams:
            result = await agent.run(asked)
            return result.output, result.usage() if callable(result.usage) else result.usage
        async with agent.run_stream(asked) as result:
            output = await result.get_output()
            return output, result.usage() if callable(result.usage) else result.usage

    output, usage = asyncio.run(run())
    assert "12 degrees in Oslo" in output
    assert usage.input_tokens > 0 or streams


def test_structured_output(gateway):
    agent = Agent(model(gateway, "gemini-3.8-flash"), output_type=Person)
    result = asyncio.run(agent.run("The person is called Ada and is 36 years old."))
    assert isinstance(result.output.age, int)
