"""Google's own SDK with nothing changed but the base URL, on the paths of the Gemini API and of Vertex AI."""

import asyncio
import json
import time

import pytest

genai = pytest.importorskip("google.genai")

from google.auth import credentials as auth  # noqa: E402
from google.genai import errors, types  # noqa: E402

from conftest import KEY  # noqa: E402

MODEL = "gemini-2.5-flash"
LONG = "The gateway keeps this sentence in a cache for a while. " * 400


class Token(auth.Credentials):
    """A token that is always good: the key of the gateway."""

    def __init__(self, token):
        super().__init__()
        self.token = token

    def refresh(self, request):
        pass

    @property
    def expired(self):
        return False

    @property
    def valid(self):
        return True


def gemini(url, key="canary-of-nobody", **options):
    return genai.Client(api_key=key, http_options={"base_url": url, **options})


def vertex(url, token="canary-of-nobody"):
    return genai.Client(
        vertexai=True,
        project="some-project",
        location="us-central1",
        credentials=Token(token),
        http_options={"base_url": url},
    )


@pytest.fixture(params=["gemini", "vertex"])
def google(request, gateway):
    return (gemini if request.param == "gemini" else vertex)(gateway.url)


@pytest.fixture
def studio(gateway):
    return gemini(gateway.url)


def test_generate(google):
    answer = google.models.generate_content(model=MODEL, contents="Say hello.")
    assert "Say hello." in answer.text
    assert answer.usage_metadata.total_token_count > 0
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP


def test_stream(google):
    chunks = list(google.models.generate_content_stream(model=MODEL, contents="write 40 words"))
    assert len(chunks) > 3
    assert "".join(chunk.text or "" for chunk in chunks).startswith("word1 word2")
    assert chunks[-1].usage_metadata.candidates_token_count >= 40


def test_chat(google):
    chat = google.chats.create(model=MODEL)
    assert "one" in chat.send_message("one").text
    assert "two" in chat.send_message("two").text
    assert len(chat.get_history()) == 4


def test_functions_are_called_by_the_sdk(google):
    asked = []

    def get_weather(city: str) -> dict:
        """Tells the weather in a city."""
        asked.append(city)
        return {"weather": "sunny"}

    config = types.GenerateContentConfig(tools=[get_weather])
    answer = google.models.generate_content(
        model="gemini-3.8-flash", contents="What is the weather in Paris? Use get_weather.", config=config
    )
    assert asked and "sunny" in answer.text


def test_a_schema_is_filled(google):
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    config = {"response_mime_type": "application/json", "response_schema": Person}
    answer = google.models.generate_content(model=MODEL, contents="Ann is 31.", config=config)
    assert isinstance(answer.parsed, Person)


def test_tokens_are_counted(google):
    assert google.models.count_tokens(model=MODEL, contents="one two three").total_tokens == 3


def test_tokens_are_computed(gateway):
    client = vertex(gateway.url)
    info = client.models.compute_tokens(model=MODEL, contents="one two").tokens_info
    assert len(info[0].tokens) == 2


def test_embeddings(google):
    got = google.models.embed_content(
        model="gemini-embedding-001", contents=["a", "b"], config={"output_dimensionality": 8}
    )
    assert [len(item.values) for item in got.embeddings] == [8, 8]


def test_async(google):
    async def ask():
        answer = await google.aio.models.generate_content(model=MODEL, contents="hi")
        chunks = await google.aio.models.generate_content_stream(model=MODEL, contents="write 40 words")
        return answer.text, [chunk async for chunk in chunks]

    text, chunks = asyncio.run(ask())
    assert "hi" in text and len(chunks) > 3


def test_tuned_models(gateway):
    client, placed = gemini(gateway.url), vertex(gateway.url)
    assert "hi" in client.models.generate_content(model="tunedModels/sim-mine", contents="hi").text
    assert [model.name for model in client.models.list(config={"query_base": False})] == ["tunedModels/sim-tuned"]
    endpoint = "projects/some-project/locations/us-central1/endpoints/123"
    assert "hi" in placed.models.generate_content(model=endpoint, contents="hi").text
    with pytest.raises(errors.ClientError) as denied:
        client.models.generate_content(model="tunedModels/nobodys", contents="hi")
    assert denied.value.code == 403


