//! What is asked, in both dialects: `OpenAI`'s for gateways that translate, Gemini's for proxies that do not.

use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};

/// Models by which the double knows what to say.
pub(crate) const BURST: &str = "gemini-2.5-flash";
pub(crate) const PACED: &str = "gemini-2.5-flash-lite";
pub(crate) const HELD: &str = "gemini-2.5-pro";
/// A model that brings its vectors to length one itself, however many numbers are asked for, and one that leaves that
/// to the client where they are fewer than it has.
const VECTORS: &str = "gemini-embedding-2";
const VECTORS_OF_ANY_LENGTH: &str = "gemini-embedding-001";

/// What the gateway's key is in this bench.
pub(crate) const KEY: &str = "sk-load-0123456789abcdef0123456789abcdef";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Gemini,
}

/// Who is asked: what the request is written for.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
    /// Further lines of the head.
    pub(crate) headers: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// 0.3 KB in, 0.5 KB out.
    Chat,
    /// A stream of 50 events, all at once.
    Burst,
    /// A stream of 100 events, 20 ms apart.
    Paced,
    /// A stream of one event that does not end.
    Held,
    /// A prompt of 1 MiB.
    Prompt,
    /// An image of 10 MiB.
    Image,
    /// A hundred texts.
    Vectors,
    /// The same, and the vectors are wanted as base64.
    VectorsBase64,
    /// The same, and the vectors are to be brought to length one.
    VectorsRescaled,
}

const ASKED: &str = "Write one sentence about a fox and a dog, in which the fox is quick and the dog is not. Say \
    nothing else, and do not end with a question.";

impl Work {
    /// The whole request, head and body, as it goes over the wire.
    pub(crate) fn request(self, side: &Side) -> Bytes {
        let (path, body) = match side.dialect {
            Dialect::OpenAi => self.openai(),
            Dialect::Gemini => self.gemini(),
        };
        let body = body.to_string();
        let Side { address, headers, .. } = side;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{headers}content-length: \
             {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat().into()
    }

    fn stream(self) -> bool {
        matches!(self, Self::Burst | Self::Paced | Self::Held)
    }

    fn model(self) -> &'static str {
        match self {
            Self::Paced => PACED,
            Self::Held => HELD,
            Self::Vectors | Self::VectorsBase64 => VECTORS,
            Self::VectorsRescaled => VECTORS_OF_ANY_LENGTH,
            Self::Chat | Self::Burst | Self::Prompt | Self::Image => BURST,
        }
    }

    fn openai(self) -> (String, Value) {
        let content = match self {
            Self::Vectors | Self::VectorsBase64 | Self::VectorsRescaled => {
                let format = if self == Self::VectorsBase64 { "base64" } else { "float" };
                let body = json!({"model": self.model(), "input": texts(), "dimensions": 768,
                    "encoding_format": format});
                return ("/v1/embeddings".to_owned(), body);
            }
            Self::Image => json!([
                {"type": "text", "text": ASKED},
                {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", image())}},
            ]),
            Self::Prompt => prompt().into(),
            Self::Chat | Self::Burst | Self::Paced | Self::Held => ASKED.into(),
        };
        let messages = json!([
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": content},
        ]);
        let mut body = json!({"model": self.model(), "messages": messages, "temperature": 0.5});
        if let (true, Some(body)) = (self.stream(), body.as_object_mut()) {
            body.insert("stream".to_owned(), true.into());
        }
        ("/v1/chat/completions".to_owned(), body)
    }

    fn gemini(self) -> (String, Value) {
        let model = self.model();
        let parts = match self {
            Self::Vectors | Self::VectorsBase64 | Self::VectorsRescaled => {
                let one = |text: String| {
                    json!({"model": format!("models/{model}"), "content": {"parts": [{"text": text}]},
                        "outputDimensionality": 768})
                };
                let all: Vec<_> = texts().into_iter().map(one).collect();
                return (format!("/v1beta/models/{model}:batchEmbedContents"), json!({"requests": all}));
            }
            Self::Image => {
                json!([{"text": ASKED}, {"inlineData": {"mimeType": "image/png", "data": image()}}])
            }
            Self::Prompt => json!([{"text": prompt()}]),
            Self::Chat | Self::Burst | Self::Paced | Self::Held => json!([{"text": ASKED}]),
        };
        let method = if self.stream() { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let body = json!({
            "systemInstruction": {"parts": [{"text": "You are terse."}]},
            "contents": [{"role": "user", "parts": parts}],
            "generationConfig": {"temperature": 0.5},
        });
        (format!("/v1beta/models/{model}:{method}"), body)
    }
}

fn texts() -> Vec<String> {
    (0..100).map(|number| format!("Sentence number {number} about a fox and a dog.")).collect()
}

/// Text with quotes, newlines and letters beyond ASCII, as prompts have.
fn prompt() -> String {
    let piece = "He said: \"It is 20\u{a0}°C.\"\nThen the quick brown fox jumped over the lazy dog, as ever.\n\t\
        Nobody was surprised; the dog least of all.\n";
    piece.repeat((1 << 20) / piece.len())
}

/// Base64 that is 10 MiB long.
fn image() -> String {
    let piece = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q/z8ABQABAX0Qe5o+";
    let mut text = piece.repeat((10 << 20) / piece.len());
    text.truncate(text.len() / 4 * 4);
    text
}
