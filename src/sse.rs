//! Server-sent events and JSON streams: upstream bytes in, the JSON of each event out.
//!
//! Three forms are told apart by their first byte: events (`data: {…}`), a JSON array that grows
//! (`[{…},{…}]`, Google's classic form), and bare JSON objects (one whole answer, or an error where a stream was
//! expected). Every byte is looked at once; an event that lies within one piece of input is a slice of it.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::{Error, Kind, Origin, Result, Retry};

/// The default bound of one event: pictures come as megabytes in one line.
pub const MAX_EVENT: usize = 64 << 20;

/// Stray text beyond this is no error message.
const MAX_STRAY: usize = 1 << 20;
/// How often stray text is tried as JSON before the end.
const MAX_TRIES: u32 = 16;

/// An incremental decoder.
#[derive(Debug)]
pub struct Decoder {
    cap: usize,
    form: Form,
    /// An unfinished line, or an unfinished JSON object.
    partial: BytesMut,
    /// The line before ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    data: Data,
    stray: BytesMut,
    tries: u32,
    scan: Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Unknown,
    Events,
    Json,
}

/// The data lines of the event at hand; one line stays a slice.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

/// Where the scanner is inside a JSON object.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: usize,
    text: bool,
    escape: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(MAX_EVENT)
    }
}