def test_caches(google):
    config = types.CreateCachedContentConfig(
        contents=[types.Content(role="user", parts=[types.Part(text=LONG)])], ttl="600s", display_name="notes"
    )
    cache = google.caches.create(model=MODEL, config=config)
    assert google.caches.get(name=cache.name).display_name == "notes"
    answer = google.models.generate_content(
        model=MODEL, contents="And now?", config={"cached_content": cache.name}
    )
    assert answer.usage_metadata.cached_content_token_count == cache.usage_metadata.total_token_count
    assert answer.usage_metadata.prompt_token_count > answer.usage_metadata.cached_content_token_count
    later = google.caches.update(name=cache.name, config={"ttl": "1200s"})
    assert later.expire_time > cache.expire_time
    assert cache.name in [listed.name for listed in google.caches.list(config={"page_size": 1})]
    google.caches.delete(name=cache.name)
    with pytest.raises(errors.ClientError):
        google.caches.get(name=cache.name)


def test_files(studio, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"n" * 20_000_000)
    file = studio.files.upload(file=path, config={"mime_type": "text/plain", "display_name": "Notes"})
    assert (file.size_bytes, file.state) == (20_000_000, types.FileState.ACTIVE)
    answer = studio.models.generate_content(model=MODEL, contents=["Read this.", file])
    assert "document" in answer.text
    assert file.name in [listed.name for listed in studio.files.list()]
    assert studio.files.get(name=file.name).display_name == "Notes"
    studio.files.delete(name=file.name)
    with pytest.raises(errors.ClientError):
        studio.models.generate_content(model=MODEL, contents=["Read this.", file])


def test_a_video_is_looked_at_first(studio, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"f" * 1000)
    file = studio.files.upload(file=path, config={"mime_type": "video/mp4"})
    assert file.state == types.FileState.PROCESSING
    deadline = time.monotonic() + 10
    while file.state != types.FileState.ACTIVE and time.monotonic() < deadline:
        time.sleep(0.1)
        file = studio.files.get(name=file.name)
    assert file.state == types.FileState.ACTIVE


def test_models(google):
    names = [model.name for model in google.models.list(config={"page_size": 7})]
    name = google.models.get(model=MODEL).name
    assert name in names and name.endswith(f"models/{MODEL}")


def done(studio, job):
    deadline = time.monotonic() + 10
    while job.state != types.JobState.JOB_STATE_SUCCEEDED and time.monotonic() < deadline:
        time.sleep(0.1)
        job = studio.batches.get(name=job.name)
    return job


