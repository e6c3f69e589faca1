//! Gemini's stream → Chat Completions chunks.

use bytes::BytesMut;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::openai::completion::{
    AudioDelta, CallDelta, CustomDelta, Delta, Extra, FunctionDelta, Google, Image, ImageUrl, Logprobs,
    TokenLogprob,
};
use crate::translate::finish::worth_telling;
use crate::translate::{Machine, Stamp, counts};
use crate::usage::Usage;
use crate::wire::{self, Text};

use super::state::{Piece, Session, Sink};
use super::{Shape, sound};

/// One stream's translator.
#[derive(Debug)]
pub struct ChatMachine {
    session: Session,
    frame: Frame,
    done: bool,
}

impl ChatMachine {
    /// A translator for one stream.
    pub fn new(shape: Shape, stamp: Stamp) -> Self {
        let frame = Frame::new(&shape, &stamp);
        Self { session: Session::new(shape, stamp), frame, done: false }
    }
}

impl Machine for ChatMachine {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        self.session.take(event, &mut Writer { frame: &mut self.frame, out })
    }

    fn usage(&self) -> Usage {
        self.session.counts.usage()
    }

    fn uncounted(&self) -> u64 {
        self.session.counts.uncounted()
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        let usage = self.usage();
        if self.done {
            return Ok(usage);
        }
        self.session.check()?;
        let mut writer = Writer { frame: &mut self.frame, out };
        let ends = self.session.close(&mut writer)?;
        for (index, end) in ends.iter().enumerate() {
            let Some(choice) = self.session.choices.get(index) else { continue };
            let refused = end.refusal.as_deref();
            writer.open(index, refused.is_some() || choice.called())?;
            if let Some(refusal) = refused {
                writer
                    .delta(index, &Delta { refusal: Some(Some(Text::plain(refusal))), ..Delta::default() })?;
            }
            if choice.audio.is_some() {
                let expires_at = Some(sound::expires_at(&self.session.stamp));
                let audio = Some(AudioDelta { expires_at, ..AudioDelta::default() });
                writer.delta(index, &Delta { audio, ..Delta::default() })?;
            }
            let annotations = choice.annotations();
            let signature = choice.signature.as_deref();
            if !annotations.is_empty() || signature.is_some() {
                let delta = Delta {
                    annotations: (!annotations.is_empty()).then_some(annotations.as_slice()),
                    extra_content: signature.map(|signature| Extra::signature(Text::plain(signature))),
                    ..Delta::default()
                };
                writer.delta(index, &delta)?;
            }
            let native =
                choice.native.as_deref().filter(|native| worth_telling(native)).map(|native| Extra {
                    google: Google {
                        finish_reason: Some(native),
                        finish_message: choice.native_message.as_deref(),
                        thought_signature: None,
                    },
                });
            writer.finish(index, end.reason, native.as_ref())?;
        }
        if self.frame.usage_tail {
            self.frame.usage(&usage, out)?;
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.done = true;
        Ok(usage)
    }
}

/// What every chunk of a stream shares, written once.
#[derive(Debug)]
struct Frame {
    head: String,
    /// What every chunk ends with, and the usage chunk after its usage.
    tail: String,
    tier: Option<&'static str>,
    usage_tail: bool,
    legacy: bool,
    /// Choices whose role has been given: always the first so many.
    opened: usize,
}

impl Frame {
    fn new(shape: &Shape, stamp: &Stamp) -> Self {
        #[derive(Serialize)]
        struct Head<'a> {
            id: &'a str,
            object: &'static str,
            created: u64,
            model: &'a str,
            system_fingerprint: (),
        }
        let head = Head {
            id: &stamp.id,
            object: "chat.completion.chunk",
            created: stamp.created,
            model: &stamp.model,
            system_fingerprint: (),
        };
        let head = serde_json::to_string(&head).unwrap_or_default();
        let head = format!("data: {},\"choices\":[", head.trim_end_matches('}'));
        let tail = if shape.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" }.to_owned();
        let legacy = shape.legacy_functions;
        let mut frame = Self { head, tail, tier: None, usage_tail: shape.include_usage, legacy, opened: 0 };
        if let Some(tier) = shape.tier {
            frame.tier(tier);
        }
        frame
    }

    fn tier(&mut self, tier: &'static str) {
        if self.tier != Some(tier) {
            let usage = if self.usage_tail { ",\"usage\":null" } else { "" };
            self.tail = format!("]{usage},\"service_tier\":\"{tier}\"}}\n\n");
            self.tier = Some(tier);
        }
    }

    fn usage(&self, usage: &Usage, out: &mut BytesMut) -> Result<()> {
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(b"],\"usage\":");
        wire::append(&counts::object(usage), out).map_err(Error::internal)?;
        if let Some(tier) = self.tier {
            out.extend_from_slice(format!(",\"service_tier\":\"{tier}\"").as_bytes());
        }
        out.extend_from_slice(b"}\n\n");
        Ok(())
    }
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: &'a Delta<'a>,
    logprobs: Option<Logprobs<&'a [TokenLogprob<'a>]>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_content: Option<&'a Extra<'a>>,
}

