//! Lists of numbers as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::decimal;
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::wire::{self, Rope};

/// The inside of one vector as Google wrote it: `0.1, -0.2`.
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

    /// Takes the inside of a list that begins with a number; whether the rest is numbers shows when it is used.
    pub(super) fn inside(numbers: &'a str) -> Self {
        Self(numbers.trim_ascii())
    }

    /// How many.
    pub(super) fn len(self) -> usize {
        memchr::memchr_iter(b',', self.0.as_bytes()).count() + 1
    }

    /// The numbers themselves, into `values`, and the sum of their squares.
    ///
    /// # Errors
    /// When one of them is none.
    pub(super) fn read(self, values: &mut Vec<f64>) -> Result<f64> {
        values.clear();
        let (mut rest, mut squares) = (self.0.as_bytes(), 0.0);
        loop {
            if rest.first().is_some_and(|byte| *byte <= b' ') {
                rest = rest.trim_ascii_start();
            }
            let (number, behind) = match decimal::begin(rest) {
                // What the number ends with must be looked at: it may go on with an exponent.
                Some((number, length)) if rest.get(length) == Some(&b',') => (number, length),
                _ => {
                    let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
                    (slowly(rest.get(..end).unwrap_or_default().trim_ascii_end())?, end)
                }
            };
            values.push(number);
            squares += number * number;
            match rest.get(behind + 1..) {
                Some(more) => rest = more,
                None => return Ok(squares),
            }
        }
    }

    /// The numbers as they came, without blanks: behind `out`, or where they are many and already without blanks, as
    /// a slice of the answer behind what is in `out` so far, which then goes to the rope with it.
    ///
    /// # Errors
    /// When something cannot belong to a number.
    pub(super) fn splice(self, answer: &Bytes, out: &mut BytesMut, rope: &mut Rope) -> Result<()> {
        let bytes = self.0.as_bytes();
        out.extend_from_slice(b"[");
        if blanks(bytes)? {
            for token in self.0.split(',') {
                out.extend_from_slice(token.trim_ascii().as_bytes());
                out.extend_from_slice(b",");
            }
            out.truncate(out.len() - 1);
        } else if bytes.len() >= WORTH_SLICING && is_within(bytes, answer) {
            rope.push(out.split().freeze());
            rope.push(answer.slice_ref(bytes));
        } else {
            out.extend_from_slice(bytes);
        }
        out.extend_from_slice(b"]");
        Ok(())
    }
}

/// Pieces this long leave as slices of what was read.
const WORTH_SLICING: usize = 4 << 10;

fn is_within(piece: &[u8], whole: &[u8]) -> bool {
    let (piece, whole) = (piece.as_ptr_range(), whole.as_ptr_range());
    whole.start <= piece.start && piece.end <= whole.end
}

/// Whether there are blanks among numbers.
///
/// # Errors
/// When there is something that cannot belong to a number.
#[expect(clippy::needless_bitwise_bool, reason = "a branch for each byte would cost more than all of them")]
fn blanks(numbers: &[u8]) -> Result<bool> {
    // Digits, signs, points and commas, but for the slash among them: all that there is in most lists.
    let usual = |byte: u8| (byte.wrapping_sub(b'+') < 15) & (byte != b'/');
    let blank = |byte: u8| (byte == b' ') | (byte == b'\n') | (byte == b'\r') | (byte == b'\t');
    let mut found = false;
    for piece in numbers.chunks(256) {
        if wire::all(piece, usual) {
            continue;
        }
        if !wire::all(piece, |byte| usual(byte) | blank(byte) | (byte | 0x20 == b'e')) {
            return Err(broken("Google's vector holds something that is not a number."));
        }
        found = found || piece.iter().copied().any(blank);
    }
    Ok(found)
}

fn slowly(token: &[u8]) -> Result<f64> {
    match decimal::short(token) {
        Some(number) => Ok(number),
        None => std::str::from_utf8(token)
            .unwrap_or_default()
            .parse()
            .map_err(|error| broken("Google's vector holds something that is not a number.").because(error)),
    }
}

