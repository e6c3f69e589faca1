//! What the model said before, as parts like those that it came in: each signature on its own, code with what it
//! printed, pictures.

use serde_json::value::RawValue;

use super::input::{Builder, Place, Turn};
use super::marks::{self, Mark, TextMark};
use crate::error::{Error, Result};
use crate::gemini::ask::{Blob, CodeExecutionResult, ExecutableCode, Json, Part};
use crate::openai::responses::Item;
use crate::translate::chat::media;
use crate::wire::{Base64, Text};

impl<'a> Builder<'a, '_> {
    /// Signatures may stand before or behind what they belong to, so they are read first.
    pub(super) fn gather_marks(&mut self, given: impl Iterator<Item = &'a RawValue>) {
        let referenced = self.history.referenced.values().map(|item| &**item);
        let all = self.history.items.iter().map(|item| &**item).chain(referenced).chain(given);
        for raw in all {
            if !raw.get().contains("encrypted_content") {
                continue;
            }
            // What cannot be read is refused when its turn comes.
            let Ok(item) = serde_json::from_str::<Item<'_>>(raw.get()) else { continue };
            let Some(sealed) = item.encrypted_content else { continue };
            for mark in marks::open(&sealed.decode()) {
                self.marks.take(mark);
            }
        }
    }

    pub(super) fn signature(&self, id: &str) -> Option<Text<'a>> {
        if !self.signatures.native(id) {
            return None;
        }
        let found = self.marks.call(id).or_else(|| self.history.marks.call(id)).map(str::to_owned);
        found.or_else(|| self.signatures.recall(id).map(|known| known.to_string())).map(Text::plain)
    }

    /// The words of a message as the parts that they came in: each signature on its own.
    pub(super) fn signed(&mut self, parts: Vec<Part<'a>>, id: &str) -> Vec<Part<'a>> {
        if !self.signatures.native(id) {
            return parts;
        }
        let known = [self.marks.text(id), self.history.marks.text(id)];
        let known = known.into_iter().find(|known| !known.is_empty());
        let recalled = || {
            let signature = self.signatures.recall(id)?.to_string();
            Some(vec![TextMark { signature, ..TextMark::default() }])
        };
        let Some(marks) = known.map(<[_]>::to_vec).or_else(recalled) else { return parts };
        let mut parts = parts;
        let Some(last) = parts.pop() else { return parts };
        let Some(text) = last.text else {
            parts.push(last);
            return parts;
        };
        parts.extend(split(text, marks));
        self.signed.insert(id.to_owned());
        parts
    }

    /// Thoughts are not sent back, but what they carry is.
    pub(super) fn reasoning(&mut self, place: Place, item: Item<'a>) {
        let sealed = item.encrypted_content.map(|sealed| sealed.decode()).unwrap_or_default();
        for mark in marks::open(&sealed) {
            match mark {
                Mark::Call { .. } | Mark::Code(_) | Mark::Summary { .. } => {}
                // Most clients send the message with its id, and then it is signed already.
                Mark::Text(mark) if mark.id.as_ref().is_some_and(|id| self.signed.contains(id)) => {}
                Mark::Text(mark) => {
                    if let Some(Turn::Model(parts, _)) = self.turns.last_mut()
                        && let Some(at) = parts.iter().rposition(|part| part.text.is_some())
                        && let Some(last) = parts.get_mut(at).filter(|part| part.thought_signature.is_none())
                        && let Some(text) = last.text.take()
                    {
                        parts.splice(at..=at, split(text, vec![mark]));
                    }
                }
                Mark::Echo { call, result, signature } => {
                    let json = |text: Option<String>| match text.map(RawValue::from_string) {
                        Some(Ok(json)) => Some(Json::Owned(json)),
                        // `marks::open` has looked at it.
                        Some(Err(_)) | None => None,
                    };
                    let part = Part {
                        tool_call: json(call),
                        tool_response: json(result),
                        thought_signature: signature.map(Text::plain),
                        ..Part::default()
                    };
                    self.model(place, vec![part]);
                }
            }
        }
    }

    pub(super) fn code(&mut self, place: Place, item: Item<'a>) {
        let code = item.code.unwrap_or(Text::plain(""));
        let logs: Vec<Text<'a>> =
            item.outputs.into_iter().flatten().filter_map(|printed| printed.logs).collect();
        let output = match <[Text<'a>; 1]>::try_from(logs) {
            Ok([one]) => one,
            Err(logs) => Text::plain(logs.iter().map(Text::decode).collect::<Vec<_>>().concat()),
        };
        if self.runs_code {
            let failed = item.status.is_some_and(|status| status.decode() == "failed");
            let id = item.id.map(|id| id.decode()).unwrap_or_default();
            let mark = self.marks.code(&id).or_else(|| self.history.marks.code(&id));
            let mark = mark.filter(|_| self.signatures.native(&id)).cloned().unwrap_or_default();
            let outcome = match failed {
                true if mark.late => "OUTCOME_DEADLINE_EXCEEDED",
                true => "OUTCOME_FAILED",
                false => "OUTCOME_OK",
            };
            let plain = |text: Option<String>| text.map(Text::plain);
            let ids = self.target.traits.call_ids;
            let code = ExecutableCode { id: plain(mark.code_id).filter(|_| ids), language: "PYTHON", code };
            let printed = CodeExecutionResult { id: plain(mark.result_id).filter(|_| ids), outcome, output };
            let code =
                Part { executable_code: Some(code), thought_signature: plain(mark.code), ..Part::default() };
            let printed = Part {
                code_execution_result: Some(printed),
                thought_signature: plain(mark.result),
                ..Part::default()
            };
            self.model(place, vec![code, printed]);
        } else {
            let text = format!("```python\n{}\n```\n```\n{}\n```\n", code.decode(), output.decode());
            self.model(place, vec![Part::text(Text::plain(text))]);
        }
    }

    pub(super) fn picture(&mut self, place: Place, item: Item<'a>) -> Result<()> {
        let Some(data) = item.result.filter(|data| !data.is_empty()) else { return Ok(()) };
        let format = item.output_format.map(|format| format.decode().into_owned());
        let mime_type = match format.as_deref() {
            Some("jpeg") => "image/jpeg",
            Some("webp") => "image/webp",
            Some("gif") => "image/gif",
            _ => "image/png",
        };
        let data: Base64<'a> = media::plain_base64(data.decode())
            .ok_or_else(|| Error::invalid("result", "The picture is not valid base64."))?;
        let blob = Blob { mime_type: mime_type.into(), data, display_name: None };
        let signature = item.id.and_then(|id| self.signature(&id.decode()));
        let part = Part { inline_data: Some(blob), thought_signature: signature, ..Part::default() };
        self.model(place, vec![part]);
        Ok(())
    }
}

/// A text as the parts that it came in.
fn split(text: Text<'_>, marks: Vec<TextMark>) -> Vec<Part<'_>> {
    let signed =
        |text, signature| Part { thought_signature: Some(Text::plain(signature)), ..Part::text(text) };
    if let [TextMark { from: 0, to: None, signature, .. }] = marks.as_slice() {
        // By far the most common: one signature for all of it.
        return vec![signed(text, signature.clone())];
    }
    let whole = text.decode();
    let byte = |character: usize| whole.char_indices().nth(character).map_or(whole.len(), |(at, _)| at);
    let piece = |range: std::ops::Range<usize>| {
        Some(Text::plain(whole.get(range)?.to_owned())).filter(|text| !text.is_empty())
    };
    let (mut parts, mut done) = (Vec::new(), 0);
    for mark in marks {
        let (from, to) = (byte(mark.from).max(done), mark.to.map_or(whole.len(), byte));
        parts.extend(piece(done..from).map(Part::text));
        parts.extend(piece(from..to).map(|text| signed(text, mark.signature)));
        done = to.max(from);
    }
    parts.extend(piece(done..whole.len()).map(Part::text));
    parts
}