struct Writer<'w> {
    frame: &'w mut Frame,
    out: &'w mut BytesMut,
}

impl Writer<'_> {
    fn chunk(&mut self, choice: &ChunkChoice<'_>) -> Result<()> {
        self.out.extend_from_slice(self.frame.head.as_bytes());
        wire::append(choice, self.out).map_err(Error::internal)?;
        self.out.extend_from_slice(self.frame.tail.as_bytes());
        Ok(())
    }

    /// [`Writer::delta`] with nothing but text, which needs no more than this.
    fn text(&mut self, index: usize, text: &Text<'_>) -> Result<()> {
        let Frame { head, tail, .. } = &*self.frame;
        self.out.reserve(head.len() + text.size() + tail.len() + 96);
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(b"{\"index\":");
        wire::append(&index, self.out).map_err(Error::internal)?;
        self.out.extend_from_slice(b",\"delta\":{\"content\":");
        wire::append(text, self.out).map_err(Error::internal)?;
        self.out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":null}");
        self.out.extend_from_slice(tail.as_bytes());
        Ok(())
    }

    fn delta(&mut self, index: usize, delta: &Delta<'_>) -> Result<()> {
        self.chunk(&ChunkChoice { index, delta, logprobs: None, finish_reason: None, extra_content: None })
    }

    fn finish(&mut self, index: usize, reason: &'static str, native: Option<&Extra<'_>>) -> Result<()> {
        let delta = Delta::default();
        self.chunk(&ChunkChoice {
            index,
            delta: &delta,
            logprobs: None,
            finish_reason: Some(reason),
            extra_content: native,
        })
    }

    /// Gives the role of this choice, and of all before it: helpers fail when choices do not appear in order.
    fn open(&mut self, index: usize, silent: bool) -> Result<()> {
        while self.frame.opened <= index {
            let at = self.frame.opened;
            let content = if silent && at == index { None } else { Some(Text::plain("")) };
            self.frame.opened += 1;
            let delta = Delta {
                role: Some("assistant"),
                content: Some(content),
                refusal: Some(None),
                ..Delta::default()
            };
            self.delta(at, &delta)?;
        }
        Ok(())
    }
}