/// The factor that brings a vector to length one, by the sum of its squares; one for a vector of length nothing, and for
/// one that is as long as that already, as far as 32-bit floats can tell.
pub(super) fn scale(squares: f64) -> f64 {
    let length = squares.sqrt();
    if length > 0.0 && length.is_finite() && (length - 1.0).abs() > 1e-7 { 1.0 / length } else { 1.0 }
}

/// The numbers multiplied, as 32-bit floats in text.
pub(super) fn scaled(values: &[f64], scale: f64, out: &mut BytesMut) -> Result<()> {
    out.extend_from_slice(b"[");
    let mut at = out.len();
    // As much as there could be, to write without asking for room each time.
    out.resize(at + values.len() * decimal::ROOM, 0);
    let mut slow = BytesMut::new();
    for number in values {
        let number = number * scale;
        let room = out.get_mut(at..).and_then(|room| room.first_chunk_mut());
        if let Some(length) = room.and_then(|room| decimal::write(number, room)) {
            at += length;
            continue;
        }
        slow.clear();
        wire::append(&narrow(number)?, &mut slow).map_err(Error::internal)?;
        slow.extend_from_slice(b",");
        out.get_mut(at..at + slow.len())
            .ok_or_else(|| Error::internal("a number is longer than its place"))?
            .copy_from_slice(&slow);
        at += slow.len();
    }
    out.truncate(at - 1);
    out.extend_from_slice(b"]");
    Ok(())
}

/// The numbers multiplied, as base64 of little-endian 32-bit floats, in quotes. `scratch` is overwritten.
#[expect(clippy::cast_possible_truncation, reason = "32-bit floats are what the client is given")]
pub(super) fn base64(
    values: &[f64],
    scale: f64,
    scratch: &mut Vec<[u8; 4]>,
    out: &mut BytesMut,
) -> Result<()> {
    let floats = values.iter().map(|number| (number * scale) as f32);
    // All of them, without a branch for each.
    if !floats.clone().fold(true, |all, float| all & float.is_finite()) {
        return Err(out_of_range());
    }
    scratch.clear();
    scratch.extend(floats.map(f32::to_le_bytes));
    let bytes = scratch.as_flattened();
    out.extend_from_slice(b"\"");
    let begin = out.len();
    out.resize(begin + bytes.len().div_ceil(3) * 4, 0);
    let place = out.get_mut(begin..).unwrap_or_default();
    STANDARD.encode_slice(bytes, place).map_err(Error::internal)?;
    out.extend_from_slice(b"\"");
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "32-bit floats are what the client is given")]
fn narrow(number: f64) -> Result<f32> {
    let single = number as f32;
    if single.is_finite() { Ok(single) } else { Err(out_of_range()) }
}

fn out_of_range() -> Error {
    broken("Google's vector holds a number out of range.")
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
        numbers.splice(&Bytes::new(), &mut text, &mut Rope::default()).unwrap();
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
        let squares = Numbers::new("[0.3,0.4]").unwrap().read(&mut values).unwrap();
        let mut out = BytesMut::new();
        scaled(&values, scale(squares), &mut out).unwrap();
        assert_eq!(&out[..], b"[0.6,0.8]");
        for one in [0.0, 1.0, 1.000_000_01, f64::INFINITY] {
            assert!((scale(one) - 1.0).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for json in ["[]", "[ ]", "7", "{}", "[\"NaN\"]", "[null]", "[true]", "[false]", "[[1]]", "[{}]"] {
            assert!(Numbers::new(json).is_err(), "{json}");
        }
        assert!(base64(&[1e39], 1.0, &mut Vec::new(), &mut BytesMut::new()).is_err());
        for inside in ["1,null", "1,[2]", "1/2", "1;2", "1\u{e9}", "1,\"NaN\""] {
            let mut out = BytesMut::new();
            assert!(Numbers::inside(inside).splice(&Bytes::new(), &mut out, &mut Rope::default()).is_err());
        }
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
