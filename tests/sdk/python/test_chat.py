"""Chat through the official SDK: whole, streamed, and the ways to ask for either."""

import asyncio

import openai
import pytest

MODELS = ["gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.8-flash"]
MODEL = MODELS[-1]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)


def user(text):
    return [{"role": "user", "content": text}]


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def check_usage(usage):
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_answer(strict, model):
    reply = strict.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, *user("the word is gorse")],
    )
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert reply.model == model
    assert reply.created > 1_600_000_000
    (choice,) = reply.choices
    assert choice.index == 0
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert "gorse" in choice.message.content
    check_usage(reply.usage)


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_answer(strict, model):
    stream = strict.chat.completions.create(model=model, messages=user("the word is heather"), stream=True)
    chunks = list(stream)
    assert "heather" in text_of(chunks)
    assert {c.id for c in chunks} == {chunks[0].id}
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    roles = [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role]
    assert roles == ["assistant"]
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert finishes == ["stop"]
    assert all(c.usage is None for c in chunks)


def test_a_stream_comes_in_pieces(client):
    words = " ".join(f"w{n}" for n in range(40))
    chunks = list(client.chat.completions.create(model=MODEL, messages=user(words), stream=True))
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 3
    assert words in text_of(chunks)


def test_usage_at_the_end_of_a_stream_adds_up(strict):
    chunks = list(
        strict.chat.completions.create(
            model=MODEL,
            messages=user("count me"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *before, last = chunks
    assert all(c.usage is None for c in before)
    assert last.choices == []
    check_usage(last.usage)
    whole = strict.chat.completions.create(model=MODEL, messages=user("count me"))
    assert whole.usage.prompt_tokens == last.usage.prompt_tokens


def test_the_stream_helper(client):
    with client.chat.completions.stream(model=MODEL, messages=user("the word is broom")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.done") == 1
    assert "content.delta" in kinds
    assert "broom" in final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.role == "assistant"


def test_with_streaming_response(client):
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=user("the word is furze"), stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"]
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith(("data: ", ":")) for line in lines)
    assert lines[-1] == "data: [DONE]"


def test_with_raw_response(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user("hi"))
    assert raw.headers["content-type"].startswith("application/json")
    assert raw.headers["x-request-id"] == raw.parse()._request_id


def test_async_clients_do_the_same(gateway):
    async def run():
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
            ask = [
                client.chat.completions.create(model=MODEL, messages=user(f"the number is {n}")) for n in range(8)
            ]
            for n, reply in enumerate(await asyncio.gather(*ask)):
                assert f"the number is {n}" in reply.choices[0].message.content
            stream = await client.chat.completions.create(
                model=MODEL, messages=user("the word is ling"), stream=True
            )
            assert "ling" in text_of([chunk async for chunk in stream])
            async with client.chat.completions.stream(model=MODEL, messages=user("the word is ling")) as helper:
                final = await helper.get_final_completion()
            assert "ling" in final.choices[0].message.content

    asyncio.run(run())


def test_several_choices(strict):
    reply = strict.chat.completions.create(model="gemini-2.5-flash", messages=user("pick"), n=2)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert all(choice.message.content for choice in reply.choices)


def test_several_choices_streamed(client):
    chunks = list(
        client.chat.completions.create(model="gemini-2.5-flash", messages=user("pick"), n=2, stream=True)
    )
    finished = sorted(c.index for chunk in chunks for c in chunk.choices if c.finish_reason)
    assert finished == [0, 1]


@pytest.mark.parametrize("stop", ["HALT", ["HALT", "other"]])
def test_stop_sequences(strict, stop):
    reply = strict.chat.completions.create(model=MODEL, messages=user("before HALT after"), stop=stop)
    assert reply.choices[0].finish_reason == "stop"
    assert "after" not in reply.choices[0].message.content


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_the_token_limit_ends_with_length(strict, limit):
    words = " ".join(f"word{n}" for n in range(100))
    reply = strict.chat.completions.create(
        model="gemini-2.5-flash", messages=user(words), reasoning_effort="none", **{limit: 5}
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens <= 5


def test_an_inline_image(strict):
    parts = [
        {"type": "text", "text": "what is in the picture of a pixel?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    reply = strict.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    plain = strict.chat.completions.create(model=MODEL, messages=user(parts[0]["text"]))
    assert "pixel" in reply.choices[0].message.content
    assert reply.usage.prompt_tokens > plain.usage.prompt_tokens


def test_a_conversation_of_every_plain_role(strict):
    reply = strict.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Answer in one line."},
            {"role": "user", "content": [{"type": "text", "text": "first"}]},
            {"role": "assistant", "content": "second"},
            {"role": "user", "content": "third"},
        ],
        temperature=0.2,
        top_p=0.9,
        seed=7,
    )
    assert "third" in reply.choices[0].message.content


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "/v1beta/openai/"])
def test_every_base_url_that_people_set(gateway, base):
    with openai.OpenAI(base_url=gateway.url + base, api_key="x", max_retries=0) as client:
        reply = client.chat.completions.create(model=MODEL, messages=user("the word is ling"))
        assert "ling" in reply.choices[0].message.content
        assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.parametrize("name", [f"models/{MODEL}", f"google/{MODEL}"])
def test_prefixed_model_names(client, name):
    reply = client.chat.completions.create(model=name, messages=user("hi"))
    assert reply.choices[0].message.content


def test_models(strict):
    listed = {model.id: model for model in strict.models.list()}
    assert set(MODELS) <= set(listed)
    one = strict.models.retrieve(MODEL)
    assert one.object == "model"
    assert one.id == MODEL
    assert one.owned_by


def test_an_alias_answers_under_the_name_that_was_asked(closed):
    from conftest import KEY

    with openai.OpenAI(base_url=f"{closed.url}/v1", api_key=KEY, max_retries=0) as client:
        reply = client.chat.completions.create(model="gpt-5.5", messages=user("the word is whin"))
        assert "whin" in reply.choices[0].message.content
        assert reply.model == "gpt-5.5"
