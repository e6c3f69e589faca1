//! Pictures as megabytes of base64, kept out of the way while the rest of a request is read and translated.
//!
//! Each reading of a text costs a look at every byte of it, and a request is read several times: checked, parsed,
//! parsed again part by part. Of a long run of base64 nothing is learnt by that. So it is cut out of the body first,
//! a short mark stands in its place, and when all is translated the mark is replaced by a slice of the body. Base64
//! reads the same in every place that a text can come to, in JSON and in JSON within JSON, so hardly anybody in between
//! can tell; its beginning and its end, which some look at, stay. Who decodes it destroys the mark, and that is seen:
//! then the whole body is read after all.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};

use super::{Rope, are_base64};

/// A run shorter than this is read like any other text.
const LONG: usize = 256 << 10;
/// How far apart the places are that are looked at.
const STEP: usize = LONG / 2;
/// What stays of a run at its beginning: a data URL's head, and enough to tell what kind of file it is.
const HEAD: usize = 4096;
/// What stays at its end: the padding.
const TAIL: usize = 64;
/// Digits of a mark's number.
const DIGITS: usize = 6;

/// How marks begin in this process: no text holds this by chance, and nobody outside learns it.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let mut secret = [0; 16];
    // Without randomness a client could name the mark, and get its own picture twice.
    let _ = getrandom::fill(&mut secret);
    format!("gemwayAside{:032x}", u128::from_ne_bytes(secret))
});

/// A body without its long runs of base64, and those.
#[derive(Clone, Debug)]
pub struct Aside {
    /// The body with marks, as valid or invalid as the whole body is.
    pub body: Bytes,
    runs: Vec<Bytes>,
}

impl Aside {
    /// Takes the long runs out of a body of JSON.
    pub fn of(whole: Bytes) -> Self {
        let found = if whole.len() < LONG { Vec::new() } else { runs(&whole) };
        if found.is_empty() {
            return Self::from(whole);
        }
        let taken: usize = found.iter().map(Range::len).sum();
        let mut body = BytesMut::with_capacity(whole.len() - taken + found.len() * 64);
        let (mut runs, mut at) = (Vec::with_capacity(found.len()), 0);
        for (index, run) in found.into_iter().enumerate() {
            body.extend_from_slice(whole.get(at..run.start).unwrap_or_default());
            body.extend_from_slice(mark(index).as_bytes());
            at = run.end;
            runs.push(whole.slice(run));
        }
        body.extend_from_slice(whole.get(at..).unwrap_or_default());
        Self { body: body.freeze(), runs }
    }

    /// Whether nothing was taken out.
    pub fn is_whole(&self) -> bool {
        self.runs.is_empty()
    }

    /// Puts the runs back into what was made of the body. Nothing where one of them is not asked for: then what was
    /// made is not to be trusted.
    pub fn restore(&self, rope: Rope) -> Option<Rope> {
        if self.runs.is_empty() {
            return Some(rope);
        }
        let mut missing = vec![true; self.runs.len()];
        let finder = memchr::memmem::Finder::new(MARK.as_bytes());
        let mut whole = Rope::default();
        for mut piece in rope.0 {
            while let Some(at) = finder.find(&piece) {
                let end = at + MARK.len() + DIGITS;
                let number =
                    piece.get(at + MARK.len()..end).and_then(|digits| std::str::from_utf8(digits).ok());
                let index = number?.parse::<usize>().ok()?;
                let (run, missing) = (self.runs.get(index)?, missing.get_mut(index)?);
                *missing = false;
                whole.push(piece.split_to(at));
                whole.push(run.clone());
                piece = piece.slice(end - at..);
            }
            whole.push(piece);
        }
        (!missing.contains(&true)).then_some(whole)
    }
}

impl From<Bytes> for Aside {
    /// A body out of which nothing is taken.
    fn from(body: Bytes) -> Self {
        Self { body, runs: Vec::new() }
    }
}

fn mark(index: usize) -> String {
    format!("{}{index:0DIGITS$}", *MARK)
}

