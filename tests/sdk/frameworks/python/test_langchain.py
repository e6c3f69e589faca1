"""LangChain's own standard tests of chat models, and a turn with tools whose signatures LangChain drops."""

import pytest

pytest.importorskip("langchain_openai")

from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from langchain_tests.integration_tests import ChatModelIntegrationTests  # noqa: E402


class TestStandard(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _url(self, gateway):
        type(self).url = f"{gateway.url}/v1"

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "base_url": self.url,
            "api_key": "canary-of-nobody",
            "model": "gemini-3.8-flash",
            "stream_usage": True,
            "timeout": 30,
        }

    @property
    def supports_json_mode(self):
        return True

    # What follows asks for wit that the simulator does not have; the requests and replies are like the others'.
    @pytest.mark.xfail(reason="the simulator does not read that the input shall be 3")
    def test_tool_calling(self, model):
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason="the simulator does not read that the input shall be 3")
    async def test_tool_calling_async(self, model):
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason="the simulator takes each word of a place for one")
    def test_agent_loop(self, model):
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason="the simulator knows no Chinese")
    def test_unicode_tool_call_integration(self, model):
        super().test_unicode_tool_call_integration(model)

    @pytest.mark.xfail(reason="the simulator makes up JSON without a schema")
    def test_json_mode(self, model):
        super().test_json_mode(model)


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


@pytest.mark.parametrize("streams", [False, True])
def test_signatures_survive_a_client_that_drops_them(gateway, streams):
    model = ChatOpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", model="gemini-3-pro-preview", max_retries=0)
    model = model.bind_tools([get_weather])
    messages = [HumanMessage("What is the weather in Oslo and in Rome? Call get_weather.")]
    for _ in range(2):
        if streams:
            chunks = list(model.stream(messages))
            answer = chunks[0]
            for chunk in chunks[1:]:
                answer += chunk
        else:
            answer = model.invoke(messages)
        assert len(answer.tool_calls) == 2, answer
        messages.append(answer)
        for call in answer.tool_calls:
            messages.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
        messages.append(model.invoke(messages))
        assert "12 degrees in " + answer.tool_calls[0]["args"]["city"] in messages[-1].content
        messages.append(HumanMessage("And get_weather for Bergen and Paris?"))
