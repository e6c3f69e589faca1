"""What strangers send: every row is refused in words, before Google hears of it, or is served as promised."""

import base64
import http.client
import http.server
import json
import re
import threading
import time
import urllib.parse

import pytest

from conftest import land, launch

GOOGLE_KEY = "AIzaCANARYgoogle0123456789"
CLIENT_KEY = "sk-CANARYclient-0123456789abcdef"
MODEL = "gemini-2.5-flash"
BAD = "invalid_request_error"


def told(reason="STOP", parts=({"text": "Hello."},), **more):
    body = {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0}]}
    if reason:
        body["candidates"][0]["finishReason"] = reason
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    return body | {"usageMetadata": usage, "modelVersion": MODEL, "responseId": "r1"} | more


class Google(http.server.BaseHTTPRequestHandler):
    """Keeps what it was told and answers as the table says, by the model's name."""

    protocol_version = "HTTP/1.1"
    heard: list = []
    script: dict = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.heard.append((self.path, dict(self.headers), body))
        model = self.path.rpartition("/")[2].partition(":")[0]
        answer = self.script.get(model, told())
        kind = "text/event-stream" if "stream" in self.path else "application/json"
        if "mbed" in self.path and model not in self.script:
            count = len(json.loads(body).get("requests", [0]))
            answer = {"embeddings": [{"values": [0.5, -0.25]}] * count}
        if isinstance(answer, tuple):
            status, head, answer = answer
        else:
            status, head = 200, {}
        if isinstance(answer, list) and kind == "text/event-stream":
            answer = "".join(f"data: {json.dumps(event)}\r\n\r\n" for event in answer)
        elif isinstance(answer, list):
            answer = answer[-1]
        elif isinstance(answer, dict) and kind == "text/event-stream" and status == 200:
            answer = f"data: {json.dumps(answer)}\r\n\r\n"
        if not isinstance(answer, (str, bytes)):
            answer = json.dumps(answer)
        answer = answer if isinstance(answer, bytes) else answer.encode()
        self.send_response(status)
        for name, value in ({"content-type": kind} | head).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_):
        pass


class Scene:
    def __init__(self, folder):
        self.google = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google)
        threading.Thread(target=self.google.serve_forever, daemon=True).start()
        self.folder = folder
        (folder / "gemway.toml").write_text('[store]\nurl = "memory:"\n')
        self.gateway = launch(
            folder,
            GEMINI_API_KEY=GOOGLE_KEY,
            GOOGLE_GEMINI_BASE_URL=f"http://127.0.0.1:{self.google.server_port}",
            GEMWAY_API_KEYS=CLIENT_KEY,
            GEMWAY_CONFIG=str(folder / "gemway.toml"),
        )
        self.address = urllib.parse.urlparse(self.gateway.url).netloc

    def send(self, path, body, headers=None, method="POST"):
        if not isinstance(body, (bytes, type(None))):
            body = (body if isinstance(body, str) else json.dumps(body)).encode()
        head = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"}
        head = head if headers is None else {"content-type": "application/json"} | headers
        link = http.client.HTTPConnection(self.address, timeout=20)
        link.request(method, path, body, head)
        answer = link.getresponse()
        text = answer.read()
        link.close()
        assert answer.getheader("x-request-id")
        assert b"CANARY" not in text and "CANARY" not in str(answer.getheaders())
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("attacked"))
    yield made
    land(made.gateway)
    made.google.shutdown()
    log = made.gateway.log.read_text()
    assert "CANARY" not in log and "panicked" not in log


def refused(answer, status, code, param, kind=BAD):
    got, _, text = answer
    assert got == status, text[:500]
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["message"] and len(error["message"]) < 2000
    assert (error["type"], error["code"], error["param"]) == (kind, code, param), error


def chat(**more):
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]} | more


def said(*content, **more):
    return chat(messages=[{"role": "user", "content": list(content)}], **more)


def nested(depth):
    return "[" * depth + "]" * depth


def raw(text):
    return '{"model":"%s","messages":[{"role":"user","content":"Hi"}],%s}' % (MODEL, text)


def tool(name="f", **more):
    return {"type": "function", "function": {"name": name} | more}


def image(url):
    return said({"type": "image_url", "image_url": {"url": url}})


def without(body, name):
    return {key: value for key, value in body.items() if key != name}