/// Where the long runs are. Looked for in steps that no long run can hide between, so that a body without any costs
/// nothing. Nothing here depends on what a quote means: what is taken are characters that no parser stops at, and
/// all others stay where they were.
fn runs(body: &[u8]) -> Vec<Range<usize>> {
    let mark = mark(0).len();
    let (mut found, mut from, mut at) = (Vec::new(), 0, STEP);
    while let Some(sample) = body.get(at..at + TAIL) {
        if !are_base64(sample) {
            at += STEP;
            continue;
        }
        let before = body.get(from..at).and_then(|rest| memchr::memrchr(b'"', rest));
        // As far as it is base64, it holds no quote; nor does anybody look at it twice.
        let pieces = body.get(at..).unwrap_or_default().chunks(256);
        let base64 = at + pieces.take_while(|piece| are_base64(piece)).map(<[u8]>::len).sum::<usize>();
        let after = body.get(base64..).and_then(|rest| memchr::memchr(b'"', rest));
        let Some(end) = after.map(|after| base64 + after) else { break };
        if let Some(start) = before.map(|before| from + before + 1)
            && end - start >= LONG
            && found.len() < 10_usize.pow(6)
        {
            // What is taken is as long as its mark, but for a multiple of four: the rest is as long as base64 can be.
            let length = (end - TAIL - start - HEAD - mark) / 4 * 4 + mark;
            let run = start + HEAD..start + HEAD + length;
            let sound = |place: Range<usize>| body.get(place).is_some_and(are_base64);
            if sound(run.start..at.clamp(run.start, run.end))
                && sound(base64.clamp(run.start, run.end)..run.end)
            {
                found.push(run);
            }
        }
        // The quote may open the next one.
        from = end;
        at = end + STEP;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(length: usize) -> String {
        "iVBORw0KGgo+abc/".chars().cycle().take(length).collect()
    }

    #[test]
    fn what_is_taken_out_comes_back() {
        for length in [LONG, LONG + 1, LONG + 2, LONG + 3, 4 * LONG] {
            let (one, two) = (base64(length), base64(length + 4));
            let body = format!(r#"{{"a":"data:image/png;base64,{one}==","b":["x\"","{two}"],"c":"short"}}"#);
            let whole = Bytes::from(body.clone());
            let aside = Aside::of(whole.clone());
            assert!(!aside.is_whole() && aside.body.len() < 20_000, "{}", aside.body.len());
            let left = std::str::from_utf8(&aside.body).unwrap();
            let value: serde_json::Value = serde_json::from_str(left).unwrap();
            assert_eq!(value["b"][1].as_str().unwrap().len() % 4, two.len() % 4);
            let back = aside.restore(Rope::from(aside.body.clone())).unwrap();
            assert!(back.pieces().any(|piece| whole.as_ptr_range().contains(&piece.as_ptr())));
            assert_eq!(back.join(), body);
        }
    }

    #[test]
    fn a_run_is_found_wherever_it_begins() {
        for before in (0..2 * STEP).step_by(20_011) {
            let body = format!(r#"["{}","{}"]"#, "é ".repeat(before / 3), base64(LONG));
            assert!(!Aside::of(Bytes::from(body)).is_whole(), "{before}");
        }
    }

    #[test]
    fn pieces_keep_their_order_and_what_is_lost_is_noticed() {
        let whole = Bytes::from(format!(r#"["{}"]"#, base64(2 * LONG)));
        let aside = Aside::of(whole.clone());
        let mut rope = Rope::default();
        rope.push(Bytes::from_static(b"before "));
        rope.push(aside.body.clone());
        rope.push(Bytes::from_static(b" after"));
        let expected = [b"before ", &whole[..], b" after"].concat();
        assert_eq!(aside.restore(rope).unwrap().join(), expected);
        assert!(aside.restore(Rope::from(Bytes::from_static(b"nothing"))).is_none());
    }

    #[test]
    fn other_texts_stay() {
        let odd = format!("{}é{}", base64(LONG), base64(LONG));
        let escaped = format!("{}\\n{}", base64(LONG), base64(LONG));
        let number = format!("[{}]", "7".repeat(2 * LONG));
        for body in [
            number,
            format!(r#"{{"a":"{}"}}"#, base64(LONG - 10)),
            format!(r#"{{"a":"{odd}"}}"#),
            format!(r#"{{"a":"{escaped}"}}"#),
            format!(r#"{{"a":"{}"#, base64(2 * LONG)),
            format!(r#"{{"a":"{}\"#, base64(2 * LONG)),
            base64(2 * LONG),
        ] {
            let aside = Aside::of(Bytes::from(body.clone()));
            assert!(aside.is_whole());
            assert_eq!(aside.body, body);
        }
    }
}
