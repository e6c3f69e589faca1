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

    /// How many.
    pub(super) fn len(self) -> usize {
        memchr::memchr_iter(b',', self.0.as_bytes()).count() + 1
    }

    fn each(self) -> impl Iterator<Item = Result<f64>> {
        self.0.split(',').map(|token| match token.trim_ascii().parse::<f64>() {
            Ok(number) => Ok(number),
            Err(error) => Err(broken("Google's vector holds something that is not a number.").because(error)),
        })
    }

    /// The factor that brings the vector to length one; one for a vector of length nothing.
    pub(super) fn scale(self) -> Result<f64> {
        let mut sum = 0.0;
        for number in self.each() {
            let number = number?;
            sum += number * number;
        }
        let length = f64::sqrt(sum);
        Ok(if length > 0.0 && length.is_finite() { 1.0 / length } else { 1.0 })
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

    /// The numbers multiplied, as 32-bit floats in text.
    pub(super) fn scaled(self, scale: f64, out: &mut BytesMut) -> Result<()> {
        out.extend_from_slice(b"[");
        for number in self.each() {
            let single = narrow(number? * scale)?;
            crate::wire::append(&single, out).map_err(Error::internal)?;
            out.extend_from_slice(b",");
        }
        out.truncate(out.len() - 1);
        out.extend_from_slice(b"]");
        Ok(())
    }

    /// The numbers multiplied, as base64 of little-endian 32-bit floats, in quotes. `scratch` is overwritten.
    pub(super) fn base64(self, scale: f64, scratch: &mut Vec<u8>, out: &mut BytesMut) -> Result<()> {
        scratch.clear();
        for number in self.each() {
            scratch.extend_from_slice(&narrow(number? * scale)?.to_le_bytes());
        }
        out.extend_from_slice(b"\"");
        let begin = out.len();
        out.resize(begin + scratch.len().div_ceil(3) * 4, 0);
        let place = out.get_mut(begin..).unwrap_or_default();
        STANDARD.encode_slice(&scratch, place).map_err(Error::internal)?;
        out.extend_from_slice(b"\"");
        Ok(())
    }
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
        numbers.base64(1.0, &mut Vec::new(), &mut coded).unwrap();
        numbers.scaled(1.0, &mut scaled).unwrap();
        let read: Vec<f32> = serde_json::from_slice(&text).unwrap();
        assert_eq!(singles(&coded), read);
        assert_eq!(serde_json::from_slice::<Vec<f32>>(&scaled).unwrap(), read);
    }

    #[test]
    fn a_short_vector_is_stretched() {
        let numbers = Numbers::new("[0.3,0.4]").unwrap();
        let scale = numbers.scale().unwrap();
        let mut out = BytesMut::new();
        numbers.scaled(scale, &mut out).unwrap();
        assert_eq!(&out[..], b"[0.6,0.8]");
        assert!((Numbers::new("[0,0.0]").unwrap().scale().unwrap() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for json in ["[]", "[ ]", "7", "{}", "[\"NaN\"]", "[null]", "[true]", "[false]", "[[1]]", "[{}]"] {
            assert!(Numbers::new(json).is_err(), "{json}");
        }
        assert!(Numbers::new("[1e39]").unwrap().base64(1.0, &mut Vec::new(), &mut BytesMut::new()).is_err());
    }
}