LONG = "x" * (1 << 20)
HI = '"messages":[{"role":"user","content":"Hi"}]'
CHAT = [
    ("b1-empty", b"", 400, None, None),
    ("b2-open", "{", 400, None, None),
    ("b2-comma", raw('"n":1,'), 400, None, None),
    ("b2-comment", raw('"n":1 /* one */'), 400, None, None),
    ("b2-nan", raw('"temperature":NaN'), 400, None, None),
    ("b2-bom", b"\xef\xbb\xbf" + json.dumps(chat()).encode(), 400, None, None),
    ("b2-quotes", "{'model':'m'}", 400, None, None),
    ("b2-after", json.dumps(chat()) + "{}", 400, None, None),
    ("b3-bytes", b'{"model":"\xff\xfe"}', 400, None, None),
    ("b3-surrogate", raw('"user":"\\ud800"'), 400, "invalid_value", "user"),
    ("b3-surrogate-told", '{"model":"%s","messages":[{"role":"user","content":"\\ud800"}]}' % MODEL, 400, "invalid_value", "messages[0].content"),
    ("b4-array", "[]", 400, None, None),
    ("b4-string", '"x"', 400, None, None),
    ("b4-number", "5", 400, None, None),
    ("b4-null", "null", 400, None, None),
    ("b5-unknown", raw('"x":' + nested(65)), 400, "json_too_deep", None),
    ("b5-extra", raw('"extra_body":{"google":' + nested(64) + "}"), 400, "json_too_deep", None),
    (
        "b5-schema",
        raw('"tools":[{"type":"function","function":{"name":"f","parameters":{"x":' + nested(64) + "}}}]"),
        400,
        "json_too_deep",
        None,
    ),
    ("b6", nested(100_000), 400, "json_too_deep", None),
    ("b7", raw('"x":[' + ",".join(["{}"] * 1_000_000) + "]"), 400, "json_too_large", None),
    ("b8", '{"model":"a","model":"b",%s}' % HI, 400, "duplicate_parameter", "model"),
    ("b8-inner", '{"model":"a","messages":[{"role":"user","role":"system","content":"x"}]}', 400, "duplicate_parameter", "messages[0].role"),
    ("b9-huge", raw('"temperature":1e400'), 400, "invalid_value", "temperature"),
    ("b9-long", raw('"max_tokens":' + "1" * 30), 400, "invalid_type", "max_tokens"),
    ("b9-digits", raw('"seed":' + "1" * (1 << 20)), 400, "invalid_value", "seed"),
    ("b10", chat(metadata={f"k{i}": "v" for i in range(90_000)}), 400, "object_above_max_properties", "metadata"),
    ("b10-key", chat(metadata={"k" * 65: "v"}), 400, "string_above_max_length", "metadata"),
    ("b10-value", chat(metadata={"k": "v" * 513}), 400, "string_above_max_length", "metadata"),
    ("b10-type", chat(metadata={"k": 1}), 400, "invalid_type", "metadata.k"),
    ("b11", "{%s}" % HI, 400, "missing_required_parameter", "model"),
    ("b12-number", chat(model=5), 400, "invalid_type", "model"),
    ("b12-null", chat(model=None), 400, "invalid_type", "model"),
    ("b12-empty", chat(model=""), 400, "invalid_value", "model"),
    ("b12-long", chat(model="m" * 10_240), 400, "invalid_value", "model"),
    ("b12-path", chat(model="../../x"), 400, "invalid_value", "model"),
    ("b12-query", chat(model="a/b?key="), 400, "invalid_value", "model"),
    ("b12-gemini-path", chat(model="gemini-2.5-flash/../../x"), 400, "invalid_value", "model"),
    ("b12-gemini-query", chat(model="gemini-2.5-flash?key=1#x"), 400, "invalid_value", "model"),
    ("b12-newline", chat(model="gemini-2.5\r\nx: y"), 400, "invalid_value", "model"),
    ("b12-escape", chat(model="gemini-%2e%2e%2f"), 400, "invalid_value", "model"),
    ("b15-missing", {"model": MODEL}, 400, "missing_required_parameter", "messages"),
    ("b15-empty", chat(messages=[]), 400, "empty_array", "messages"),
    ("b15-object", chat(messages={}), 400, "invalid_type", "messages"),
    ("b16-none", chat(messages=[{"content": "x"}]), 400, "missing_required_parameter", "messages[0].role"),
    ("b16-role", chat(messages=[{"role": "wizard", "content": "x"}]), 400, "invalid_value", "messages[0].role"),
    ("b16-null", chat(messages=[{"role": "user", "content": None}]), 400, "invalid_value", "messages[0].content"),
    ("b16-string", chat(messages=["x"]), 400, "invalid_type", "messages[0]"),
    ("b17", said({"type": "hologram"}), 400, "invalid_value", "messages[0].content[0].type"),
    ("b17-untyped", said({"text": "x"}), 400, "missing_required_parameter", "messages[0].content[0].type"),
    ("b17-string", said("x"), 400, "invalid_type", "messages[0].content[0]"),
    ("b19-high", chat(temperature=3), 400, "decimal_above_max_value", "temperature"),
    ("b19-string", chat(temperature="hot"), 400, "invalid_type", "temperature"),
    ("b19-low", chat(temperature=-1), 400, "decimal_below_min_value", "temperature"),
    ("b19-top-p", chat(top_p=1.5), 400, "decimal_above_max_value", "top_p"),
    ("b20-zero", chat(max_tokens=0), 400, "integer_below_min_value", "max_tokens"),
    ("b20-below", chat(max_tokens=-1), 400, "integer_below_min_value", "max_tokens"),
    ("b20-half", chat(max_tokens=100.5), 400, "invalid_type", "max_tokens"),
    ("b20-string", chat(max_tokens="100"), 400, "invalid_type", "max_tokens"),
    ("b22", chat(n=129), 400, "integer_above_max_value", "n"),
    ("b22-zero", chat(n=0), 400, "integer_below_min_value", "n"),
    ("b23", chat(stream="true"), 400, "invalid_type", "stream"),
    ("b24-empty", chat(stop=""), 400, "invalid_value", "stop"),
    ("b24-inner", chat(stop=["a", ""]), 400, "invalid_value", "stop[1]"),
    ("b24-number", chat(stop=5), 400, "invalid_type", "stop"),
    ("b26-none", chat(tools=[{"type": "function", "function": {}}]), 400, "missing_required_parameter", "tools[0].function.name"),
    ("b26-many", chat(tools=[tool(f"f{i}") for i in range(129)]), 400, "array_above_max_length", "tools"),
    ("b26-twice", chat(tools=[tool("f"), tool("f")]), 400, "invalid_value", "tools[1].function.name"),
    ("b26-type", chat(tools=[{"type": "magic"}]), 400, "invalid_value", "tools[0].type"),
    ("b26-null", chat(tools=[None]), 400, "invalid_type", "tools[0]"),
    (
        "b27-remote",
        chat(tools=[tool(parameters={"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:1/x.json"}}})]),
        400,
        "invalid_function_parameters",
        "tools[0].function.parameters",
    ),
    ("b27-array", chat(tools=[tool(parameters=[])]), 400, "invalid_function_parameters", "tools[0].function.parameters"),
    ("b27-type", chat(tools=[tool(parameters={"type": "nonsense"})]), 400, "invalid_function_parameters", "tools[0].function.parameters"),
    ("b28", chat(messages=[{"role": "tool", "tool_call_id": "c", "content": "x"}]), 400, "invalid_value", "messages[0].tool_call_id"),
    ("b29", chat(messages=[
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{no"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]), 400, "invalid_value", "messages[1].tool_calls[0].function.arguments"),
    ("b30-none", chat(response_format={"type": "json_schema"}), 400, "missing_required_parameter", "response_format.json_schema"),
    ("b30-type", chat(response_format={"type": "xml"}), 400, "invalid_value", "response_format.type"),
    ("b30-schema", chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": []}}), 400, "invalid_json_schema", "response_format.json_schema.schema"),
    ("b31-base64", image("data:image/png;base64,@@@@"), 400, "invalid_image_format", "messages[0].content[0].image_url.url"),
    ("b31-mime", image("data:text/html;base64,PGh0bWw+"), 400, "invalid_image_format", "messages[0].content[0].image_url.url"),
    ("b31-empty", image("data:image/png;base64,"), 400, "invalid_image_format", "messages[0].content[0].image_url.url"),
    ("b31-svg", image("data:image/svg+xml;base64,PHN2Zz4="), 400, "invalid_image_format", "messages[0].content[0].image_url.url"),
    ("b31-html", image("data:image/png;base64,PGh0bWw+PC9odG1sPg=="), 400, "invalid_image_format", "messages[0].content[0].image_url.url"),
    ("b33", image("http://example.com/a.png"), 400, "invalid_image_url", "messages[0].content[0].image_url.url"),
    ("b39", chat(stream_options={"include_usage": True}), 400, "invalid_value", "stream_options"),
    ("b40", chat(user=LONG), 400, "string_above_max_length", "user"),
    ("b40-id", chat(safety_identifier=LONG), 400, "string_above_max_length", "safety_identifier"),
    ("b40-cache", chat(prompt_cache_key=LONG), 400, "string_above_max_length", "prompt_cache_key"),
] + [
    (f"c15-{host}", image(f"http://{host}/a.png"), 400, "invalid_image_url", "messages[0].content[0].image_url.url")
    for host in (
        "169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166", "localhost.", "0.0.0.0", "[::]",
        "[64:ff9b::a9fe:a9fe]", "127.1", "metadata.google.internal",
    )
] + [
    (f"c18-{address.partition(':')[0]}", image(address), 400, "invalid_image_url", "messages[0].content[0].image_url.url")
    for address in ("file:///etc/passwd", "gopher://127.0.0.1/", "ftp://example.com/a.png", "", "x", "gs//x")
]


@pytest.mark.parametrize(("body", "status", "code", "param"), [row[1:] for row in CHAT], ids=[row[0] for row in CHAT])
def test_chat_is_refused(scene, body, status, code, param):
    before = len(Google.heard)
    began = time.monotonic()
    refused(scene.send("/v1/chat/completions", body), status, code, param)
    assert time.monotonic() - began < 5
    assert len(Google.heard) == before, "Google was asked"


def answer(**more):
    return {"model": MODEL, "input": "Hi"} | more


def item(**more):
    return answer(input=[more])


def part(**more):
    return answer(input=[{"role": "user", "content": [more]}])


ANSWERS = [
    ("b1", b"", 400, None, None),
    ("b2", "{", 400, None, None),
    ("b3-bytes", b'{"model":"\xff"}', 400, None, None),
    ("b3-surrogate", '{"model":"m","input":"\\ud800"}', 400, "invalid_value", "input"),
    ("b4", "[]", 400, None, None),
    ("b5", '{"model":"m","input":"x","y":' + nested(65) + "}", 400, "json_too_deep", None),
    ("b6", nested(100_000), 400, "json_too_deep", None),
    ("b7", '{"model":"m","input":[' + ",".join(["{}"] * 1_000_000) + "]}", 400, "json_too_large", None),
    ("b8", '{"model":"m","input":"x","model":"n"}', 400, "duplicate_parameter", "model"),
    ("b9", '{"model":"m","input":"x","temperature":1e400}', 400, "invalid_value", "temperature"),
    ("b10", answer(metadata={f"k{i}": "v" for i in range(90_000)}), 400, "object_above_max_properties", "metadata"),
    ("b10-key", answer(metadata={"k" * 65: "v"}), 400, "string_above_max_length", "metadata"),
    ("b10-value", answer(metadata={"k": "v" * 513}), 400, "string_above_max_length", "metadata"),
    ("b10-type", answer(metadata={"k": 1}), 400, "invalid_type", "metadata.k"),
    ("b10-array", answer(metadata=[]), 400, "invalid_type", "metadata"),
    ("b11", {"input": "x"}, 400, "missing_required_parameter", "model"),
    ("b12-number", answer(model=5), 400, "invalid_type", "model"),
    ("b12-empty", answer(model=""), 400, "missing_required_parameter", "model"),
    ("b12-path", answer(model="../../x"), 400, "invalid_value", "model"),
    ("b12-query", answer(model="a/b?key="), 400, "invalid_value", "model"),
    ("b15-none", {"model": MODEL}, 400, "missing_required_parameter", "input"),
    ("b15-number", answer(input=5), 400, "invalid_type", "input"),
    ("b16", item(role="wizard", content="x"), 400, "invalid_value", "input[0].role"),
    ("b16-string", answer(input=["x"]), 400, "invalid_value", "input[0]"),
    ("b16-null", item(role="user", content=None), 400, "missing_required_parameter", "input[0].content"),
    ("b17", part(type="hologram"), 400, "invalid_value", "input[0].content[0].type"),
    ("b19-high", answer(temperature=3), 400, "decimal_above_max_value", "temperature"),
    ("b19-low", answer(temperature=-1), 400, "decimal_below_min_value", "temperature"),
    ("b19-string", answer(temperature="hot"), 400, "invalid_type", "temperature"),
    ("b19-top-p", answer(top_p=7), 400, "decimal_above_max_value", "top_p"),
    ("b20-zero", answer(max_output_tokens=0), 400, "integer_below_min_value", "max_output_tokens"),
    ("b20-string", answer(max_output_tokens="9"), 400, "invalid_type", "max_output_tokens"),
    ("b22", answer(top_logprobs=21), 400, "integer_above_max_value", "top_logprobs"),
    ("b23", answer(stream="true"), 400, "invalid_type", "stream"),
    ("b26-none", answer(tools=[{"type": "function"}]), 400, "missing_required_parameter", "tools[0].name"),
    ("b26-type", answer(tools=[{"type": "magic"}]), 400, "invalid_value", "tools[0].type"),
    ("b26-untyped", answer(tools=[{"name": "f"}]), 400, "missing_required_parameter", "tools[0].type"),
    ("b26-twice", answer(tools=[{"type": "function", "name": "f"}] * 2), 400, "invalid_value", "tools[1].name"),
    ("b26-choice", answer(tool_choice={"type": "function", "name": "f"}), 400, "invalid_value", "tool_choice.name"),
    ("b27", answer(tools=[{"type": "function", "name": "f", "parameters": {"$ref": "http://127.0.0.1:1/x"}}]), 400, "invalid_function_parameters", "tools[0].parameters"),
    ("b28", item(type="function_call_output", call_id="c", output="x"), 400, "invalid_value", "input"),
    ("b30-type", answer(text={"format": {"type": "xml"}}), 400, "invalid_value", "text.format.type"),
    ("b30-none", answer(text={"format": {"type": "json_schema", "name": "a"}}), 400, "missing_required_parameter", "text.format.schema"),
    ("b31", part(type="input_image", image_url="data:image/png;base64,@@@"), 400, "invalid_image_format", "input[0].content[0].image_url"),
    ("b31-html", part(type="input_image", image_url="data:image/png;base64,PGh0bWw+PC9odG1sPg=="), 400, "invalid_image_format", "input[0].content[0].image_url"),
    ("b33", part(type="input_image", image_url="http://example.com/a.png"), 400, "invalid_image_url", "input[0].content[0].image_url"),
    ("b39", answer(stream_options={"include_obfuscation": True}), 400, "invalid_value", "stream_options"),
    ("b40", answer(user=LONG), 400, "string_above_max_length", "user"),
    ("b40-id", answer(safety_identifier=LONG), 400, "string_above_max_length", "safety_identifier"),
    ("b40-cache", answer(prompt_cache_key=LONG), 400, "string_above_max_length", "prompt_cache_key"),
    ("c6", answer(previous_response_id="resp_0"), 400, "previous_response_not_found", "previous_response_id"),
    ("c6-path", answer(previous_response_id="../../x"), 400, "previous_response_not_found", "previous_response_id"),
    ("c6-talk", answer(conversation="conv_0"), 404, None, "conversation"),
    ("truncation", answer(truncation="maybe"), 400, "invalid_value", "truncation"),
    ("background", answer(background="yes"), 400, "invalid_type", "background"),
    ("c15", part(type="input_image", image_url="http://169.254.169.254/a.png"), 400, "invalid_image_url", "input[0].content[0].image_url"),
    ("c18", part(type="input_image", image_url="file:///etc/passwd"), 400, "invalid_image_url", "input[0].content[0].image_url"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_a_response_is_refused(scene, body, status, code, param):
    before = len(Google.heard)
    refused(scene.send("/v1/responses", body), status, code, param)
    assert len(Google.heard) == before, "Google was asked"


def vector(**more):
    return {"model": "gemini-embedding-001", "input": "Hi"} | more


VECTORS = [
    ("b1", b"", 400, None, None),
    ("b4", "[]", 400, None, None),
    ("b5", '{"model":"m","input":' + nested(65) + "}", 400, "json_too_deep", None),
    ("b8", '{"model":"m","input":"x","model":"n"}', 400, "duplicate_parameter", "model"),
    ("b11", {"input": "x"}, 400, "missing_required_parameter", "model"),
    ("b12", vector(model="../../x"), 400, "invalid_value", "model"),
    ("b12-query", vector(model="a/b?key="), 400, "invalid_value", "model"),
    ("b15", {"model": "gemini-embedding-001"}, 400, "missing_required_parameter", "input"),
    ("b35-empty", vector(input=""), 400, "invalid_value", "input"),
    ("b35-inner", vector(input=["a", ""]), 400, "invalid_value", "input[1]"),
    ("b35-none", vector(input=[]), 400, "empty_array", "input"),
    ("b35-many", vector(input=["a"] * 2049), 400, "array_above_max_length", "input"),
    ("b35-number", vector(input=5), 400, "invalid_type", "input"),
    ("b35-mixed", vector(input=["a", 5]), 400, "invalid_type", "input[1]"),
    ("b35-object", vector(input={"a": 1}), 400, "missing_required_parameter", "input.type"),
    ("b35-format", vector(encoding_format="hex"), 400, "invalid_value", "encoding_format"),
    ("b35-zero", vector(dimensions=0), 400, "integer_below_min_value", "dimensions"),
    ("b35-large", vector(dimensions=10**6), 400, "integer_above_max_value", "dimensions"),
    ("b35-token", vector(input=[-1]), 400, "invalid_type", "input[0]"),
    ("b35-token-high", vector(input=[99999999]), 400, "unsupported_tokens", "input"),
    ("b35-dimensions", vector(dimensions="many"), 400, "invalid_type", "dimensions"),
    ("b40", vector(user=LONG), 400, "string_above_max_length", "user"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), [row[1:] for row in VECTORS], ids=[row[0] for row in VECTORS])
def test_an_embedding_is_refused(scene, body, status, code, param):
    before = len(Google.heard)
    refused(scene.send("/v1/embeddings", body), status, code, param)
    assert len(Google.heard) == before, "Google was asked"


COMPLETIONS = [
    ("b34", {"model": MODEL, "prompt": [-1]}, "invalid_type", "prompt[0]"),
    ("b34-object", {"model": MODEL, "prompt": {}}, "invalid_type", "prompt"),
    ("b40", {"model": MODEL, "prompt": "x", "user": LONG}, "string_above_max_length", "user"),
    ("b12", {"model": "../../x", "prompt": "x"}, "invalid_value", "model"),
]


@pytest.mark.parametrize(("body", "code", "param"), [row[1:] for row in COMPLETIONS], ids=[row[0] for row in COMPLETIONS])
def test_a_completion_is_refused(scene, body, code, param):
    before = len(Google.heard)
    refused(scene.send("/v1/completions", body), 400, code, param)
    assert len(Google.heard) == before, "Google was asked"


GOOD = f"Bearer {CLIENT_KEY}"
STRANGERS = [
    ("c1", {}, 401),
    ("c2", {"authorization": "Bearer sk-wrong"}, 401),
    ("c2-prefix", {"authorization": GOOD[:-1]}, 401),
    ("c3-basic", {"authorization": "Basic dXNlcjpDQU5BUlk="}, 401),
    ("c3-empty", {"authorization": "Bearer "}, 401),
    ("c3-bare", {"authorization": CLIENT_KEY}, 401),
    ("c4-long", {"authorization": "Bearer " + "x" * 8000}, 401),
]


@pytest.mark.parametrize(("head", "status"), [row[1:] for row in STRANGERS], ids=[row[0] for row in STRANGERS])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/models", "/v1beta/models"])
def test_strangers_are_kept_out(scene, path, head, status):
    method = "GET" if path.endswith("models") else "POST"
    answer = scene.send(path, chat() if method == "POST" else None, head, method)
    if path.startswith("/v1beta"):
        assert answer[0] == status and json.loads(answer[2])["error"]["code"] == status
        return
    refused(answer, status, "invalid_api_key", None)
    assert answer[1]["www-authenticate"].startswith("Bearer")


def test_all_strangers_read_the_same(scene):
    texts = {scene.send("/v1/models", None, head, "GET")[2] for _, head, _ in STRANGERS}
    assert len(texts) == 1, texts


def test_two_keys_are_none(scene):
    link = http.client.HTTPConnection(scene.address, timeout=5)
    link.putrequest("GET", "/v1/models")
    link.putheader("authorization", GOOD)
    link.putheader("authorization", "Bearer other")
    link.endheaders()
    assert link.getresponse().status in (400, 401)


@pytest.mark.parametrize("path", ["/admin/keys", "/metrics", "/admin", "/v1/nope", "/v1/responses/../admin", "/v1/files"])
def test_elsewhere_is_nothing(scene, path):
    status, _, text = scene.send(path, None, method="GET")
    assert status == 404 and set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("name", ["x", "resp_0", "..%2f..%2fx", "resp_%00", "x" * 4000, "'; drop table responses; --"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_nobody_keeps(scene, method, name):
    name = urllib.parse.quote(name, safe="%")
    for path in (f"/v1/responses/{name}", f"/v1/conversations/{name}", f"/v1/responses/{name}/input_items"):
        if path.endswith("items") and method == "DELETE":
            continue
        status, _, text = scene.send(path, None, method=method)
        assert status == 404, (path, text)
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


def test_what_a_client_sends_beside_stays_here(scene):
    head = {
        "authorization": GOOD,
        "x-goog-api-key": "stolen",
        "x-goog-user-project": "stolen",
        "x-forwarded-for": "10.1.2.3",
        "cookie": "stolen=1",
        "openai-organization": "stolen",
        "openai-beta": "stolen",
        "x-stainless-lang": "stolen",
        "traceparent": "00-0-0-zz",
    }
    for path, body in (("/v1/chat/completions", chat()), ("/v1/responses", answer()), ("/v1/embeddings", vector())):
        assert scene.send(path + "?key=stolen", body, head)[0] == 200
        url, heads, body = Google.heard[-1]
        assert "stolen" not in url + str(heads) and b"stolen" not in body
        assert "10.1.2.3" not in str(heads) and CLIENT_KEY not in url + str(heads) + body.decode()
        assert GOOGLE_KEY not in url and heads["x-goog-api-key"] == GOOGLE_KEY


ODD = "\u200d\u202e\u0000\uffff\U0001f469\u200d\U0001f52c\U0010ffff\u2028\x7f\\\"\ufeff"


def test_text_arrives_as_it_was(scene):
    Google.script["gemini-2.5-pro"] = told(parts=[{"text": ODD}])
    asked = chat(model="gemini-2.5-pro", messages=[{"role": "user", "content": ODD}])
    text = scene.send("/v1/chat/completions", asked)[2]
    assert json.loads(text)["choices"][0]["message"]["content"] == ODD
    assert json.loads(Google.heard[-1][2])["contents"][0]["parts"][0]["text"] == ODD
    text = scene.send("/v1/chat/completions", asked | {"stream": True})[2].decode()
    got = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in got) == ODD
    text = scene.send("/v1/responses", answer(model="gemini-2.5-pro", input=ODD))[2]
    assert json.loads(text)["output"][-1]["content"][0]["text"] == ODD
    assert json.loads(Google.heard[-1][2])["contents"][0]["parts"][0]["text"] == ODD


def test_wishes_that_are_met_or_named(scene):
    _, head, _ = scene.send("/v1/chat/completions", chat(logit_bias={"50256": -100}, wish=1, user="u"))
    assert {"logit_bias", "wish", "user"} <= set(re.split(r",\s*", head["x-gemway-dropped-params"]))
    status, head, _ = scene.send("/v1/chat/completions", chat(max_tokens=5, max_completion_tokens=9))
    assert status == 200 and "max_tokens" in head["x-gemway-dropped-params"]
    assert json.loads(Google.heard[-1][2])["generationConfig"]["maxOutputTokens"] == 9


def test_no_model_name_leaves_its_place_in_the_address(scene):
    for name in ("gemini-x:countTokens", "gemini-x@001", "gemini-x;a=b", "gemini-\u00e9", "google/gemini-x", "a/b/c"):
        for path, body in (("chat/completions", chat()), ("responses", answer()), ("embeddings", vector())):
            before = len(Google.heard)
            status = scene.send(f"/v1/{path}", body | {"model": name})[0]
            assert status in (200, 400, 404)
            for url, _, _ in Google.heard[before:]:
                assert re.fullmatch(r"/v1beta/models/[A-Za-z0-9._%@-]+:(generateContent|(batchE|e)mbedContents?)", url), url


def test_a_sound_file_has_its_head(scene):
    Google.script["gemini-2.5-flash-preview-tts"] = told(
        parts=[{"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": "AAAAAAAA"}}]
    )
    for form, begin in (("wav", b"RIFF"), ("pcm16", b"\0\0\0\0")):
        asked = chat(model="gemini-2.5-flash-preview-tts", modalities=["audio"], audio={"voice": "alloy", "format": form})
        made = json.loads(scene.send("/v1/chat/completions", asked)[2])["choices"][0]["message"]["audio"]["data"]
        assert base64.b64decode(made).startswith(begin)


def test_unknown_words_are_named(scene):
    assert scene.send("/v1/chat/completions", chat(stop=list("abcdef")))[1]["x-gemway-dropped-params"] == "stop"
    wishes = answer(include=["everything"], reasoning={"effort": "maximal"})
    _, head, _ = scene.send("/v1/responses", wishes)
    assert "include[0](everything)" in head["x-gemway-dropped-params"]
    assert "reasoning.effort" in head["x-gemway-dropped-params"]
    assert "input[0].type(hologram)" in scene.send("/v1/responses", item(type="hologram"))[1]["x-gemway-dropped-params"]


def test_a_large_image_goes_through(scene):
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" + "A" * (19 << 20)
    assert scene.send("/v1/chat/completions", image(f"data:image/png;base64,{png}"))[0] == 200
    png = png[: 2 << 20]
    assert scene.send("/v1/responses", part(type="input_image", image_url=f"data:image/png;base64,{png}"))[0] == 200


SE = "server_error"
FAULTS = [
    ("e16", (302, {"location": "http://127.0.0.1:1/"}, ""), 502, SE, "upstream_error"),
    ("e17", (400, {}, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Bad thing."}}), 400, BAD, "invalid_value"),
    ("e18-key", (400, {}, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": f"API key not valid {GOOGLE_KEY}", "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}}), 502, SE, "upstream_auth_error"),
    ("e18-403", (403, {}, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": f"no {GOOGLE_KEY}"}}), 502, SE, "upstream_auth_error"),
    ("e19", (404, {}, {"error": {"code": 404, "status": "NOT_FOUND", "message": "no such model"}}), 404, BAD, "model_not_found"),
    ("f10", "data: nonsense\r\n\r\n", 502, SE, "upstream_invalid_response"),
    ("f11", bytes(range(256)) * 8, 502, SE, "upstream_invalid_response"),
    ("f12", (200, {"content-type": "text/html"}, f"<html>login {GOOGLE_KEY}</html>"), 502, SE, "upstream_invalid_response"),
    ("f17", '{"candidates":[{"content"', 502, SE, None),
    ("f22", "", 502, SE, None),
    ("f35", told("MALFORMED_FUNCTION_CALL", ()), 502, SE, "upstream_malformed_output"),
]


@pytest.mark.parametrize(("script", "status", "kind", "code"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_what_google_does(scene, path, stream, script, status, kind, code):
    Google.script["gemini-2.0-flash"] = script
    body = (chat() if path.startswith("chat") else answer()) | {"model": "gemini-2.0-flash", "stream": stream}
    got, head, text = scene.send(f"/v1/{path}", body)
    assert got == status, text[:300]
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == kind and code in (None, error["code"]), error


def soon(scene, line):
    """The metrics, once they hold a line: a request is booked when its last byte has left."""
    deadline = time.monotonic() + 3
    while line not in (text := scene.gateway.metrics()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return text


WHOLE = [
    ("f26", {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3}}),
    ("f27-empty", {"candidates": [{"finishReason": "SAFETY", "index": 0}]}),
    ("f27-part", told(parts=({"hologram": {"x": 1}}, {"text": "Hello."}))),
    ("f27-finish", told("NEW_IN_2031")),
    ("f28", without(told(), "usageMetadata")),
    ("f29", told(usageMetadata={"promptTokenCount": -5, "candidatesTokenCount": 2**64 - 1, "totalTokenCount": "7"})),
    ("f30", told(usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 99})),
    ("f33", told() | {"candidates": [{"index": 7, "content": {"parts": [{"text": "Hello."}]}, "finishReason": "STOP"}]}),
    ("f34", told(parts=[{"functionCall": {"name": "f", "args": {"x": LONG}}}, {"functionCall": {"name": "f", "args": {}}}])),
    ("f34-nameless", told(parts=[{"text": "Hello."}, {"functionCall": {"args": {}}}])),
]


@pytest.mark.parametrize("script", [row[1] for row in WHOLE], ids=[row[0] for row in WHOLE])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_odd_answers_are_answers(scene, path, stream, script):
    Google.script["gemini-2.0-flash"] = script
    body = (chat(tools=[tool()]) if path.startswith("chat") else answer()) | {"model": "gemini-2.0-flash", "stream": stream}
    got, _, text = scene.send(f"/v1/{path}", body)
    whole = got == 200 and (not stream or b"[DONE]" in text or b"response.completed" in text or b"response.incomplete" in text)
    assert whole or set(json.loads(text)["error"]) == {"message", "type", "param", "code"}, text[-400:]
    if script is WHOLE[3][1]:
        assert "gemway_unknown_finish_reasons_total{" in soon(scene, "gemway_unknown_finish_reasons_total{")
    usage = re.findall(rb'"(?:prompt|completion|input|output|total)_tokens":(-?[0-9.e]+)', text)
    assert all(int(count) >= 0 for count in usage), usage
