//! One JSON object a line.
//!
//! The form is that of `tracing-subscriber`'s own, flattened: time, level, the fields, the target. It is written
//! here because every request has a line of thirty fields, and passing each quote of it through a checked writer
//! costs as much as the request's translation. The fields of that line come by [`Put`], all others as `tracing` shows
//! them.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;
use crate::decimal::{self, Short};

/// The format.
pub(super) struct Json;

/// The line being written, and a text before its escapes are; kept for their room.
#[derive(Debug, Default)]
pub struct Line {
    json: Vec<u8>,
    text: String,
    /// The second that was written last, and how it is written.
    second: (u64, String),
}

/// More room than this is not kept.
const ROOM: usize = 16 << 10;

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        with_line(|line| {
            line.write(event);
            std::str::from_utf8(&line.json).map_or(Err(fmt::Error), |written| out.write_str(written))
        })
    }
}

/// Writes one line of these fields, and hands it to `out`.
pub(super) fn write(
    (level, target, message): (Level, &str, &str),
    fields: impl FnOnce(&mut Line),
    out: impl FnOnce(&[u8]),
) {
    with_line(|line| {
        line.begin(level);
        line.put(",\"message\":", message);
        fields(line);
        line.end(target);
        out(&line.json);
    });
}

/// Lends the thread's line.
fn with_line<T>(work: impl FnOnce(&mut Line) -> T) -> T {
    // What is logged while a line is written (by a value's own `Debug`) has a line of its own.
    let line = LINE.try_with(|line| line.try_borrow_mut().ok().map(|mut line| std::mem::take(&mut *line)));
    let mut line = line.ok().flatten().unwrap_or_default();
    let done = work(&mut line);
    if line.json.capacity() <= ROOM && line.text.capacity() <= ROOM {
        // At the thread's end there is nothing to keep it in.
        let _ = LINE.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = line).ok());
    }
    done
}

