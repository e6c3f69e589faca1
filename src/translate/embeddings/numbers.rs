//! Lists of numbers as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use crate::error::{Error, Kind, Origin, Result, Retry};

/// One vector as Google wrote it: `[0.1, -0.2]`, known to hold numbers only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a>(&'a str);

impl<'a> Numbers<'a> {
    /// Takes a JSON value that is a list of numbers.
    ///
    /// # Errors
    /// For anything else: `NaN` comes from Google as a string.
    pub(super) fn new(json: &'a str) -> Result<Self> {
        let inner = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let Some(inner) = inner.map(str::trim_ascii).filter(|inner| !inner.is_empty()) else {
            return Err(broken("Google's vector is not a list of numbers."));
        };
        // Valid JSON without these holds neither strings nor words, objects or lists.
        let bytes = inner.as_bytes();
        if memchr::memchr3(b'"', b'u', b'l', bytes).is_some() || memchr::memchr2(b'[', b'{', bytes).is_some()
        {
            return Err(broken("Google's vector holds something that is not a number."));
        }
        Ok(Self(inner))
    }

    /// Takes the inside of a list that is known to hold the characters of numbers only.
    pub(super) fn inside(numbers: &'a str) -> Self {
        Self(numbers.trim_ascii())
    }

    /// How many.
    pub(super) fn len(self) -> usize {
        memchr::memchr_iter(b',', self.0.as_bytes()).count() + 1
    }

    /// The numbers themselves, into `values`.
    ///
    /// # Errors
    /// When one of them is none.
    pub(super) fn read(self, values: &mut Vec<f64>) -> Result<()> {
        values.clear();
        for token in self.0.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            let number = match short(token) {
                Some(number) => number,
                None => std::str::from_utf8(token).unwrap_or_default().parse().map_err(|error| {
                    broken("Google's vector holds something that is not a number.").because(error)
                })?,
            };
            values.push(number);
        }
        Ok(())
    }

    /// The numbers as they came, without blanks.
    pub(super) fn copy(self, out: &mut BytesMut) {
        out.extend_from_slice(b"[");
        let bytes = self.0.as_bytes();
        if memchr::memchr3(b' ', b'\n', b'\t', bytes).is_none() {
            out.extend_from_slice(bytes);
        } else {
            for token in self.0.split(',') {
                out.extend_from_slice(token.trim_ascii().as_bytes());
                out.extend_from_slice(b",");
            }
            out.truncate(out.len() - 1);
        }
        out.extend_from_slice(b"]");
    }
}

/// A number of few digits and without an exponent, as nearly all are. Its digits as a whole number and the power of
/// ten are both exact, so that their quotient is what a slower reading would give.
fn short(token: &[u8]) -> Option<f64> {
    const POWERS: [f64; 20] = [
        1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
        1e18, 1e19,
    ];
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    let (mut whole, mut behind, mut point) = (0_u64, 0_usize, false);
    // Nineteen digits fit whatever they are.
    if digits.len() > 19 {
        return None;
    }
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            whole = whole * 10 + u64::from(digit);
            behind += usize::from(point);
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            return None;
        }
    }
    if digits.len() == usize::from(point) || whole > EXACT {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "it was seen to fit")]
    let value = whole as f64 / POWERS.get(behind)?;
    Some(if digits.len() < token.len() { -value } else { value })
}

/// The factor that brings a vector to length one; one for a vector of length nothing.
pub(super) fn scale(values: &[f64]) -> f64 {
    let length = f64::sqrt(values.iter().map(|number| number * number).sum());
    if length > 0.0 && length.is_finite() { 1.0 / length } else { 1.0 }
}

/// The numbers multiplied, as 32-bit floats in text.
pub(super) fn scaled(values: &[f64], scale: f64, out: &mut BytesMut) -> Result<()> {
    out.extend_from_slice(b"[");
    for number in values {
        let single = narrow(number * scale)?;
        crate::wire::append(&single, out).map_err(Error::internal)?;
        out.extend_from_slice(b",");
    }
    out.truncate(out.len() - 1);
    out.extend_from_slice(b"]");
    Ok(())
}

