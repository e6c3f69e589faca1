//! Logs: one subscriber, JSON for machines or a line for people, and the helpers that keep them clean.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod json;
mod lines;

use json::Json;
use lines::Lines;

pub use json::{Line, Put};
pub use lines::flush;

/// Where lines go, once it is known that they are JSON.
static JSON: OnceLock<Lines> = OnceLock::new();

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines for people on a terminal, JSON anywhere else.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// A line for people.
    Pretty,
}

/// Installs the process-wide subscriber, writing to standard error, where lines lie for a moment (see [`flush`]).
/// `filter` is a level or a list of `target=level`; an unreadable one counts as `info`. Calling it twice changes nothing.
///
/// Whatever the filter says, other crates are heard from `info` on only: what they say below that (frames, statements
/// and their parameters) may hold what is a client's alone.
pub fn init(format: Format, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Json => true,
        Format::Pretty => false,
    };
    let base = fmt().with_env_filter(filter).with_writer(Lines::start());
    let quiet = filter_fn(|told| told.target().starts_with("gemway") || *told.level() <= Level::INFO);
    // A second call (tests in one process) finds a subscriber in place; keeping the first is right.
    if !json {
        let _ = base.compact().with_ansi(terminal).finish().with(quiet).try_init();
    } else if base.event_format(Json).finish().with(quiet).try_init().is_ok() {
        let _ = JSON.set(Lines::start());
    }
}

/// Whether lines are JSON: then [`put`] writes what an event would have.
pub fn is_json() -> bool {
    JSON.get().is_some()
}

/// Writes a line: level, target and message, and the fields in between. Whether there is to be one is for the caller to
/// ask (`tracing::enabled!`).
pub fn put(about: (Level, &str, &str), fields: impl FnOnce(&mut Line)) {
    if let Some(lines) = JSON.get() {
        json::write(about, fields, |line| lines.put(line, about.0));
    }
}

/// A secret as it may be shown: enough to tell two apart, never enough to use.
pub fn mask(secret: &str) -> String {
    let length = secret.chars().count();
    if length < 12 {
        return "****".to_owned();
    }
    let tail: String = secret.chars().skip(length - 4).collect();
    let head: String = secret.chars().take(3).collect();
    format!("{head}…{tail}")
}

/// Client text as it may be logged: control characters escaped, cut at `limit` characters.
pub fn clip(text: &str, limit: usize) -> String {
    clipped(text, limit).into_owned()
}

/// The same, borrowed where nothing has to change.
pub fn clipped(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            clean.push('…');
            break;
        }
        // Line breaks and terminal escapes would let a caller forge log lines.
        if character.is_control() || ('\u{200e}'..='\u{206f}').contains(&character) {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_secret_tells_little() {
        assert_eq!(mask("AIzaSyA-1234567890abcd"), "AIz…abcd");
        assert_eq!(mask("short"), "****");
        assert_eq!(mask("äöüäöüäöüäöü"), "äöü…üäöü");
    }

    #[test]
    fn client_text_cannot_forge_a_line() {
        assert_eq!(clip("a\nb\u{1b}[0m", 80), "a\\u{a}b\\u{1b}[0m");
        assert_eq!(clip("abcdef", 3), "abc…");
    }
}