impl Sink for Writer<'_> {
    fn piece(&mut self, choice: usize, piece: Piece<'_>) -> Result<()> {
        self.open(choice, matches!(piece, Piece::Call { .. } | Piece::Audio { .. }))?;
        let mut delta = Delta::default();
        match piece {
            // Nearly all that is ever said.
            Piece::Text(text) => return self.text(choice, &text),
            Piece::Thought(text) => delta.reasoning_content = Some(text),
            Piece::Call { name, .. } if self.frame.legacy => {
                delta.function_call =
                    Some(FunctionDelta { name: Some(name), arguments: Some(Text::plain("")) });
            }
            Piece::Arguments { text, .. } if self.frame.legacy => {
                delta.function_call = Some(FunctionDelta { name: None, arguments: Some(text) });
            }
            Piece::Call { index, id, name, custom, signature } => {
                let id = Some(id);
                let extra_content = signature.map(Extra::signature);
                delta.tool_calls = Some([if custom {
                    let custom = Some(CustomDelta { name: Some(name), input: Some(Text::plain("")) });
                    CallDelta { index, id, kind: Some("custom"), function: None, custom, extra_content }
                } else {
                    let function = Some(FunctionDelta { name: Some(name), arguments: Some(Text::plain("")) });
                    CallDelta { index, id, kind: Some("function"), function, custom: None, extra_content }
                }]);
            }
            Piece::Arguments { index, custom, text, signature } => {
                let mut call = CallDelta { index, ..CallDelta::default() };
                if custom {
                    call.custom = Some(CustomDelta { name: None, input: Some(text) });
                } else {
                    call.function = Some(FunctionDelta { name: None, arguments: Some(text) });
                }
                call.extra_content = signature.map(Extra::signature);
                delta.tool_calls = Some([call]);
            }
            Piece::Image { index, url, signature } => {
                delta.images = Some([Image {
                    index,
                    kind: "image_url",
                    image_url: ImageUrl { url: Text::plain(url) },
                    extra_content: signature.map(Extra::signature),
                }]);
            }
            Piece::Audio { id, data } => {
                delta.audio = Some(AudioDelta { id, data: Some(data), expires_at: None });
            }
        }
        self.delta(choice, &delta)
    }

    fn tier(&mut self, tier: &'static str) {
        self.frame.tier(tier);
    }

    fn logprobs(&mut self, choice: usize, logprobs: Vec<TokenLogprob<'_>>) -> Result<()> {
        self.open(choice, false)?;
        let delta = Delta::default();
        self.chunk(&ChunkChoice {
            index: choice,
            delta: &delta,
            logprobs: Some(Logprobs { content: &logprobs, refusal: () }),
            finish_reason: None,
            extra_content: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::Ids;
    use crate::memory::Memory;
    use crate::translate::Signatures;

    fn machine(signatures: &Arc<dyn Signatures>) -> ChatMachine {
        let stamp = Stamp {
            id: "chatcmpl-1".to_owned(),
            created: 1,
            model: "m".to_owned(),
            ids: Arc::new(Ids::counted()),
            signatures: Arc::clone(signatures),
        };
        ChatMachine::new(Shape::default(), stamp)
    }

    #[test]
    fn a_signature_is_remembered_and_given_once_even_when_it_comes_late() {
        let memory = Arc::new(Memory::default()).view("t");
        let mut machine = machine(&memory);
        let mut out = BytesMut::new();
        for event in [
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","id":"a"},"thoughtSignature":"S1"},
                {"functionCall":{"name":"g","willContinue":true}}]}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{},"thoughtSignature":"S\u0032"}]},
                "finishReason":"STOP"}]}"#,
        ] {
            machine.push(event.as_bytes(), &mut out).unwrap();
        }
        machine.finish(&mut out).unwrap();
        assert_eq!(memory.recall("a").as_deref(), Some("S1"));
        assert_eq!(memory.recall("call_1").as_deref(), Some("S2"));
        let text = String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(text.matches("thought_signature").count(), 2);
        assert_eq!(machine.finish(&mut out).unwrap(), machine.usage(), "a second end adds nothing");
        assert_eq!(text.len(), out.len());
    }

    #[test]
    fn a_chunk_of_text_is_written_as_any_other() {
        let machine = machine(&Arc::new(Memory::default()).view("t"));
        let (mut frame, mut short, mut long) = (machine.frame, BytesMut::new(), BytesMut::new());
        for (index, text) in [(0, "a"), (7, "\"é\n\u{1}"), (12, "")] {
            Writer { frame: &mut frame, out: &mut short }.text(index, &Text::plain(text)).unwrap();
            let delta = Delta { content: Some(Some(Text::plain(text))), ..Delta::default() };
            Writer { frame: &mut frame, out: &mut long }.delta(index, &delta).unwrap();
        }
        assert_eq!(short, long);
    }

    #[test]
    fn text_leaves_as_it_came() {
        let mut machine = machine(&Arc::new(Memory::default()).view("t"));
        let mut out = BytesMut::new();
        let event = r#"{"candidates":[{"content":{"parts":[{"text":"\u00e9 \/ é"}]}}]}"#;
        machine.push(event.as_bytes(), &mut out).unwrap();
        let text = String::from_utf8(out.to_vec()).unwrap();
        assert!(text.contains(r#"{"content":"\u00e9 \/ é"}"#), "the token is spliced: {text}");
    }
}
