"""openai-agents over Responses, its default, and over Chat Completions: tool loops and handoffs."""

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
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", max_retries=0)
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


@agents.function_tool
def get_time(city: str) -> str:
    """The time in a city."""
    return f"noon in {city}"


def run_to_its_end(agent, asked, streams):
    async def run():
        if not streams:
            return await agents.Runner.run(agent, asked)
        result = agents.Runner.run_streamed(agent, asked)
        async for _ in result.stream_events():
            pass
        return result

    return asyncio.run(run())


def responses(gateway, model):
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", max_retries=0)
    return agents.OpenAIResponsesModel(model=model, openai_client=client)


@pytest.mark.parametrize("model", ["gemini-3.8-flash", "gemini-2.5-flash"])
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_loop_over_responses(gateway, model, streams):
    def agent():
        # A client lives in one event loop.
        speaks = responses(gateway, model)
        return agents.Agent(name="a", instructions="Be brief.", model=speaks, tools=[get_weather, get_time])

    result = run_to_its_end(agent(), "Use get_weather and get_time for Oslo and Rome, please.", streams)
    for city in ("Oslo", "Rome"):
        assert f"12 degrees in {city}" in result.final_output
        assert f"noon in {city}" in result.final_output
    assert result.context_wrapper.usage.total_tokens > 0
    # What was said can be carried on by the caller.
    again = [*result.to_input_list(), {"role": "user", "content": "the word is gorse"}]
    assert "gorse" in run_to_its_end(agent(), again, streams).final_output


@pytest.mark.parametrize("model", ["gemini-3.8-flash", "gemini-2.5-flash"])
@pytest.mark.parametrize("streams", [False, True])
def test_a_handoff_over_responses(gateway, model, streams):
    speaks = responses(gateway, model)
    weather = agents.Agent(
        name="Meteorologist",
        instructions="You know the weather.",
        model=speaks,
        tools=[get_weather],
        model_settings=agents.ModelSettings(tool_choice="required"),
    )
    desk = agents.Agent(name="Desk", instructions="Hand over.", model=speaks, handoffs=[weather])
    result = run_to_its_end(desk, "Please transfer_to_meteorologist: what of Oslo?", streams)
    assert result.last_agent is weather
    kinds = [item.type for item in result.new_items]
    assert "handoff_output_item" in kinds and "tool_call_output_item" in kinds
    assert "12 degrees in Oslo" in result.final_output


def test_a_structured_answer_over_responses(gateway):
    from pydantic import BaseModel

    class Town(BaseModel):
        city: str
        population: int

    agent = agents.Agent(name="a", model=responses(gateway, "gemini-3.8-flash"), output_type=Town)
    assert isinstance(run_to_its_end(agent, "Paris", False).final_output, Town)


class Editor:
    """Takes patches as the SDK hands them on."""

    def __init__(self):
        self.seen = []

    def _take(self, operation):
        self.seen.append((operation.type, operation.path))
        return agents.editor.ApplyPatchResult(status="completed", output=f"{operation.type} taken")

    create_file = update_file = delete_file = _take


@pytest.mark.parametrize("streams", [False, True])
def test_the_tools_that_run_on_the_clients_machine(gateway, streams):
    ran = []

    async def shell(request):
        ran.append(request.data.action.commands)
        return agents.ShellResult(output=[agents.ShellCommandOutput(stdout="two files")])

    async def words(context, text):
        ran.append(text)
        return "words taken"

    editor = Editor()
    tools = [
        agents.ShellTool(executor=shell),
        agents.ApplyPatchTool(editor=editor),
        agents.CustomTool(name="take_words", description="Takes words.", on_invoke_tool=words),
        agents.WebSearchTool(),
    ]

    def agent():
        return agents.Agent(name="a", model=responses(gateway, "gemini-3.8-flash"), tools=tools)

    result = run_to_its_end(agent(), "Call shell, please.", streams)
    assert len(ran) == 1 and isinstance(ran.pop(), tuple | list) and "two files" in result.final_output
    result = run_to_its_end(agent(), "Call apply_patch, please.", streams)
    ((kind, path),) = editor.seen
    assert kind in ("create_file", "update_file", "delete_file") and path
    assert f"{kind} taken" in result.final_output
    again = [*result.to_input_list(), {"role": "user", "content": "Call take_words now."}]
    result = run_to_its_end(agent(), again, streams)
    assert isinstance(ran.pop(), str) and "words taken" in result.final_output


@pytest.mark.parametrize("streams", [False, True])
def test_a_session_that_the_gateway_keeps(keeping, streams):
    async def run():
        speaks = responses(keeping, "gemini-3.8-flash")
        session = agents.OpenAIConversationsSession(openai_client=speaks._client)
        agent = agents.Agent(name="a", model=speaks, tools=[get_weather])
        for asked in ("Use get_weather for Oslo, please.", "the word is gorse"):
            if streams:
                result = agents.Runner.run_streamed(agent, asked, session=session)
                async for _ in result.stream_events():
                    pass
            else:
                result = await agents.Runner.run(agent, asked, session=session)
        items = await session.get_items()
        await session.pop_item()
        left = await session.get_items()
        await session.clear_session()
        return result, items, left

    result, items, left = asyncio.run(run())
    assert "gorse" in result.final_output
    kinds = [item.get("type", "message") for item in items]
    assert kinds.count("function_call") == kinds.count("function_call_output") == 1
    assert kinds.count("message") == 4 and len(left) == len(items) - 1


@pytest.mark.parametrize("streams", [False, True])
def test_turns_that_name_the_one_before(keeping, streams):
    async def run():
        speaks = responses(keeping, "gemini-3.8-flash")
        agent = agents.Agent(name="a", model=speaks, tools=[get_weather])
        asked = {"auto_previous_response_id": True}
        for text in ("Use get_weather for Oslo, please.", "the word is gorse"):
            if streams:
                result = agents.Runner.run_streamed(agent, text, **asked)
                async for _ in result.stream_events():
                    pass
            else:
                result = await agents.Runner.run(agent, text, **asked)
            if "previous_response_id" not in asked:
                assert "12 degrees in Oslo" in result.final_output
            asked["previous_response_id"] = result.last_response_id
        return result

    assert "gorse" in asyncio.run(run()).final_output
