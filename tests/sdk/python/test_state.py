"""What is kept between requests: responses, background work, conversations."""

import time

import openai
import pytest
from conftest import land, launch

MODEL = "gemini-3.8-flash"
LONG = "Count slowly from one to one hundred, with a sentence for each number, please. " * 25

CONFIG = """
[store]
url = "sqlite:state.db"

[simulator]
time_to_first_token = "10ms"
tokens_per_second = 200
"""


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    (folder / "gemway.toml").write_text(CONFIG)
    started = launch(folder, GEMWAY_CONFIG=str(folder / "gemway.toml"))
    yield started
    land(started)


@pytest.fixture(params=[False, True], ids=["lax", "strict"])
def kept(keeping, request):
    with openai.OpenAI(
        base_url=f"{keeping.url}/v1",
        api_key="canary-of-nobody",
        max_retries=0,
        timeout=30,
        _strict_response_validation=request.param,
    ) as made:
        yield made


def until_over(client, response):
    deadline = time.monotonic() + 30
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline, response
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


def test_a_response_is_retrieved_continued_and_deleted(kept):
    first = kept.responses.create(model=MODEL, input="My name is Ada.", metadata={"k": "v"})
    again = kept.responses.retrieve(first.id, include=["reasoning.encrypted_content"])
    assert again.model_dump() == first.model_dump()
    assert again.output_text and again.metadata == {"k": "v"}
    second = kept.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    kept.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        kept.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as refused:
        kept.responses.create(model=MODEL, input="?", previous_response_id=first.id)
    assert refused.value.code == "previous_response_not_found"


def test_input_items_come_in_pages(kept):
    said = [{"role": "user", "content": f"message {number}"} for number in range(5)]
    response = kept.responses.create(model=MODEL, input=said)
    items = list(kept.responses.input_items.list(response.id, limit=2, order="asc"))
    assert [item.content[0].text for item in items] == [one["content"] for one in said]
    newest = kept.responses.input_items.list(response.id, limit=1)
    assert newest.data[0].content[0].text == "message 4" and newest.has_more
    after = kept.responses.input_items.list(response.id, order="asc", after=items[3].id)
    assert [item.id for item in after.data] == [items[4].id]


def test_background_work_is_polled(kept):
    response = kept.responses.create(model=MODEL, input="Tell me something.", background=True)
    assert response.status == "queued" and response.output == []
    response = until_over(kept, response)
    assert response.status == "completed" and response.output_text
    assert response.usage.total_tokens > 0


def test_background_work_is_followed_again_where_it_was_left(kept):
    seen = []
    with kept.responses.create(model=MODEL, input=LONG, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    identity, last = seen[0].response.id, seen[-1].sequence_number
    rest = list(kept.responses.retrieve(identity, stream=True, starting_after=last))
    numbers = [event.sequence_number for event in seen + rest]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"
    whole = kept.responses.retrieve(identity)
    assert whole.output_text == rest[-1].response.output_text
    text = "".join(event.delta for event in seen + rest if event.type == "response.output_text.delta")
    assert text == whole.output_text


def test_the_stream_helper_resumes(kept):
    queued = kept.responses.create(model=MODEL, input=LONG, background=True, stream=True)
    first = next(iter(queued))
    queued.close()
    with kept.responses.stream(response_id=first.response.id, starting_after=4) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers[0] == 5 and final.status == "completed" and final.output_text


def test_background_work_is_cancelled(kept):
    response = kept.responses.create(model=MODEL, input=LONG, background=True)
    cancelled = kept.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    assert kept.responses.cancel(response.id).model_dump() == cancelled.model_dump()
    waited = kept.responses.create(model=MODEL, input="Hello")
    with pytest.raises(openai.BadRequestError):
        kept.responses.cancel(waited.id)


def test_conversations_and_their_items(kept):
    conversation = kept.conversations.create(
        items=[{"type": "message", "role": "user", "content": "Hello"}], metadata={"topic": "a"}
    )
    assert conversation.object == "conversation" and conversation.metadata == {"topic": "a"}
    response = kept.responses.create(model=MODEL, input="And now?", conversation=conversation.id)
    assert response.conversation.id == conversation.id
    items = list(kept.conversations.items.list(conversation.id, order="asc", limit=1))
    assert [item.role for item in items if item.type == "message"] == ["user", "user", "assistant"]
    added = kept.conversations.items.create(
        conversation.id, items=[{"type": "message", "role": "user", "content": "More"}]
    )
    one = kept.conversations.items.retrieve(added.data[0].id, conversation_id=conversation.id)
    assert one.content[0].text == "More"
    assert kept.conversations.items.delete(one.id, conversation_id=conversation.id).id == conversation.id
    with pytest.raises(openai.NotFoundError):
        kept.conversations.items.retrieve(one.id, conversation_id=conversation.id)
    assert kept.conversations.update(conversation.id, metadata={"topic": "b"}).metadata == {"topic": "b"}
    assert kept.conversations.retrieve(conversation.id).metadata == {"topic": "b"}
    assert kept.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        kept.conversations.retrieve(conversation.id)


def test_without_a_store_that_is_said(client):
    response = client.responses.create(model=MODEL, input="Hello")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="?", previous_response_id=response.id)
    assert "[store]" in refused.value.message
    with pytest.raises(openai.BadRequestError) as refused:
        client.conversations.create()
    assert refused.value.code == "store_not_configured"
    # An item can still be named, for a while.
    named = [{"type": "item_reference", "id": response.output[-1].id}, {"role": "user", "content": "And?"}]
    hello = {"role": "user", "content": "Hello"}
    assert client.responses.create(model=MODEL, input=[hello, *named]).output_text


