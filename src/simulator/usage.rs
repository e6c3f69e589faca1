//! Counting tokens, roughly as a tokenizer would, and always the same way.

use serde_json::{Value, json};

use super::turns::{items, string};

/// The next token of a text: blanks, then a word or eight letters of it.
pub(super) fn token(text: &str) -> &str {
    let mut letters = 0;
    for (at, letter) in text.char_indices() {
        if letter.is_whitespace() {
            if letters > 0 {
                return text.get(..at).unwrap_or(text);
            }
        } else {
            letters += 1;
            if letters > 8 {
                return text.get(..at).unwrap_or(text);
            }
        }
    }
    text
}

/// How many tokens a text has.
pub(super) fn count(mut text: &str) -> u64 {
    let mut tokens = 0;
    while !text.is_empty() {
        let length = token(text).len().max(1);
        text = text.get(length..).unwrap_or_default();
        tokens += 1;
    }
    tokens
}

/// What a prompt costs, by modality.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prompt {
    pub(super) text: u64,
    pub(super) image: u64,
    pub(super) audio: u64,
    pub(super) video: u64,
    pub(super) document: u64,
    pub(super) cached: u64,
    /// The tier that was asked for; whatever is asked for is served.
    pub(super) tier: Option<&'static str>,
}

impl Prompt {
    /// Counts a `generateContent` body.
    pub(super) fn of(ask: &Value) -> Self {
        let mut prompt = Self::default();
        for content in items(ask, "contents").iter().chain(ask.get("systemInstruction")) {
            prompt.add(content);
        }
        for declaration in items(ask, "tools").iter().flat_map(|tool| items(tool, "functionDeclarations")) {
            prompt.text += count(&declaration.to_string());
        }
        let tier = ask.get("serviceTier").and_then(Value::as_str).unwrap_or_default();
        prompt.tier =
            ["standard", "flex", "priority"].into_iter().find(|known| tier.eq_ignore_ascii_case(known));
        prompt
    }

    /// Counts one content.
    pub(super) fn add(&mut self, content: &Value) {
        for part in items(content, "parts") {
            self.text += count(string(part, "text"));
            for media in ["inlineData", "fileData"] {
                if let Some(media) = part.get(media) {
                    self.media(string(media, "mimeType"));
                }
            }
            for call in ["functionCall", "functionResponse", "executableCode", "codeExecutionResult"] {
                if let Some(call) = part.get(call) {
                    for name in ["args", "response", "code", "output"] {
                        self.text += call.get(name).map_or(0, |value| count(&value.to_string()));
                    }
                    self.text += 1;
                    for part in items(call, "parts") {
                        self.media(part.get("inlineData").map_or("", |blob| string(blob, "mimeType")));
                    }
                }
            }
        }
    }

    fn media(&mut self, mime: &str) {
        match mime.split('/').next().unwrap_or_default() {
            "image" => self.image += 258,
            "audio" => self.audio += 32,
            "video" => self.video += 263,
            "text" => self.text += 64,
            _ => self.document += 258,
        }
    }

    /// All of it.
    pub(super) fn total(&self) -> u64 {
        self.text + self.image + self.audio + self.video + self.document
    }

    /// `promptTokensDetails`.
    pub(super) fn details(&self) -> Value {
        let all = [
            ("TEXT", self.text),
            ("IMAGE", self.image),
            ("AUDIO", self.audio),
            ("VIDEO", self.video),
            ("DOCUMENT", self.document),
        ];
        all.into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(modality, count)| json!({ "modality": modality, "tokenCount": count }))
            .collect()
    }
}

/// `usageMetadata` of a whole answer.
pub(super) fn metadata(prompt: &Prompt, candidates: u64, thoughts: u64, vertex: bool) -> Value {
    let mut usage = serde_json::Map::new();
    usage.insert("promptTokenCount".into(), prompt.total().into());
    if prompt.cached > 0 {
        usage.insert("cachedContentTokenCount".into(), prompt.cached.into());
        usage.insert(
            "cacheTokensDetails".into(),
            json!([{ "modality": "TEXT", "tokenCount": prompt.cached }]),
        );
    }
    if candidates > 0 {
        usage.insert("candidatesTokenCount".into(), candidates.into());
    }
    usage.insert("totalTokenCount".into(), (prompt.total() + candidates + thoughts).into());
    usage.insert("promptTokensDetails".into(), prompt.details());
    if candidates > 0 {
        usage.insert(
            "candidatesTokensDetails".into(),
            json!([{ "modality": "TEXT", "tokenCount": candidates }]),
        );
    }
    if thoughts > 0 {
        usage.insert("thoughtsTokenCount".into(), thoughts.into());
    }
    match (vertex, prompt.tier) {
        (true, Some("flex")) => drop(usage.insert("trafficType".into(), "ON_DEMAND_FLEX".into())),
        (true, Some("priority")) => drop(usage.insert("trafficType".into(), "ON_DEMAND_PRIORITY".into())),
        (true, _) => drop(usage.insert("trafficType".into(), "ON_DEMAND".into())),
        (false, Some(tier)) => drop(usage.insert("serviceTier".into(), tier.into())),
        (false, None) => {}
    }
    Value::Object(usage)
}