impl Decoder {
    /// A decoder that refuses events of more than `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            form: Form::Unknown,
            partial: BytesMut::new(),
            after_cr: false,
            data: Data::None,
            stray: BytesMut::new(),
            tries: 0,
            scan: Scan::default(),
        }
    }

    /// Takes a piece of input and appends the events that it completes.
    ///
    /// # Errors
    /// When an event is over the bound, or the input is neither form.
    pub fn push(&mut self, mut input: Bytes, out: &mut Vec<Bytes>) -> Result<()> {
        if self.form == Form::Unknown {
            // A byte order mark may be cut anywhere; its bytes begin nothing else.
            let begins = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, 0xEF | 0xBB | 0xBF);
            let Some(at) = input.iter().position(begins) else { return Ok(()) };
            input.advance(at);
            self.form = match input.first() {
                Some(b'[' | b'{') => Form::Json,
                _ => Form::Events,
            };
        }
        if self.form == Form::Json { self.json(input, out) } else { self.events(input, out) }
    }

    /// The input has ended: appends what was complete without saying so.
    ///
    /// # Errors
    /// When the input broke off inside an event.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<()> {
        if self.form == Form::Json {
            return if self.scan.depth == 0 { Ok(()) } else { Err(broken_off()) };
        }
        let line = std::mem::take(&mut self.partial).freeze();
        if !line.is_empty() {
            self.line(line, out);
        }
        let data = std::mem::take(&mut self.data).into_bytes();
        if let Some(data) = data {
            if serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_err() {
                return Err(broken_off());
            }
            out.push(data);
        }
        self.tries = 0;
        self.stray(out);
        Ok(())
    }

    fn events(&mut self, mut input: Bytes, out: &mut Vec<Bytes>) -> Result<()> {
        while !input.is_empty() {
            if self.is_between() && input.starts_with(b"data: {") {
                // One line and an empty one, and nothing else: how nearly all events come.
                let end = memchr::memchr2(b'\n', b'\r', &input).unwrap_or(input.len());
                if matches!(input.get(end..), Some(b"\r\n\r\n" | b"\n\n")) {
                    self.room(end)?;
                    input.truncate(end);
                    input.advance(6);
                    out.push(input);
                    return Ok(());
                }
            }
            if std::mem::take(&mut self.after_cr) && input.first() == Some(&b'\n') {
                input.advance(1);
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', &input) else {
                self.room(input.len())?;
                self.partial.extend_from_slice(&input);
                return Ok(());
            };
            self.room(end)?;
            let mut line = input.split_to(end);
            self.after_cr = input.first() == Some(&b'\r');
            input.advance(1);
            if !self.partial.is_empty() {
                self.partial.extend_from_slice(&line);
                line = std::mem::take(&mut self.partial).freeze();
            }
            self.line(line, out);
        }
        Ok(())
    }

    /// Whether nothing of an event is in hand.
    fn is_between(&self) -> bool {
        !self.after_cr && self.partial.is_empty() && self.stray.is_empty() && matches!(self.data, Data::None)
    }

    fn room(&self, more: usize) -> Result<()> {
        if self.partial.len() + self.data.len() + more > self.cap {
            return Err(invalid("An event of Google's stream is too large."));
        }
        Ok(())
    }

    fn line(&mut self, mut line: Bytes, out: &mut Vec<Bytes>) {
        if line.is_empty() {
            if let Some(data) = std::mem::take(&mut self.data).into_bytes()
                && !data.iter().all(u8::is_ascii_whitespace)
                && data != "[DONE]"
            {
                out.push(data);
            }
            self.stray(out);
        } else if line.starts_with(b"data:") {
            self.stray(out);
            self.stray.clear();
            line.advance(5);
            if line.first() == Some(&b' ') {
                line.advance(1);
            }
            self.data.push(line);
        } else if line == "data" {
            self.data.push(Bytes::new());
        } else if !(line.starts_with(b":")
            || line.starts_with(b"event:")
            || line.starts_with(b"id:")
            || line.starts_with(b"retry:"))
            && self.stray.len() + line.len() < MAX_STRAY
        {
            self.stray.extend_from_slice(&line);
            self.stray.extend_from_slice(b"\n");
        }
    }

    /// Lines that are no fields may be an error that Google wrote into the stream as plain JSON.
    fn stray(&mut self, out: &mut Vec<Bytes>) {
        let text = self.stray.trim_ascii();
        let closed = matches!(text.first(), Some(b'{' | b'[')) && matches!(text.last(), Some(b'}' | b']'));
        if !closed || self.tries >= MAX_TRIES {
            return;
        }
        self.tries += 1;
        if is_error(text) {
            out.push(Bytes::copy_from_slice(text));
            self.stray.clear();
            self.tries = 0;
        }
    }

    fn json(&mut self, mut input: Bytes, out: &mut Vec<Bytes>) -> Result<()> {
        loop {
            if self.scan.depth == 0 {
                let between = |byte: &u8| !(byte.is_ascii_whitespace() || matches!(byte, b'[' | b',' | b']'));
                let Some(at) = input.iter().position(between) else { return Ok(()) };
                input.advance(at);
                if input.first() != Some(&b'{') {
                    return Err(invalid("Google's stream holds something that is not JSON."));
                }
            }
            let end = self.scan.object_end(&input);
            if self.partial.len() + end.unwrap_or(input.len()) > self.cap {
                return Err(invalid("An event of Google's stream is too large."));
            }
            let Some(end) = end else {
                self.partial.extend_from_slice(&input);
                return Ok(());
            };
            let object = input.split_to(end);
            if self.partial.is_empty() {
                out.push(object);
            } else {
                self.partial.extend_from_slice(&object);
                out.push(std::mem::take(&mut self.partial).freeze());
            }
        }
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(one) => one.len(),
            Self::Many(many) => many.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(line),
            Self::One(one) => {
                let mut many = BytesMut::with_capacity(one.len() + line.len() + 1);
                many.extend_from_slice(&one);
                many.extend_from_slice(b"\n");
                many.extend_from_slice(&line);
                Self::Many(many)
            }
            Self::Many(mut many) => {
                many.extend_from_slice(b"\n");
                many.extend_from_slice(&line);
                Self::Many(many)
            }
        };
    }

    fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::One(one) => Some(one),
            Self::Many(many) => Some(many.freeze()),
        }
    }
}

impl Scan {
    /// Reads on; the length up to and with the closing brace, if it is there.
    fn object_end(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.escape {
                self.escape = false;
                at += 1;
            } else if self.text {
                let found = memchr::memchr2(b'"', b'\\', rest)?;
                at += found + 1;
                if rest.get(found) == Some(&b'"') {
                    self.text = false;
                } else {
                    self.escape = true;
                }
            } else {
                at += 1;
                match rest.first() {
                    Some(b'"') => self.text = true,
                    Some(b'{' | b'[') => self.depth += 1,
                    Some(b'}' | b']') => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => {}
                }
            }
        }
        None
    }
}

fn is_error(text: &[u8]) -> bool {
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(serde_json::Value::Array(list)) => list.first().is_some_and(|first| first.get("error").is_some()),
        Ok(value) => value.get("error").is_some(),
        Err(_) => false,
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
        .code("upstream_invalid_response")
        .retry(Retry::Soon)
}

