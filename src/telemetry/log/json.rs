//! One JSON object a line.
//!
//! The form is that of `tracing-subscriber`'s own, flattened: time, level, the fields, the target. It is written
//! here because every request has a line of thirty fields, and passing each quote of it through a checked writer
//! costs as much as the request's translation.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format.
pub(super) struct Json;

/// The line being written, and a text before its escapes are; kept for their room.
#[derive(Default)]
struct Line {
    json: Vec<u8>,
    text: String,
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
        // What is logged while a line is written (by a value's own `Debug`) has a line of its own.
        let mut line =
            LINE.try_with(|line| line.try_borrow_mut().ok().map(|mut line| std::mem::take(&mut *line)));
        let mut line = line.as_mut().ok().and_then(Option::take).unwrap_or_default();
        line.write(event)?;
        let Ok(written) = std::str::from_utf8(&line.json) else { return Err(fmt::Error) };
        out.write_str(written)?;
        if line.json.capacity() <= ROOM && line.text.capacity() <= ROOM {
            // At the thread's end there is nothing to keep it in.
            let _ = LINE.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = line).ok());
        }
        Ok(())
    }
}

impl Line {
    fn write(&mut self, event: &Event<'_>) -> fmt::Result {
        self.json.clear();
        self.json.extend_from_slice(b"{\"timestamp\":\"");
        self.text.clear();
        SystemTime.format_time(&mut Writer::new(&mut self.text))?;
        self.json.extend_from_slice(self.text.as_bytes());
        self.json.extend_from_slice(b"\",\"level\":\"");
        self.json.extend_from_slice(event.metadata().level().as_str().as_bytes());
        self.json.extend_from_slice(b"\"");
        event.record(self);
        self.name("target");
        self.json(event.metadata().target());
        self.json.extend_from_slice(b"}\n");
        Ok(())
    }

    /// A field's name: a word of ours, without anything to escape.
    fn name(&mut self, name: &str) {
        self.json.extend_from_slice(b",\"");
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
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
        self.json(&text);
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
        record_str &str;
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
        let base = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
        tracing::subscriber::with_default(base.with_writer(ours.clone()).event_format(Json).finish(), say);
        let base = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(theirs.clone());
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

    #[test]
    fn a_value_may_log_while_it_is_shown() {
        let kept = Kept::default();
        let base = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
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
