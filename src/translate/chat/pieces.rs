//! Gemini's parts, one by one.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::gemini::answer::{Blob, FunctionCall, LogprobsCandidate, LogprobsResult, Part, each};
use crate::openai::completion::{Number, TokenLogprob};
use crate::translate::Stamp;
use crate::wire::Text;

use super::Shape;
use super::partial::{OutOfOrder, Writer, compact};
use super::sound::wav_head;
use super::state::{Choice, Hosted, Open, Piece, Role, Sink};

/// One candidate being read.
pub(super) struct Reader<'r, S> {
    pub(super) choice: &'r mut Choice,
    pub(super) index: usize,
    pub(super) shape: &'r Shape,
    pub(super) stamp: &'r Stamp,
    pub(super) sink: &'r mut S,
}

impl<S: Sink> Reader<'_, S> {
    /// Shows one part.
    pub(super) fn part(&mut self, part: &Part<'_>) -> Result<()> {
        let thought = part.thought == Some(true);
        if self.choice.events == 1 {
            self.choice.parts.push(self.choice.text.bytes());
        }
        if let Some(text) = part.text.as_ref().filter(|text| !text.is_empty()) {
            if !thought {
                self.text(text.clone())?;
            } else if self.shape.thoughts {
                self.sink.piece(self.index, Piece::Thought(text.clone()))?;
            }
        }
        let signature = part.thought_signature.as_ref().filter(|signature| !signature.is_empty());
        let code = part.executable_code.is_some() || part.code_execution_result.is_some();
        if let Some(call) = &part.function_call {
            self.call(call, signature)?;
        } else if let Some(blob) = &part.inline_data {
            if !thought {
                self.blob(blob, signature)?;
            }
        } else if part.tool_call.is_some() || part.tool_response.is_some() {
            let hosted = Hosted::Echo { call: part.tool_call, result: part.tool_response, signature };
            self.sink.hosted(self.index, hosted)?;
        } else if let Some(signature) = signature.filter(|_| !code) {
            let said = part.text.as_ref().filter(|_| !thought);
            self.late(signature, said.map_or(0, |text| text.decode().chars().count()))?;
        }
        if let Some(code) = &part.executable_code {
            if self.sink.hosted(self.index, Hosted::Code(code, signature))? {
                self.choice.visible = true;
            } else {
                let language =
                    code.language.as_ref().map(|l| l.decode().to_ascii_lowercase()).unwrap_or_default();
                let language = if language.starts_with("language_") { String::new() } else { language };
                let code = code.code.as_ref().map(Text::decode).unwrap_or_default();
                self.fenced(&language, &code, signature)?;
            }
        }
        if let Some(result) = &part.code_execution_result {
            if self.sink.hosted(self.index, Hosted::Printed(result, signature))? {
                self.choice.visible = true;
            } else {
                let output = result.output.as_ref().map(Text::decode).unwrap_or_default();
                self.fenced("", &output, signature)?;
            }
        }
        if let Some(uri) =
            part.file_data.as_ref().and_then(|file| file.file_uri.as_ref()).filter(|_| !thought)
        {
            self.text(Text::plain(format!("[file]({})", uri.decode())))?;
        }
        Ok(())
    }

    fn text(&mut self, text: Text<'_>) -> Result<()> {
        self.choice.visible = true;
        self.choice.text.push(&text.decode());
        self.sink.piece(self.index, Piece::Text(text))
    }

    /// Code as text, for a front that has no other place for it. Its signature is then that text's.
    fn fenced(&mut self, language: &str, body: &str, signature: Option<&Text<'_>>) -> Result<()> {
        // The fence must be longer than any run of backticks inside.
        let run = body.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat((run + 1).max(3));
        let end = if body.ends_with('\n') { "" } else { "\n" };
        let text = format!("\n{fence}{language}\n{body}{end}{fence}\n");
        let characters = text.chars().count();
        self.text(Text::plain(text))?;
        signature.map_or(Ok(()), |signature| self.late(signature, characters))
    }

    /// The signature of a text part with so many visible characters. With none, it belongs to the call still open
    /// or to the text before.
    fn late(&mut self, signature: &Text<'_>, characters: usize) -> Result<()> {
        if self.choice.open.is_some() {
            return self.sign_open(signature);
        }
        self.sink.signed(self.index, signature, characters)?;
        self.choice.signature = Some(signature.decode().into_owned());
        Ok(())
    }

    fn sign_open(&mut self, signature: &Text<'_>) -> Result<()> {
        let Some(open) = self.choice.open.as_mut().filter(|open| !open.signed) else { return Ok(()) };
        open.signed = true;
        let Role::Tool { index, id, custom } = &open.role else { return Ok(()) };
        self.stamp.signatures.remember(id, &signature.decode());
        let piece = Piece::Arguments {
            index: *index,
            custom: *custom,
            text: Text::plain(""),
            signature: Some(signature.clone()),
        };
        self.sink.piece(self.index, piece)
    }

    fn call(&mut self, call: &FunctionCall<'_>, signature: Option<&Text<'_>>) -> Result<()> {
        let name = call.name.as_ref().filter(|name| !name.is_empty());
        let google_id = call.id.as_ref().filter(|id| !id.is_empty()).map(Text::decode);
        let more = call.will_continue == Some(true);
        let continues = self.choice.open.as_ref().is_some_and(|open| {
            name.is_none() || (google_id.is_some() && open.google_id.as_deref() == google_id.as_deref())
        });
        if !continues {
            self.choice.close_call(self.index, self.sink)?;
            if name.is_none() && call.args.is_none() && google_id.is_none() {
                // The closing mark of a call that is closed already.
                return Ok(());
            }
            let signed = signature.is_some();
            let role = self.begin(name, google_id.as_deref(), signature)?;
            if !more && call.partial_args.is_none() {
                let json = call.args.map_or(Cow::Borrowed("{}"), |args| compact(args.get()));
                self.choice.arguments(self.index, &role, &json, None, self.sink)?;
                let told = matches!(role, Role::Tool { .. });
                return if told { self.sink.called(self.index) } else { Ok(()) };
            }
            let google_id = google_id.map(Cow::into_owned);
            let (writer, held) = (Writer::default(), String::new());
            self.choice.open = Some(Open { writer, held, google_id, role, signed });
        } else if let Some(signature) = signature {
            self.sign_open(signature)?;
        }
        self.fragments(call)?;
        if more { Ok(()) } else { self.choice.close_call(self.index, self.sink) }
    }

    /// Gives on what one event adds to the arguments of the open call.
    fn fragments(&mut self, call: &FunctionCall<'_>) -> Result<()> {
        let Some(mut open) = self.choice.open.take() else { return Ok(()) };
        let mut added = String::new();
        let mut taken = Ok(());
        if let Some(args) = call.args.filter(|args| args.get().len() > 2) {
            taken = open.writer.replace(args.get(), &mut added);
        }
        for fragment in each(&call.partial_args) {
            taken = taken.and_then(|()| open.writer.apply(fragment, &mut added));
        }
        if taken == Err(OutOfOrder) {
            return Err(scrambled());
        }
        if matches!(open.role, Role::Tool { custom: true, .. }) {
            // Its input is a string inside the JSON, so nothing can be given before the end.
            open.held.push_str(&added);
        } else if !added.is_empty() {
            self.choice.arguments(self.index, &open.role, &added, None, self.sink)?;
        }
        self.choice.open = Some(open);
        Ok(())
    }

    /// Tells the client that a call begins.
    fn begin(
        &mut self,
        name: Option<&Text<'_>>,
        google_id: Option<&str>,
        signature: Option<&Text<'_>>,
    ) -> Result<Role> {
        let google_name = name.map_or(Cow::Borrowed("unnamed"), Text::decode);
        if self.shape.answer_function.as_deref() == Some(&*google_name) {
            return Ok(Role::Answer);
        }
        if (self.shape.single_call || self.shape.legacy_functions) && self.choice.calls > 0 {
            return Ok(Role::Hidden);
        }
        let id = match google_id {
            Some(id) if !self.choice.ids.contains(id) => id.to_owned(),
            _ => self.stamp.ids.mint("call_"),
        };
        self.choice.ids.insert(id.clone());
        let client_name = self.shape.names.get(&*google_name).map(String::as_str);
        let custom = !self.shape.legacy_functions
            && self.shape.custom.iter().any(|custom| custom == client_name.unwrap_or(&google_name));
        let shown = match (client_name, name) {
            (Some(name), _) => Text::plain(name),
            (None, Some(name)) => name.clone(),
            (None, None) => Text::plain("unnamed"),
        };
        if let Some(signature) = signature {
            self.stamp.signatures.remember(&id, &signature.decode());
        }
        let index = self.choice.calls;
        self.choice.calls += 1;
        self.choice.visible = true;
        let piece = Piece::Call { index, id: &id, name: shown, custom, signature: signature.cloned() };
        self.sink.piece(self.index, piece)?;
        Ok(Role::Tool { index, id, custom })
    }

    fn blob(&mut self, blob: &Blob<'_>, signature: Option<&Text<'_>>) -> Result<()> {
        let Some(data) = blob.data.as_ref().filter(|data| !data.is_empty()) else { return Ok(()) };
        let mime = blob.mime_type.as_ref().map(Text::decode).unwrap_or_default();
        self.choice.visible = true;
        if mime.starts_with("audio/") {
            let id = if self.choice.audio.is_none() {
                Some(&*self.choice.audio.insert(self.stamp.ids.mint("audio_")))
            } else {
                None
            };
            let mut id = id.map(String::as_str);
            if self.shape.wav
                && id.is_some()
                && let Some(head) = wav_head(&mime)
            {
                self.sink.piece(self.index, Piece::Audio { id: id.take(), data: Text::plain(head) })?;
            }
            return self.sink.piece(self.index, Piece::Audio { id, data: data.clone() });
        }
        let url = format!("data:{mime};base64,{}", data.decode());
        if !mime.starts_with("image/") {
            return self.text(Text::plain(format!("[file]({url})")));
        }
        let index = self.choice.images;
        self.choice.images += 1;
        self.sink.piece(self.index, Piece::Image { index, url, signature: signature.cloned() })
    }
}