fn broken_off() -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google broke off before the answer was complete.")
        .code("upstream_disconnected")
        .retry(Retry::Soon)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<String>> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece), &mut out)?;
        }
        decoder.finish(&mut out)?;
        Ok(out.iter().map(|event| String::from_utf8(event.to_vec()).unwrap()).collect())
    }

    #[test]
    fn every_cut_gives_the_same_events() {
        let events = "data: {\"a\":\"x\u{2028}é\"}\n\n: hello\ndata:{\"b\":\ndata: 1}\n\nevent: x\nid: 1\n\ndata: [DONE]\n\ndata: {\"c\":2}\n\n";
        let expected = ["{\"a\":\"x\u{2028}é\"}", "{\"b\":\n1}", "{\"c\":2}"];
        for ending in ["\n", "\r\n", "\r"] {
            for start in ["", "\u{feff}", ": comment\n\n", "\n\n"] {
                let stream = format!("{start}{events}").replace('\n', ending);
                for cut in 0..=stream.len() {
                    let (left, right) = stream.as_bytes().split_at(cut);
                    assert_eq!(decode(&[left, right]).unwrap(), expected, "cut at {cut} with {ending:?}");
                }
                let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
                assert_eq!(decode(&bytes).unwrap(), expected);
            }
        }
    }

    #[test]
    fn arrays_and_bare_objects_are_streams_too() {
        let stream = " [{\n\"a\":\"}]\\\"{\"}\n,\r\n{\"b\":[{}]}]\n";
        for cut in 0..=stream.len() {
            let (left, right) = stream.as_bytes().split_at(cut);
            assert_eq!(decode(&[left, right]).unwrap(), ["{\n\"a\":\"}]\\\"{\"}", "{\"b\":[{}]}"]);
        }
        assert_eq!(decode(&[b"{\n \"error\": {}\n}\n"]).unwrap(), ["{\n \"error\": {}\n}"]);
        assert!(decode(&[b"[{\"a\":"]).is_err());
        assert!(decode(&[b"[5]"]).is_err());
    }

    #[test]
    fn an_error_written_into_the_stream_is_an_event() {
        let stream = b"data: {\"a\":1}\n\n{\n  \"error\": {\n    \"code\": 503\n  }\n}\n";
        assert_eq!(decode(&[stream]).unwrap(), ["{\"a\":1}", "{\n  \"error\": {\n    \"code\": 503\n  }\n}"]);
        let stream = b": x\n[{\"error\":{}}]\n\n";
        assert_eq!(decode(&[stream]).unwrap(), ["[{\"error\":{}}]"]);
        assert!(decode(&[b"<html>login</html>"]).unwrap().is_empty());
    }

    #[test]
    fn the_last_event_needs_no_blank_line_but_must_be_whole() {
        assert_eq!(decode(&[b"data: {\"a\":1}"]).unwrap(), ["{\"a\":1}"]);
        let error = decode(&[b"data: {\"a\":"]).unwrap_err();
        assert_eq!(error.explicit_code(), Some("upstream_disconnected"));
    }

    #[test]
    fn an_event_over_the_bound_is_refused_and_a_whole_one_is_a_slice() {
        let mut decoder = Decoder::new(10);
        assert!(decoder.push(Bytes::from_static(b"data: {\"a\":\"0123456789\"}"), &mut Vec::new()).is_err());
        let input = Bytes::from_static(b"data: {\"a\":1}\n\n");
        let mut out = Vec::new();
        Decoder::default().push(input.clone(), &mut out).unwrap();
        assert!(input.as_ptr_range().contains(&out[0].as_ptr()));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_cuts_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let cut = cut.min(bytes.len());
            let run = |pieces: &[&[u8]]| {
                let (mut decoder, mut out) = (Decoder::default(), Vec::new());
                for piece in pieces {
                    if decoder.push(Bytes::copy_from_slice(piece), &mut out).is_err() {
                        return (out, false);
                    }
                }
                let fine = decoder.finish(&mut out).is_ok();
                (out, fine)
            };
            let (left, right) = bytes.split_at(cut);
            prop_assert_eq!(run(&[left, right]), run(&[&bytes]));
        }
    }
}