def test_a_tool_turn_goes_on_from_the_response_before(kept):
    tool = {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": False,
    }
    first = kept.responses.create(model=MODEL, input="Use get_weather for Oslo, please.", tools=[tool])
    (call,) = [item for item in first.output if item.type == "function_call"]
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    asked = {"model": MODEL, "input": [answer], "tools": [tool], "previous_response_id": first.id}
    if hasattr(kept.responses, "input_tokens"):
        alone = kept.responses.input_tokens.count(model=MODEL, input="And?")
        with_history = kept.responses.input_tokens.count(
            model=MODEL, input="And?", previous_response_id=kept.responses.create(**asked).id
        )
        assert with_history.input_tokens > alone.input_tokens
    assert "12 degrees" in kept.responses.create(**asked).output_text
    with kept.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        assert "12 degrees" in stream.get_final_response().output_text


def test_what_a_client_left_in_the_middle_of_is_kept_as_cancelled(kept):
    with kept.responses.create(model=MODEL, input=LONG, stream=True) as stream:
        for event in stream:
            if event.type == "response.created":
                identity = event.response.id
            if event.type == "response.output_text.delta":
                break
    # That it left is heard a moment later: until then the answer is still under way, and for a moment nowhere.
    deadline = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline
        try:
            left = kept.responses.retrieve(identity)
            if left.status != "in_progress":
                break
        except openai.NotFoundError:
            pass
        time.sleep(0.05)
    assert left.status == "cancelled" and left.output_text
    assert left.output[-1].status == "incomplete"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"content": "x"}, "items[1].role"),
        ({"type": "message", "role": "user"}, "items[1].content"),
        ({"role": "narrator", "content": "x"}, "items[1].role"),
        ("x", "items[1]"),
    ],
)
def test_a_conversation_takes_no_item_that_would_spoil_it(kept, item, param):
    conversation = kept.conversations.create()
    items = [{"role": "user", "content": "hello"}, item]
    with pytest.raises(openai.BadRequestError) as refused:
        kept.conversations.items.create(conversation.id, items=items)
    assert refused.value.param == param
    with pytest.raises(openai.BadRequestError) as refused:
        kept.post(f"/conversations/{conversation.id}", body={}, cast_to=object)
    assert refused.value.param == "metadata"
    for wrong in (5, {}, ""):
        with pytest.raises(openai.BadRequestError) as refused:
            kept.responses.create(model=MODEL, input="x", extra_body={"conversation": wrong})
        assert refused.value.param == "conversation"
    assert not list(kept.conversations.items.list(conversation.id))


def test_a_compacted_chain_and_conversation(kept):
    if not hasattr(kept.responses, "compact"):
        pytest.skip("this SDK cannot ask")
    conversation = kept.conversations.create()
    first = kept.responses.create(model=MODEL, input="the word is gorse")
    kept.responses.create(model=MODEL, input="the word is furze", conversation=conversation.id)
    said = "the word is broom"
    short = kept.responses.compact(model=MODEL, input=said)
    for before in ({"previous_response_id": first.id}, {"extra_body": {"conversation": conversation.id}}):
        long = kept.responses.compact(model=MODEL, input=said, **before)
        # What stood before was read too.
        assert long.usage.input_tokens > short.usage.input_tokens + 5
        (compaction,) = long.output
        assert compaction.type == "compaction" and compaction.encrypted_content
        carried = [compaction.model_dump(exclude_none=True), {"role": "user", "content": "the word is heath"}]
        assert "heath" in kept.responses.create(model=MODEL, input=carried).output_text
        kept.responses.compact(model=MODEL, **before)
    with pytest.raises(openai.BadRequestError) as refused:
        kept.responses.compact(model=MODEL, previous_response_id="resp_none")
    assert refused.value.code == "previous_response_not_found"


def test_a_response_says_when_it_was_completed(kept):
    made = kept.responses.create(model=MODEL, input="Hello")
    assert made.created_at <= made.to_dict()["completed_at"] <= time.time() + 1
    queued = kept.responses.create(model=MODEL, input="Hello", background=True)
    assert queued.to_dict()["completed_at"] is None
    assert until_over(kept, queued).to_dict()["completed_at"] >= queued.created_at


def test_a_response_can_be_asked_for_while_its_client_is_told_it(kept):
    with kept.responses.create(model=MODEL, input=LONG, stream=True) as stream:
        events = iter(stream)
        identity = next(events).response.id
        going = kept.responses.retrieve(identity)
        assert going.status == "in_progress" and going.output == []
        with pytest.raises(openai.BadRequestError):
            kept.responses.cancel(identity)
        with pytest.raises(openai.BadRequestError) as refused:
            kept.responses.create(model=MODEL, input="?", previous_response_id=identity)
        assert "not finished" in refused.value.message
        last = list(events)[-1]
    assert last.type == "response.completed"
    assert kept.responses.retrieve(identity).status == "completed"

    with kept.responses.create(model=MODEL, input=LONG, stream=True) as stream:
        events = iter(stream)
        identity = next(events).response.id
        kept.responses.delete(identity)
        assert list(events)[-1].type == "response.completed"
    with pytest.raises(openai.NotFoundError):
        kept.responses.retrieve(identity)
