"""Legacy completions through the official SDK."""

import openai
import pytest

MODELS = ["gemini-2.5-flash", "gemini-3.8-flash"]


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_completion(strict, model):
    reply = strict.completions.create(model=model, prompt="the word is gorse", max_tokens=200)
    assert reply.object == "text_completion"
    assert reply.id.startswith("cmpl-")
    assert reply.model == model
    (choice,) = reply.choices
    assert "gorse" in choice.text
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_sixteen_tokens_where_nothing_is_said(client):
    reply = client.completions.create(model="gemini-2.5-flash", prompt="word " * 100)
    assert reply.usage.completion_tokens <= 16
    assert reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_completion(client, model):
    # Not strictly: the SDK's type has no place for the null that OpenAI's own chunks end with before the last.
    chunks = list(
        client.completions.create(
            model=model,
            prompt="the word is heather",
            max_tokens=200,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "heather" in "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0


def test_several_prompts_and_choices(strict):
    reply = strict.completions.create(
        model="gemini-2.5-flash", prompt=["the word is gorse", "the word is fern"], n=2, max_tokens=200
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    words = ["gorse" if "gorse" in choice.text else "fern" for choice in reply.choices]
    assert words == ["gorse", "gorse", "fern", "fern"]


def test_several_prompts_streamed(client):
    prompts = [f"the word is word{number}" for number in range(10)]
    stream = client.completions.create(
        model="gemini-3.8-flash",
        prompt=prompts,
        max_tokens=200,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, reasons, usage = [""] * 10, [None] * 10, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert all(f"word{number}" in text for number, text in enumerate(texts))
    assert reasons == ["stop"] * 10
    assert usage.prompt_tokens >= 30


def test_echo_and_tokens(client):
    reply = client.completions.create(
        model="gemini-2.5-flash", prompt=[15339, 1917], echo=True, max_tokens=50
    )
    assert reply.choices[0].text.startswith("hello world")


def test_probabilities(strict):
    reply = strict.completions.create(
        model="gemini-2.5-flash", prompt="the word is gorse", logprobs=2, max_tokens=100
    )
    logprobs = reply.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) > 0
    assert len(logprobs.top_logprobs) == len(logprobs.tokens)
    assert logprobs.text_offset[0] == 0


@pytest.mark.parametrize(
    "body, param",
    [
        ({"suffix": "b"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
    ],
)
def test_what_cannot_be_done_is_refused(client, body, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "gemini-2.5-flash", "prompt": "a", **body})
    assert refused.value.param == param