fn scrambled() -> Error {
    let message = "Google sent fragments of a call's arguments that do not fit together.";
    Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
        .code("upstream_malformed_output")
        .retry(Retry::Soon)
}

/// A custom tool's input: the one string of its wrapping function.
pub(super) fn input_of(json: &str) -> Option<Text<'_>> {
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        input: &'a RawValue,
    }
    let wrapped: Wrapped<'_> = serde_json::from_str(json).ok()?;
    if wrapped.input.get().starts_with('"') { Text::from_raw(wrapped.input).ok() } else { None }
}

/// Probabilities, token by token.
pub(super) fn entries<'a>(result: &LogprobsResult<'a>) -> Vec<TokenLogprob<'a>> {
    let token = |candidate: &LogprobsCandidate<'a>, top| {
        let token = candidate.token.clone().unwrap_or(Text::plain(""));
        let bytes = token.decode().bytes().map(u16::from).collect();
        TokenLogprob { token, logprob: Number(candidate.log_probability), bytes, top_logprobs: top }
    };
    let tops = result.top_candidates.as_deref().unwrap_or_default();
    each(&result.chosen_candidates)
        .enumerate()
        .map(|(step, chosen)| {
            let top = tops.get(step).and_then(Option::as_ref);
            let top = top.map(|top| each(&top.candidates).map(|other| token(other, None)).collect());
            token(chosen, Some(top.unwrap_or_default()))
        })
        .collect()
}
