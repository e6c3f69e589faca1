"""LangChain's own standard tests of chat models, and a turn with tools whose signatures LangChain drops."""

import base64
from types import SimpleNamespace

import pytest

pytest.importorskip("langchain_openai")

from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models  # noqa: E402

# What the suite would take from the web.
FILES = {
    ".png": base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="),
    ".jpg": bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9"),
    ".pdf": b"%PDF-1.4\n%%EOF\n",
    ".wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0",
}


def file(url, **_):
    return next(data for end, data in FILES.items() if url.endswith(end))


class TestStandard(ChatModelIntegrationTests):
    model_override_value = "gemini-2.5-flash"
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    supports_anthropic_inputs = True

    @pytest.fixture(autouse=True)
    def _url(self, gateway, monkeypatch):
        type(self).url = f"{gateway.url}/v1"
        monkeypatch.setattr(chat_models.httpx, "get", lambda url, **_: SimpleNamespace(content=file(url)))
        monkeypatch.setattr(chat_models, "_get_base64_from_url", lambda url: base64.b64encode(file(url)).decode())

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


@tool
def get_time(city: str) -> str:
    """The time in a city."""
    return f"noon in {city}"


@pytest.mark.parametrize("named", [False, True], ids=["whole history", "previous response"])
@pytest.mark.parametrize("streams", [False, True])
def test_responses_over_turns(keeping, streams, named):
    model = ChatOpenAI(
        base_url=f"{keeping.url}/v1",
        api_key="canary-of-nobody",
        model="gemini-3.8-flash",
        use_responses_api=True,
        use_previous_response_id=named,
        reasoning={"effort": "low", "summary": "auto"},
        max_retries=0,
    )
    bound = model.bind_tools([get_time])

    def turn(messages):
        if not streams:
            return bound.invoke(messages)
        whole = None
        for chunk in bound.stream(messages):
            whole = chunk if whole is None else whole + chunk
        return whole

    said = [HumanMessage("The time in Oslo and in Rome? Call get_time.")]
    said.append(turn(said))
    calls = said[-1].tool_calls
    assert [call["args"] for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert said[-1].response_metadata["id"].startswith("resp_")
    said += [ToolMessage(get_time.invoke(call["args"]), tool_call_id=call["id"]) for call in calls]
    said.append(turn(said))
    assert "noon in Oslo" in said[-1].text and "noon in Rome" in said[-1].text
    assert said[-1].usage_metadata["total_tokens"] > 0
    said.append(HumanMessage("the word is gorse"))
    assert "gorse" in turn(said).text


def test_responses_with_a_schema_and_a_search(keeping):
    from pydantic import BaseModel

    class Town(BaseModel):
        city: str
        population: int

    asked = {"base_url": f"{keeping.url}/v1", "api_key": "canary-of-nobody", "max_retries": 0}
    model = ChatOpenAI(model="gemini-3.8-flash", use_responses_api=True, **asked)
    assert isinstance(model.with_structured_output(Town).invoke("Paris"), Town)
    found = model.bind_tools([{"type": "web_search"}]).invoke("the word is gorse")
    assert "gorse" in found.text
    cited = [note for block in found.content_blocks for note in block.get("annotations", [])]
    assert cited and cited[0]["url"].startswith("https://")
