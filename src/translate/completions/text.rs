//! Gemini's answers → `text_completion`.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Shape;
use crate::error::{Error, Result};
use crate::openai::completion::{Token, TokenLogprob};
use crate::openai::completions::{Alternatives, Choice, Completion, Logprobs};
use crate::translate::chat::state::{Piece, Session, Sink};
use crate::translate::{Machine, Stamp, counts};
use crate::usage::Usage;
use crate::wire::{self, Text};

const OBJECT: &str = "text_completion";

/// Adds probabilities in the legacy form; `offset` is where the next token begins, in characters.
fn add<'a>(to: &mut Logprobs<'a>, offset: &mut usize, entries: Vec<TokenLogprob<'a>>) {
    for entry in entries {
        to.text_offset.push(*offset);
        *offset += entry.token.decode().chars().count();
        if let Some(top) = entry.top_logprobs
            && !top.is_empty()
        {
            let all = to.top_logprobs.get_or_insert_default();
            all.resize_with(to.tokens.len(), Alternatives::default);
            all.push(Alternatives(top.into_iter().map(|one| (one.token, one.logprob)).collect()));
        }
        to.tokens.push(entry.token);
        to.token_logprobs.push(entry.logprob);
    }
    if let Some(all) = &mut to.top_logprobs {
        all.resize_with(to.tokens.len(), Alternatives::default);
    }
}

/// What one whole answer says.
#[derive(Debug, Default)]
struct Draft {
    text: Token,
    /// Lists of the four kinds, joined at the end; kept as JSON, for what they borrow from is gone by then.
    logprobs: Vec<Box<RawValue>>,
    offset: usize,
}

fn joined(pieces: &[Box<RawValue>]) -> Result<Option<Logprobs<'_>>> {
    let mut all: Option<Logprobs<'_>> = None;
    for piece in pieces {
        let piece: Logprobs<'_> = serde_json::from_str(piece.get()).map_err(Error::internal)?;
        let all = all.get_or_insert_default();
        if let Some(top) = piece.top_logprobs {
            let kept = all.top_logprobs.get_or_insert_default();
            kept.resize_with(all.tokens.len(), Alternatives::default);
            kept.extend(top);
        }
        all.tokens.extend(piece.tokens);
        all.token_logprobs.extend(piece.token_logprobs);
        all.text_offset.extend(piece.text_offset);
        if let Some(kept) = &mut all.top_logprobs {
            kept.resize_with(all.tokens.len(), Alternatives::default);
        }
    }
    Ok(all)
}

fn written<T: Serialize>(value: &T) -> Result<String> {
    let mut out = BytesMut::new();
    wire::append(value, &mut out).map_err(Error::internal)?;
    String::from_utf8(out.into()).map_err(Error::internal)
}

impl Sink for Draft {
    fn piece(&mut self, _: usize, piece: Piece<'_>) -> Result<()> {
        // Nothing else is asked for, and this form has no place for it.
        if let Piece::Text(text) = piece {
            self.text.push(&text);
        }
        Ok(())
    }

    fn logprobs(&mut self, _: usize, entries: Vec<TokenLogprob<'_>>) -> Result<()> {
        let mut logprobs = Logprobs::default();
        add(&mut logprobs, &mut self.offset, entries);
        self.logprobs.push(RawValue::from_string(written(&logprobs)?).map_err(Error::internal)?);
        Ok(())
    }

    fn tier(&mut self, _: &'static str) {}
}

/// Builds one choice from one whole answer, or from all events of a stream: as the whole reply where it is the only
/// one, else alone.
///
/// # Errors
/// When Google answered with an error, with nothing, or broke off.
pub fn reply(shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
    let mut session = Session::new(shape.chat.clone(), stamp.clone());
    let mut draft = Draft::default();
    if let Some(echo) = &shape.echo {
        draft.text.push(&Text::plain(&**echo));
    }
    for answer in answers {
        session.take(answer, &mut draft)?;
    }
    session.check()?;
    let ends = session.close(&mut draft)?;
    let logprobs = joined(&draft.logprobs)?;
    let choice = Choice {
        index: shape.index,
        text: &draft.text,
        logprobs: logprobs.as_ref(),
        finish_reason: Some(ends.first().map_or("stop", |end| end.reason)),
    };
    let usage = session.counts.usage();
    let mut out = BytesMut::with_capacity(answers.iter().map(Bytes::len).sum::<usize>() + 256);
    if shape.among {
        wire::append(&choice, &mut out).map_err(Error::internal)?;
    } else {
        wire::append(&completion(stamp, [choice], &usage), &mut out).map_err(Error::internal)?;
    }
    Ok((out.freeze(), usage))
}

fn completion<'a, C>(stamp: &'a Stamp, choices: C, usage: &Usage) -> Completion<'a, C> {
    Completion {
        id: &stamp.id,
        object: OBJECT,
        created: stamp.created,
        model: &stamp.model,
        choices,
        usage: counts::object(usage),
    }
}

