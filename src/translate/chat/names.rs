//! Function names beyond Gemini's grammar, made to fit and found again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

const LONGEST: usize = 128;

fn starts(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn goes_on(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
}

/// The name as Gemini takes it: unchanged where it fits, else cleaned and marked with a digest of the whole,
/// so that it is the same in every request and two different names stay different.
pub(in crate::translate) fn fit(name: &str) -> Cow<'_, str> {
    let bytes = name.as_bytes();
    let fits = bytes.len() <= LONGEST
        && bytes.first().is_some_and(|byte| starts(*byte))
        && bytes.iter().all(|byte| goes_on(*byte));
    if fits {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(64);
    if !bytes.first().is_some_and(|byte| starts(*byte)) {
        out.push('_');
    }
    out.extend(name.chars().map(|c| if c.is_ascii() && goes_on(c as u8) { c } else { '_' }).take(48));
    out.push('_');
    for byte in Sha256::digest(bytes).iter().take(5) {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    Cow::Owned(out)
}

/// Fits a name and keeps the way back.
pub(in crate::translate) fn keep(name: &str, back: &mut HashMap<String, String>) -> String {
    let fitted = fit(name).into_owned();
    if fitted != name {
        back.insert(fitted.clone(), name.to_owned());
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        assert!(matches!(fit("get_weather-2.x:y"), Cow::Borrowed(_)));
        for bad in ["", "9lives", "a b", "a/b", "größe", &"x".repeat(129)] {
            let fitted = fit(bad);
            assert_ne!(fitted, bad);
            assert_eq!(fit(&fitted), fitted.as_ref(), "{bad}");
        }
        assert_ne!(fit("a b"), fit("a/b"));
        let mut back = HashMap::new();
        let there = keep("a b", &mut back);
        assert_eq!(back.get(&there).map(String::as_str), Some("a b"));
    }
}