/// The numbers multiplied, as base64 of little-endian 32-bit floats, in quotes. `scratch` is overwritten.
pub(super) fn base64(values: &[f64], scale: f64, scratch: &mut Vec<u8>, out: &mut BytesMut) -> Result<()> {
    scratch.clear();
    for number in values {
        scratch.extend_from_slice(&narrow(number * scale)?.to_le_bytes());
    }
    out.extend_from_slice(b"\"");
    let begin = out.len();
    out.resize(begin + scratch.len().div_ceil(3) * 4, 0);
    let place = out.get_mut(begin..).unwrap_or_default();
    STANDARD.encode_slice(&scratch, place).map_err(Error::internal)?;
    out.extend_from_slice(b"\"");
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "32-bit floats are what the client is given")]
fn narrow(number: f64) -> Result<f32> {
    let single = number as f32;
    if single.is_finite() { Ok(single) } else { Err(broken("Google's vector holds a number out of range.")) }
}

pub(super) fn broken(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
        .code("upstream_invalid_response")
        .retry(Retry::Soon)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn singles(base64: &[u8]) -> Vec<f32> {
        let text = base64.strip_prefix(b"\"").unwrap().strip_suffix(b"\"").unwrap();
        let bytes = STANDARD.decode(text).unwrap();
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    #[test]
    fn text_and_base64_hold_the_same_numbers() {
        let json = "[ 0.1, -2.5e-3,\n 1,-0.0, 0.012345678901234567 ]";
        let numbers = Numbers::new(json).unwrap();
        assert_eq!(numbers.len(), 5);
        let (mut text, mut coded, mut scaled) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        numbers.copy(&mut text);
        assert_eq!(&text[..], b"[0.1,-2.5e-3,1,-0.0,0.012345678901234567]");
        let mut values = Vec::new();
        numbers.read(&mut values).unwrap();
        base64(&values, 1.0, &mut Vec::new(), &mut coded).unwrap();
        super::scaled(&values, 1.0, &mut scaled).unwrap();
        let read: Vec<f32> = serde_json::from_slice(&text).unwrap();
        assert_eq!(singles(&coded), read);
        assert_eq!(serde_json::from_slice::<Vec<f32>>(&scaled).unwrap(), read);
    }

    #[test]
    fn a_short_vector_is_stretched() {
        let mut values = Vec::new();
        Numbers::new("[0.3,0.4]").unwrap().read(&mut values).unwrap();
        let mut out = BytesMut::new();
        scaled(&values, scale(&values), &mut out).unwrap();
        assert_eq!(&out[..], b"[0.6,0.8]");
        assert!((scale(&[0.0, 0.0]) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for json in ["[]", "[ ]", "7", "{}", "[\"NaN\"]", "[null]", "[true]", "[false]", "[[1]]", "[{}]"] {
            assert!(Numbers::new(json).is_err(), "{json}");
        }
        assert!(base64(&[1e39], 1.0, &mut Vec::new(), &mut BytesMut::new()).is_err());
        for inside in ["1,,2", "1,", "-", "1.2.3", ".", "--1", "1-1", "e5"] {
            assert!(Numbers::inside(inside).read(&mut Vec::new()).is_err(), "{inside}");
        }
    }

    proptest::proptest! {
        #[test]
        fn numbers_are_read_as_rust_reads_them(text in "-?[0-9]{1,12}(\\.[0-9]{1,12})?(e-?[0-9]{1,2})?") {
            let mut values = Vec::new();
            Numbers::inside(&text).read(&mut values).unwrap();
            proptest::prop_assert_eq!(values, vec![text.parse::<f64>().unwrap()]);
        }
    }
}