/// Puts the choices of several answers into one reply.
///
/// # Errors
/// Only if JSON cannot be written.
pub fn whole(stamp: &Stamp, choices: &[Bytes], usage: &Usage) -> Result<Bytes> {
    let mut read: Vec<&RawValue> = Vec::with_capacity(choices.len());
    for choice in choices {
        read.push(serde_json::from_slice(choice).map_err(Error::internal)?);
    }
    let mut out = BytesMut::with_capacity(choices.iter().map(Bytes::len).sum::<usize>() + 256);
    wire::append(&completion(stamp, read, usage), &mut out).map_err(Error::internal)?;
    Ok(out.freeze())
}

/// What every chunk of a stream begins with.
fn head(stamp: &Stamp) -> String {
    #[derive(Serialize)]
    struct Head<'a> {
        id: &'a str,
        object: &'static str,
        created: u64,
        model: &'a str,
    }
    let head = Head { id: &stamp.id, object: OBJECT, created: stamp.created, model: &stamp.model };
    // Strings and numbers can always be written.
    let head = serde_json::to_string(&head).unwrap_or_default();
    format!("data: {},\"choices\":[", head.trim_end_matches('}'))
}

/// The end of a stream: the counts if they were asked for, and `[DONE]`.
///
/// # Errors
/// Only if JSON cannot be written.
pub fn closing(stamp: &Stamp, include_usage: bool, usage: &Usage, out: &mut BytesMut) -> Result<()> {
    if include_usage {
        out.extend_from_slice(head(stamp).as_bytes());
        out.extend_from_slice(b"],\"usage\":");
        wire::append(&counts::object(usage), out).map_err(Error::internal)?;
        out.extend_from_slice(b"}\n\n");
    }
    out.extend_from_slice(b"data: [DONE]\n\n");
    Ok(())
}

/// The translator of one choice's stream.
#[derive(Debug)]
pub struct CompletionMachine {
    session: Session,
    frame: Frame,
    among: bool,
    done: bool,
}

#[derive(Debug)]
struct Frame {
    head: String,
    tail: &'static str,
    index: usize,
    echo: Option<std::sync::Arc<str>>,
    /// Probabilities that came before their text.
    logprobs: Option<String>,
    offset: usize,
}

impl CompletionMachine {
    /// A translator for one stream.
    pub fn new(shape: Shape, stamp: Stamp) -> Self {
        let Shape { chat, echo, index, among } = shape;
        let tail = if chat.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" };
        let frame = Frame { head: head(&stamp), tail, index, echo, logprobs: None, offset: 0 };
        Self { session: Session::new(chat, stamp), frame, among, done: false }
    }
}

impl Machine for CompletionMachine {
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
        writer.chunk(&Text::plain(""), Some(ends.first().map_or("stop", |end| end.reason)))?;
        if !self.among {
            closing(&self.session.stamp, self.session.shape.include_usage, &usage, out)?;
        }
        self.done = true;
        Ok(usage)
    }
}

struct Writer<'w> {
    frame: &'w mut Frame,
    out: &'w mut BytesMut,
}

impl Writer<'_> {
    fn chunk(&mut self, text: &Text<'_>, finish_reason: Option<&'static str>) -> Result<()> {
        #[derive(Serialize)]
        struct Chunk<'a> {
            index: usize,
            text: &'a Text<'a>,
            logprobs: Option<Box<RawValue>>,
            finish_reason: Option<&'static str>,
        }
        let index = self.frame.index;
        if let Some(echo) = self.frame.echo.take() {
            let echo = Text::plain(&*echo);
            self.write(&Chunk { index, text: &echo, logprobs: None, finish_reason: None })?;
        }
        let logprobs = self.frame.logprobs.take().map(RawValue::from_string).transpose();
        let logprobs = logprobs.map_err(Error::internal)?;
        self.write(&Chunk { index, text, logprobs, finish_reason })
    }

    fn write<T: Serialize>(&mut self, choice: &T) -> Result<()> {
        self.out.extend_from_slice(self.frame.head.as_bytes());
        wire::append(choice, self.out).map_err(Error::internal)?;
        self.out.extend_from_slice(self.frame.tail.as_bytes());
        Ok(())
    }
}

impl Sink for Writer<'_> {
    fn piece(&mut self, _: usize, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Text(text) => self.chunk(&text, None),
            Piece::Thought(_)
            | Piece::Call { .. }
            | Piece::Arguments { .. }
            | Piece::Image { .. }
            | Piece::Audio { .. } => Ok(()),
        }
    }

    fn logprobs(&mut self, _: usize, entries: Vec<TokenLogprob<'_>>) -> Result<()> {
        if self.frame.logprobs.is_some() {
            self.chunk(&Text::plain(""), None)?;
        }
        let mut logprobs = Logprobs::default();
        add(&mut logprobs, &mut self.frame.offset, entries);
        self.frame.logprobs = Some(written(&logprobs)?);
        Ok(())
    }

    fn tier(&mut self, _: &'static str) {}
}
