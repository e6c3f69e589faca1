"""instructor in the modes that speak Chat Completions."""

import pytest

instructor = pytest.importorskip("instructor")

import openai  # noqa: E402
from pydantic import BaseModel  # noqa: E402


class Person(BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA"])
@pytest.mark.parametrize("streams", [False, True])
def test_an_object(gateway, mode, streams):
    plain = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", max_retries=0)
    if not hasattr(instructor.Mode, mode):
        pytest.skip("this release has no such mode")
    client = instructor.from_openai(plain, mode=getattr(instructor.Mode, mode))
    messages = [{"role": "user", "content": "The person is called Ada and is 36 years old."}]
    if mode == "JSON":
        pytest.skip("the simulator makes up JSON without a schema")
    if streams:
        *_, person = client.chat.completions.create_partial(
            model="gemini-3.8-flash", messages=messages, response_model=Person
        )
    else:
        person = client.chat.completions.create(
            model="gemini-3.8-flash", messages=messages, response_model=Person, max_retries=0
        )
    assert isinstance(person.age, int) and person.name