/// A value as a field of a line. What is absent leaves no field.
///
/// A line has some thirty, one after the other: were each written out where it stands, code that is run once would fill a
/// third of the processor's cache for code.
pub trait Put {
    /// Writes the field; `name` is `,"name":`, all that stands before the value.
    fn put(&self, line: &mut Line, name: &'static str);
}

impl Put for str {
    #[inline(never)]
    fn put(&self, line: &mut Line, name: &'static str) {
        // Room for all of it at once, and the parts need not look for any.
        line.json.reserve(name.len() + self.len() + 2);
        line.json.extend_from_slice(name.as_bytes());
        line.string(self);
    }
}

impl Put for u64 {
    #[inline(never)]
    fn put(&self, line: &mut Line, name: &'static str) {
        line.json.extend_from_slice(name.as_bytes());
        decimal::push(&mut line.json, *self);
    }
}

impl Put for bool {
    #[inline(never)]
    fn put(&self, line: &mut Line, name: &'static str) {
        line.json.extend_from_slice(name.as_bytes());
        line.json.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl Put for f64 {
    #[inline(never)]
    fn put(&self, line: &mut Line, name: &'static str) {
        line.json.extend_from_slice(name.as_bytes());
        line.json(self);
    }
}

macro_rules! like {
    ($($type:ty),*) => {
        $(impl Put for $type {
            fn put(&self, line: &mut Line, name: &'static str) {
                u64::from(*self).put(line, name);
            }
        })*
    };
}

like!(u16, u32);

impl<T: Put + ?Sized> Put for &T {
    fn put(&self, line: &mut Line, name: &'static str) {
        (**self).put(line, name);
    }
}

impl<T: Put> Put for Option<T> {
    fn put(&self, line: &mut Line, name: &'static str) {
        if let Some(value) = self {
            value.put(line, name);
        }
    }
}

impl Line {
    /// Writes a field; `name` is `,"name":`.
    pub fn put<T: Put + ?Sized>(&mut self, name: &'static str, value: &T) {
        value.put(self, name);
    }

    fn begin(&mut self, level: Level) {
        self.json.clear();
        self.json.extend_from_slice(b"{\"timestamp\":\"");
        self.stamp(Clock::System.unix_micros());
        self.json.extend_from_slice(b"\",\"level\":\"");
        self.json.extend_from_slice(level.as_str().as_bytes());
        self.json.extend_from_slice(b"\"");
    }

    fn end(&mut self, target: &str) {
        self.put(",\"target\":", target);
        self.json.extend_from_slice(b"}\n");
    }

    fn write(&mut self, event: &Event<'_>) {
        self.begin(*event.metadata().level());
        event.record(self);
        self.end(event.metadata().target());
    }

    /// `2026-11-21T22:33:44.555555Z`: most lines fall into the second of the one before.
    fn stamp(&mut self, micros: u64) {
        let (second, micros) = (micros / 1_000_000, micros % 1_000_000);
        if self.second.0 != second || self.second.1.is_empty() {
            let time =
                i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
            let mut written = time.map_or_else(|| "1970-01-01T00:00:00Z".to_owned(), |time| time.to_string());
            written.truncate(written.len() - 1);
            self.second = (second, written);
        }
        self.json.extend_from_slice(self.second.1.as_bytes());
        self.json.extend_from_slice(Short::default().word(".").padded(micros, 6).word("Z").as_bytes());
    }

    /// A field's name: a word of ours, without anything to escape.
    fn name(&mut self, name: &str) {
        self.json.extend_from_slice(b",\"");
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        let odd = |byte: u8| u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
        // Without a way out of the loop all bytes are looked at side by side.
        if text.bytes().fold(0, |found, byte| found | odd(byte)) != 0 {
            return self.json(text);
        }
        self.json.push(b'"');
        self.json.extend_from_slice(text.as_bytes());
        self.json.push(b'"');
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        if serde_json::to_writer(&mut self.json, value).is_err() {
            // No text or number fails; whatever does must not break the line.
            let _ = self.json.write_all(b"null");
        }
    }

    fn shown(&mut self, value: fmt::Arguments<'_>) {
        self.text.clear();
        // A value that cannot show itself shows what it could.
        let _ = self.text.write_fmt(value);
        let text = std::mem::take(&mut self.text);
        self.string(&text);
        self.text = text;
    }
}

macro_rules! fields {
    ($($method:ident $kind:ty;)*) => {
        $(fn $method(&mut self, field: &Field, value: $kind) {
            self.name(field.name());
            self.json(&value);
        })*
    };
}

impl Visit for Line {
    fields! {
        record_f64 f64;
        record_i64 i64;
        record_u64 u64;
        record_i128 i128;
        record_u128 u128;
        record_bool bool;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field.name());
        self.string(value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.shown(format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::Value;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// Shows itself, and says something while it does.
    struct Chatty;

    impl fmt::Debug for Chatty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            tracing::info!("inside");
            f.write_str("chatty")
        }
    }

    fn say() {
        tracing::info!(
            text = "a \"quoted\"\nline",
            shown = %"\u{1b}é",
            debug = ?Some(1),
            count = 7_u64,
            below = -7_i64,
            share = 0.25,
            tiny = 1.5e-9,
            nothing = f64::NAN,
            yes = true,
            absent = None::<&str>,
            dotted.name = "x",
            "message {}",
            1
        );
        tracing::warn!(target: "elsewhere", "short");
    }

    #[test]
    fn a_line_is_what_the_usual_format_writes() {
        let (ours, theirs) = (Kept::default(), Kept::default());
        let base = tracing_subscriber::fmt().with_max_level(Level::INFO);
        tracing::subscriber::with_default(base.with_writer(ours.clone()).event_format(Json).finish(), say);
        let base = tracing_subscriber::fmt().with_max_level(Level::INFO).with_writer(theirs.clone());
        let base = base.json().flatten_event(true).with_current_span(false).with_span_list(false);
        tracing::subscriber::with_default(base.finish(), say);
        let lines = |kept: Kept| -> Vec<Value> {
            let text = String::from_utf8(kept.0.lock().clone()).unwrap();
            text.lines()
                .map(|line| {
                    let mut line: Value = serde_json::from_str(line).unwrap();
                    let time = line["timestamp"].take();
                    assert_eq!(time.as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
                    line
                })
                .collect()
        };
        let (ours, theirs) = (lines(ours), lines(theirs));
        assert_eq!(ours.len(), 2);
        // As text too: the order of the fields is part of the form.
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    proptest! {
        #[test]
        fn a_string_is_what_the_usual_writer_writes(text in any::<String>(), plain in "[ -~]{0,40}") {
            for text in [&text, &plain] {
                let mut line = Line::default();
                line.string(text);
                prop_assert_eq!(String::from_utf8(line.json).unwrap(), serde_json::to_string(text).unwrap());
            }
        }

        #[test]
        fn a_time_is_what_a_calendar_says(seconds in prop::collection::vec(0_u64..4_000_000_000, 1..4), micros in 0_u64..1_000_000) {
            let mut line = Line::default();
            for second in seconds {
                line.json.clear();
                line.stamp(second * 1_000_000 + micros);
                let written = String::from_utf8(line.json.clone()).unwrap();
                prop_assert_eq!(written.len(), "2026-01-01T00:00:00.000000Z".len());
                let read: jiff::Timestamp = written.parse().unwrap();
                prop_assert_eq!(read.as_microsecond(), i64::try_from(second * 1_000_000 + micros).unwrap());
            }
        }
    }

    #[test]
    fn fields_put_are_what_an_event_writes() {
        let kept = Kept::default();
        let base = tracing_subscriber::fmt().with_max_level(Level::INFO);
        let subscriber = base.with_writer(kept.clone()).event_format(Json).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "t", text = "a\"b", count = 7_u32, yes = true, share = 2.5, none = None::<u64>, "said");
        });
        let mut put = Vec::new();
        let fields = |line: &mut Line| {
            line.put(",\"text\":", "a\"b");
            line.put(",\"count\":", &7_u32);
            line.put(",\"yes\":", &true);
            line.put(",\"share\":", &2.5);
            line.put(",\"none\":", &None::<u64>);
        };
        write((Level::INFO, "t", "said"), fields, |line| put.extend_from_slice(line));
        let untimed = |line: Vec<u8>| {
            let line = String::from_utf8(line).unwrap();
            line.split_once(",\"level\"").unwrap().1.to_owned()
        };
        assert_eq!(untimed(put), untimed(kept.0.lock().clone()));
    }

    #[test]
    fn a_value_may_log_while_it_is_shown() {
        let kept = Kept::default();
        let base = tracing_subscriber::fmt().with_max_level(Level::INFO);
        let subscriber = base.with_writer(kept.clone()).event_format(Json).finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!(value = ?Chatty, "outside"));
        let text = String::from_utf8(kept.0.lock().clone()).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["message"] == "inside" || line["value"] == "chatty");
        }
        assert!(text.contains("outside"));
    }
}
