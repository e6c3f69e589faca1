"""LangChain's embeddings, which send tokens instead of text unless they are told not to."""

import hashlib
import os
import pathlib
import shutil

import pytest

pytest.importorskip("langchain_openai")

from langchain_openai import OpenAIEmbeddings  # noqa: E402

# Where tiktoken fetches LangChain's usual table.
TABLE = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
TEXTS = ["the word is gorse", "a second text, with a comma", "größer – 猫"]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The same table from the crate that the gateway is built with: tests fetch nothing from strangers."""
    pytest.importorskip("tiktoken")
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    found = sorted(home.glob("registry/src/*/tiktoken-rs-*/assets/cl100k_base.tiktoken"))
    if not found:
        pytest.skip("the crate's table is not on this machine")
    shutil.copy(found[-1], tmp_path / hashlib.sha1(TABLE.encode()).hexdigest())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))


@pytest.fixture
def embeddings(gateway):
    def make(model="gemini-embedding-001", **options):
        return OpenAIEmbeddings(
            base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", model=model, dimensions=256, max_retries=0, **options
        )

    return make


def near(left, right):
    return len(left) == len(right) and all(abs(a - b) < 1e-6 for a, b in zip(left, right))


def test_tokens_give_the_vectors_of_their_texts(embeddings, table):
    plain = embeddings(check_embedding_ctx_length=False).embed_documents(TEXTS)
    tokens = embeddings().embed_documents(TEXTS)
    assert len(plain) == len(tokens) == len(TEXTS)
    assert all(near(left, right) for left, right in zip(plain, tokens))


@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2"])
def test_texts_as_they_are(embeddings, model):
    client = embeddings(model, check_embedding_ctx_length=False)
    vectors = client.embed_documents(TEXTS)
    assert [len(vector) for vector in vectors] == [256] * len(TEXTS)
    assert near(client.embed_query(TEXTS[1]), vectors[1])
    many = [f"text number {number}" for number in range(300)]
    assert len(client.embed_documents(many, chunk_size=150)) == 300


async def test_texts_at_once(embeddings):
    client = embeddings(check_embedding_ctx_length=False)
    assert near(await client.aembed_query(TEXTS[0]), client.embed_query(TEXTS[0]))
