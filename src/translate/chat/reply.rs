//! Gemini's whole answer → one `chat.completion`.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::openai::completion::{
    Audio, Call, Choice, Completion, CustomText, Extra, FunctionText, Google, Image, ImageUrl, Logprobs,
    Message, Token, TokenLogprob,
};
use crate::translate::finish::worth_telling;
use crate::translate::{Stamp, counts};
use crate::usage::Usage;
use crate::wire::{self, Text};

use super::state::{self, End, Piece, Session, Sink};
use super::{Shape, sound};

/// Builds the reply from one whole answer, or from all events of a stream.
///
/// # Errors
/// When Google answered with an error, with nothing, or broke off.
pub fn reply(shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
    let mut session = Session::new(shape.clone(), stamp.clone());
    let mut drafts = Drafts::default();
    for answer in answers {
        session.take(answer, &mut drafts)?;
    }
    session.check()?;
    let ends = session.close(&mut drafts)?;
    drafts.0.resize_with(ends.len().max(drafts.0.len()), Draft::default);
    let usage = session.counts.usage();
    let mut choices = Vec::with_capacity(ends.len());
    for (index, ((end, draft), state)) in ends.iter().zip(&mut drafts.0).zip(&session.choices).enumerate() {
        let logprobs = finished(std::mem::take(&mut draft.logprobs))?;
        let native = state.native.as_deref().filter(|native| worth_telling(native)).map(|native| Extra {
            google: Google {
                finish_reason: Some(native),
                finish_message: state.native_message.as_deref(),
                thought_signature: None,
            },
        });
        choices.push(Choice {
            index,
            message: draft.message(end, state, shape.legacy_functions, stamp),
            logprobs,
            finish_reason: end.reason,
            extra_content: native,
        });
    }
    let completion = Completion {
        id: &stamp.id,
        object: "chat.completion",
        created: stamp.created,
        model: &stamp.model,
        choices,
        usage: counts::object(&usage),
        service_tier: session.counts.tier().or(shape.tier),
        system_fingerprint: (),
    };
    let mut out = BytesMut::with_capacity(answers.iter().map(Bytes::len).sum::<usize>() + 512);
    wire::append(&completion, &mut out).map_err(Error::internal)?;
    Ok((out.freeze(), usage))
}

#[derive(Default)]
struct Drafts(Vec<Draft>);

/// One choice being put together.
#[derive(Default)]
struct Draft {
    content: Token,
    reasoning: Token,
    calls: Vec<CallDraft>,
    images: Vec<(String, Option<String>)>,
    audio: Option<(String, Vec<String>)>,
    logprobs: BytesMut,
}

struct CallDraft {
    id: String,
    name: String,
    custom: bool,
    arguments: Token,
    signature: Option<String>,
}

impl Drafts {
    fn at(&mut self, choice: usize) -> Option<&mut Draft> {
        if self.0.len() <= choice {
            self.0.resize_with(choice + 1, Draft::default);
        }
        self.0.get_mut(choice)
    }
}

impl Sink for Drafts {
    fn piece(&mut self, choice: usize, piece: Piece<'_>) -> Result<()> {
        let Some(draft) = self.at(choice) else { return Ok(()) };
        let owned = |text: Text<'_>| text.decode().into_owned();
        match piece {
            Piece::Text(text) => draft.content.push(&text),
            Piece::Thought(text) => draft.reasoning.push(&text),
            Piece::Call { id, name, custom, signature, .. } => draft.calls.push(CallDraft {
                id: id.to_owned(),
                name: owned(name),
                custom,
                arguments: Token::default(),
                signature: signature.map(owned),
            }),
            Piece::Arguments { text, signature, .. } => {
                if let Some(call) = draft.calls.last_mut() {
                    call.arguments.push(&text);
                    call.signature = call.signature.take().or(signature.map(owned));
                }
            }
            Piece::Image { url, signature, .. } => draft.images.push((url, signature.map(owned))),
            Piece::Audio { id, data } => {
                let audio =
                    draft.audio.get_or_insert_with(|| (id.unwrap_or_default().to_owned(), Vec::new()));
                audio.1.push(owned(data));
            }
        }
        Ok(())
    }

    fn tier(&mut self, _: &'static str) {}

    fn logprobs(&mut self, choice: usize, logprobs: Vec<TokenLogprob<'_>>) -> Result<()> {
        let Some(draft) = self.at(choice) else { return Ok(()) };
        for entry in &logprobs {
            draft.logprobs.extend_from_slice(if draft.logprobs.is_empty() { b"[" } else { b"," });
            wire::append(entry, &mut draft.logprobs).map_err(Error::internal)?;
        }
        Ok(())
    }
}

impl Draft {
    fn message<'d>(
        &'d self,
        end: &'d End,
        choice: &'d state::Choice,
        legacy: bool,
        stamp: &Stamp,
    ) -> Message<'d> {
        let silent = self.content.is_empty()
            && (!self.calls.is_empty() || self.audio.is_some() || end.refusal.is_some());
        let signed = |signature: &'d Option<String>| {
            signature.as_deref().map(|signature| Extra::signature(Text::plain(signature)))
        };
        let function = |call: &'d CallDraft| FunctionText { name: &call.name, arguments: &call.arguments };
        let call = |call: &'d CallDraft| Call {
            id: &call.id,
            kind: if call.custom { "custom" } else { "function" },
            function: (!call.custom).then(|| function(call)),
            custom: call.custom.then(|| CustomText { name: &call.name, input: &call.arguments }),
            extra_content: signed(&call.signature),
        };
        Message {
            role: "assistant",
            content: (!silent).then_some(&self.content),
            refusal: end.refusal.as_deref(),
            reasoning_content: (!self.reasoning.is_empty()).then_some(&self.reasoning),
            annotations: choice.annotations(),
            tool_calls: if legacy { Vec::new() } else { self.calls.iter().map(call).collect() },
            function_call: self.calls.first().filter(|_| legacy).map(function),
            images: self
                .images
                .iter()
                .enumerate()
                .map(|(index, (url, signature))| Image {
                    index,
                    kind: "image_url",
                    image_url: ImageUrl { url: Text::plain(url.as_str()) },
                    extra_content: signed(signature),
                })
                .collect(),
            audio: self.audio.as_ref().map(|(id, pieces)| Audio {
                id,
                data: sound::joined(pieces),
                expires_at: sound::expires_at(stamp),
                transcript: "",
            }),
            extra_content: signed(&choice.signature),
        }
    }
}

fn finished(mut entries: BytesMut) -> Result<Option<Logprobs<Box<RawValue>>>> {
    if entries.is_empty() {
        return Ok(None);
    }
    entries.extend_from_slice(b"]");
    let text = String::from_utf8(entries.into()).map_err(Error::internal)?;
    let content = RawValue::from_string(text).map_err(Error::internal)?;
    Ok(Some(Logprobs { content, refusal: () }))
}