def test_batches(studio):
    job = studio.batches.create(
        model=MODEL,
        src=[{"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}],
        config={"display_name": "one"},
    )
    job = done(studio, job)
    assert "hi" in job.dest.inlined_responses[0].response.text
    studio.batches.delete(name=job.name)


def test_a_batch_of_a_file(studio, tmp_path):
    path = tmp_path / "requests.jsonl"
    asks = [{"key": f"k{n}", "request": {"contents": [{"parts": [{"text": f"number {n}"}]}]}} for n in range(3)]
    asks.append({"key": "bad", "request": {"nothing": 1}})
    path.write_text("\n".join(map(json.dumps, asks)))
    file = studio.files.upload(file=path, config={"mime_type": "application/jsonl"})
    job = done(studio, studio.batches.create(model=MODEL, src=file.name))
    lines = studio.files.download(file=job.dest.file_name).decode().splitlines()
    said = {line["key"]: line for line in map(json.loads, lines)}
    assert "number 1" in said["k1"]["response"]["candidates"][0]["content"]["parts"][0]["text"]
    assert said["bad"]["error"]["code"] == 3 and len(said) == 4
    with pytest.raises(errors.ClientError):
        studio.files.download(file=file.name)


def test_webhooks(studio):
    made = studio.webhooks.create(
        name="mine", uri="https://example.com/hook", subscribed_events=["interaction.completed"]
    )
    assert made.new_signing_secret.startswith("whsec_")
    changed = studio.webhooks.update(
        made.id, subscribed_events=["batch.failed"], update_mask="subscribed_events"
    )
    assert changed.subscribed_events == ["batch.failed"]
    studio.webhooks.ping(made.id)
    assert studio.webhooks.rotate_signing_secret(made.id).secret != made.new_signing_secret
    assert made.id in [hook.id for hook in studio.webhooks.list().webhooks]
    studio.webhooks.delete(made.id)
    with pytest.raises(Exception, match="not"):
        studio.webhooks.get(made.id)


def test_interactions(studio):
    first = studio.interactions.create(model="gemini-3.8-flash", input="My name is Ann.")
    assert first.status == "completed"
    assert first.usage.total_tokens > 0
    second = studio.interactions.create(
        model="gemini-3.8-flash", input="And now?", previous_interaction_id=first.id
    )
    assert second.usage.total_input_tokens > first.usage.total_input_tokens
    assert studio.interactions.get(first.id).id == first.id
    studio.interactions.delete(first.id)
    with pytest.raises(Exception, match="not"):
        studio.interactions.get(first.id)


def test_interactions_stream(studio):
    events = list(studio.interactions.create(model="gemini-3.8-flash", input="one two three", stream=True))
    kinds = [event.event_type for event in events]
    assert kinds[0] == "interaction.created" and "step.delta" in kinds
    assert kinds[-1] == "interaction.completed"
    again = studio.interactions.get(events[0].interaction.id, stream=True, last_event_id=events[2].event_id)
    assert [event.event_id for event in again] == [event.event_id for event in events[3:]]


def test_interactions_of_agents_and_tools(studio):
    agent = studio.interactions.create(agent="deep-research-preview-04-2026", input="find", background=True)
    assert studio.interactions.cancel(agent.id).status == "cancelled"
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    asked = studio.interactions.create(model="gemini-3.8-flash", input="Call weather.", tools=[tool])
    call = next(step for step in asked.steps if step.type == "function_call")
    result = {"type": "function_result", "call_id": call.id, "name": "weather", "result": {"sky": "blue"}}
    told = studio.interactions.create(
        model="gemini-3.8-flash", previous_interaction_id=asked.id, input=[result], tools=[tool]
    )
    assert (asked.status, told.status) == ("requires_action", "completed") and "blue" in told.output_text


def test_interactions_in_the_background(studio):
    made = studio.interactions.create(model="gemini-3.8-flash", input="later", background=True)
    assert made.status == "in_progress"
    deadline = time.monotonic() + 10
    while made.status == "in_progress" and time.monotonic() < deadline:
        time.sleep(0.1)
        made = studio.interactions.get(made.id)
    assert made.status == "completed"


def test_errors_are_googles(closed):
    # A client that nobody holds closes itself.
    stranger, known, placed = gemini(closed.url, "wrong"), gemini(closed.url, KEY), vertex(closed.url, KEY)
    with pytest.raises(errors.ClientError) as wrong:
        stranger.models.generate_content(model=MODEL, contents="hi")
    assert (wrong.value.code, wrong.value.status) == (401, "UNAUTHENTICATED")
    with pytest.raises(errors.ClientError) as lost:
        known.models.generate_content(model="no-such-model", contents="hi")
    assert (lost.value.code, lost.value.status) == (404, "NOT_FOUND")
    assert "hi" in placed.models.generate_content(model=MODEL, contents="hi").text


def test_faults_pass_through(studio):
    with pytest.raises(errors.ClientError) as busy:
        studio.models.generate_content(model="sim-429-60s", contents="hi")
    assert busy.value.code == 429
    with pytest.raises(Exception):
        list(studio.models.generate_content_stream(model="sim-reset", contents="hi"))
    with pytest.raises(errors.APIError):
        list(studio.models.generate_content_stream(model="sim-error-mid", contents="hi"))
