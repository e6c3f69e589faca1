//! How both dialects stay cheap and open to the future.
//!
//! Large strings are never decoded and never copied: a JSON string token of one dialect is a valid token of
//! the other, byte for byte, so [`Text`] keeps the token as it came and [`encode`] splices it. Pieces of the
//! client's body that are worth it leave as slices of that very body ([`Rope`]).

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

pub use crate::body::Rope;

mod aside;
mod json;
mod reader;

pub use aside::Aside;
pub use reader::read;

use json::{Json, Out};

/// A string: either a JSON token as it came (spliced when written), or a text of ours (escaped when written).
#[derive(Clone)]
pub enum Text<'a> {
    /// The token with its quotes, checked to be a string without lone surrogates.
    Raw(&'a RawValue),
    /// Plain text.
    Plain(Cow<'a, str>),
}

impl<'a> Text<'a> {
    /// A text of ours.
    pub fn plain(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Plain(text.into())
    }

    /// Takes a raw JSON value as a text.
    ///
    /// # Errors
    /// When the value is not a string, or holds a lone surrogate (`"\ud800"`), which no UTF-8 text can.
    pub fn from_raw(raw: &'a RawValue) -> Result<Self, serde_json::Error> {
        let token = raw.get();
        // A search for two bytes costs more to begin than most tokens to look through; few have an escape at all.
        let escaped = || memchr::memchr(b'\\', token.as_bytes()).is_some();
        if !token.starts_with('"') || escaped() && memchr::memmem::find(token.as_bytes(), b"\\u").is_some() {
            serde_json::from_str::<String>(token)?;
        }
        Ok(Self::Raw(raw))
    }

    /// The characters between the quotes when no escape is among them: what a raw token and its meaning share.
    pub fn unescaped(&self) -> Option<&str> {
        match self {
            Self::Raw(raw) => bare(raw),
            Self::Plain(text) => Some(text),
        }
    }

    /// The meaning, decoded only if an escape makes that necessary.
    pub fn decode(&self) -> Cow<'a, str> {
        match self {
            Self::Raw(raw) => match bare(raw) {
                Some(text) => Cow::Borrowed(text),
                // `from_raw` saw that it is a string, so this cannot fail; an empty text is the harmless answer.
                None => Cow::Owned(serde_json::from_str(raw.get()).unwrap_or_default()),
            },
            Self::Plain(text) => text.clone(),
        }
    }

    /// Its length in bytes, about: an escape counts as it is written.
    pub fn size(&self) -> usize {
        match self {
            Self::Raw(raw) => raw.get().len().saturating_sub(2),
            Self::Plain(text) => text.len(),
        }
    }

    /// Whether the text is `""`.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.get().len() <= 2,
            Self::Plain(text) => text.is_empty(),
        }
    }
}

/// The inside of a string token that holds no escape.
fn bare(raw: &RawValue) -> Option<&str> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    memchr::memchr(b'\\', inner.as_bytes()).is_none().then_some(inner)
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.unescaped().map_or(0, str::len))
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.decode() == other.decode()
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.decode() == other
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('"') {
            return Err(de::Error::invalid_type(unexpected(raw), &"a string"));
        }
        Self::from_raw(raw).map_err(|error| de::Error::custom(format_args!("not a text: {error}")))
    }
}

/// What kind of JSON value a raw one is, for messages.
pub fn unexpected(raw: &RawValue) -> de::Unexpected<'static> {
    match raw.get().as_bytes().first() {
        Some(b'{') => de::Unexpected::Map,
        Some(b'[') => de::Unexpected::Seq,
        Some(b't') => de::Unexpected::Bool(true),
        Some(b'f') => de::Unexpected::Bool(false),
        Some(b'n') => de::Unexpected::Unit,
        Some(b'"') => de::Unexpected::Other("string"),
        _ => de::Unexpected::Other("number"),
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Raw(raw) => raw.serialize(serializer),
            Self::Plain(text) => serializer.serialize_str(text),
        }
    }
}

/// Base64 (or anything else that needs no JSON escape) cut out of a longer token. Written by [`encode`] as a
/// JSON string, byte for byte, without looking for characters to escape.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64<'a>(Cow<'a, str>);

impl<'a> Base64<'a> {
    /// Takes a payload, if no character of it would need an escape in JSON.
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "a branch for each byte would cost more than all of them"
    )]
    pub fn new(payload: impl Into<Cow<'a, str>>) -> Option<Self> {
        let payload = payload.into();
        all(payload.as_bytes(), |byte| (byte >= 0x20) & (byte != b'"') & (byte != b'\\'))
            .then_some(Self(payload))
    }

    /// Takes base64 of the usual alphabet, with its padding or without; nothing else.
    ///
    /// # Errors
    /// The payload, where it is something else.
    pub fn standard(payload: Cow<'a, str>) -> Result<Self, Cow<'a, str>> {
        let body = payload.trim_end_matches('=');
        let sound = payload.len() - body.len() <= 2 && body.len() % 4 != 1 && are_base64(body.as_bytes());
        if sound { Ok(Self(payload)) } else { Err(payload) }
    }

    /// The payload.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether all are characters of the usual alphabet.
#[inline]
fn are_base64(bytes: &[u8]) -> bool {
    // One bit makes small letters of large ones; what it makes of other characters is none. The slash stands before the
    // digits. What is left over is nothing for a character of the alphabet: of bytes that many more fit into a register
    // than of conditions.
    let left = |byte: &u8| {
        let letter = (byte | 0x20).wrapping_sub(b'a').saturating_sub(25);
        letter.min(byte.wrapping_sub(b'/').saturating_sub(10)).min(byte ^ b'+')
    };
    bytes.chunks(256).all(|piece| piece.iter().fold(0, |all, byte| all | left(byte)) == 0)
}

/// Whether a text stands in a JSON string as it is.
#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "a branch for each byte would cost more than all of them")]
pub fn needs_no_escape(text: &str) -> bool {
    all(text.as_bytes(), |byte| (byte >= 0x20) & (byte != b'"') & (byte != b'\\'))
}

/// Whether all bytes are of a kind. Looks at many at a time, without a branch for each: payloads are megabytes.
#[inline]
pub fn all(bytes: &[u8], kind: impl Fn(u8) -> bool) -> bool {
    bytes.chunks(256).all(|piece| piece.iter().fold(true, |all, byte| all & kind(*byte)))
}

impl fmt::Debug for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Base64<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Self::new(text.decode()).ok_or_else(|| de::Error::custom("not base64"))
    }
}

/// A value we know, or the text that came instead: tomorrow's enum member is not a parse failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open<T> {
    /// One of the values this release knows.
    Known(T),
    /// Whatever else came.
    Other(String),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Open<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        let known = T::deserialize(de::value::CowStrDeserializer::<de::value::Error>::new(name.clone()));
        Ok(known.map_or_else(|_| Self::Other(name.into_owned()), Self::Known))
    }
}

impl<T: Serialize> Serialize for Open<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(known) => known.serialize(serializer),
            Self::Other(text) => serializer.serialize_str(text),
        }
    }
}

/// Names of fields that a request carried and this release does not know; their values are skipped.
///
/// Used as the last, flattened field of a wire struct, so that nothing is dropped without being reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown(pub Vec<String>);

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Unknown;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Unknown, A::Error> {
                let mut names = Vec::new();
                // `null` says the same as leaving a field out.
                while let Some((name, value)) = map.next_entry::<String, Option<de::IgnoredAny>>()? {
                    names.extend(value.map(|_| name));
                }
                Ok(Unknown(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Pieces at least this long leave as slices of the body they came from instead of being copied.
const WORTH_SLICING: usize = 8 * 1024;

struct Weaver<'s> {
    source: &'s Bytes,
    rope: Rope,
    tail: BytesMut,
}

impl Out for Weaver<'_> {
    #[inline]
    fn put(&mut self, piece: &[u8]) {
        let inside = || {
            let body = self.source.as_ptr_range();
            let part = piece.as_ptr_range();
            body.start <= part.start && part.end <= body.end
        };
        if piece.len() >= WORTH_SLICING && inside() {
            self.rope.push(self.tail.split().freeze());
            self.rope.push(self.source.slice_ref(piece));
        } else {
            self.tail.extend_from_slice(piece);
        }
    }
}

/// Writes `value` as JSON. Long pieces borrowed from `source` (the client's body) are not copied.
///
/// # Errors
/// Only if a value's own `Serialize` fails; ours do not.
pub fn encode<T: Serialize + ?Sized>(value: &T, source: &Bytes) -> Result<Rope, serde_json::Error> {
    let mut weaver = Weaver { source, rope: Rope::default(), tail: BytesMut::with_capacity(1024) };
    value.serialize(Json(&mut weaver))?;
    let Weaver { mut rope, tail, .. } = weaver;
    rope.push(tail.freeze());
    Ok(rope)
}

/// Writes `value` as JSON behind whatever is in `out`.
///
/// # Errors
/// Only if a value's own `Serialize` fails; ours do not.
pub fn append<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), serde_json::Error> {
    value.serialize(Json(out))
}

/// What makes a JSON text unfit before any parser spends memory on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nested deeper than the limit.
    TooDeep,
    /// More values than the limit.
    TooMany,
}

/// Looks at the shape alone: nesting and number of values. Strings are skipped at memory speed.
///
/// `serde_json` limits depth only where it builds values, not where it keeps raw ones, so a bomb inside a
/// tool schema would pass through us to Google.
///
/// # Errors
/// The limit that was passed. Bad JSON is not an error here; the parser says it better.
pub fn survey(json: &[u8], max_depth: usize, max_values: usize) -> Result<(), Unfit> {
    let (mut depth, mut values, mut at) = (0_usize, 0_usize, 0_usize);
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => at += inside(json.get(at..).unwrap_or_default()) + 1,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > max_depth {
                    return Err(Unfit::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if values > max_values {
            return Err(Unfit::TooMany);
        }
    }
    Ok(())
}

/// How long the inside of a string is, of which the text begins behind the quote. Looks for quotes only, and from each
/// back to what stands before it: texts have more line ends, which are escapes, than quotes.
fn inside(text: &[u8]) -> usize {
    let mut quotes = memchr::memchr_iter(b'"', text);
    let ends = |at: &usize| {
        let before = text.get(..*at).unwrap_or_default();
        before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    };
    quotes.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[derive(serde::Deserialize)]
    struct In<'a> {
        #[serde(borrow)]
        a: Text<'a>,
        #[serde(borrow)]
        b: Text<'a>,
    }
    #[derive(Serialize)]
    struct Out<'a> {
        text: Text<'a>,
        data: Base64<'a>,
    }

    #[test]
    fn a_token_is_spliced_and_a_long_one_is_not_copied() {
        let long = "A".repeat(20_000);
        let body = Bytes::from(format!(r#"{{"a":"x\u00e9\n","b":"data:,{long}"}}"#));
        let text = std::str::from_utf8(&body).unwrap();
        let read: In<'_> = serde_json::from_str(text).unwrap();
        let Text::Raw(raw) = &read.b else { panic!() };
        let payload = raw.get().strip_prefix("\"data:,").unwrap().strip_suffix('"').unwrap();
        let out = Out { text: read.a.clone(), data: Base64::new(payload).unwrap() };
        let rope = encode(&out, &body).unwrap();
        assert_eq!(rope.clone().join(), format!(r#"{{"text":"x\u00e9\n","data":"{long}"}}"#));
        let slices = body.as_ptr_range();
        assert!(rope.0.iter().any(|piece| piece.len() == 20_000 && slices.contains(&piece.as_ptr())));
        assert_eq!(read.a.decode(), "xé\n");
    }

    #[test]
    fn base64_is_told_from_what_only_looks_like_it() {
        let standard = |text: &str| Base64::standard(Cow::Owned(text.to_owned())).is_ok();
        for byte in 0..=127_u8 {
            let plain = byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            let text = format!("AAA{}AAAA", char::from(byte));
            assert_eq!(standard(&text), plain, "{text:?}");
            let unescaped = byte >= 0x20 && byte != b'"' && byte != b'\\';
            assert_eq!(Base64::new(text.as_str()).is_some(), unescaped, "{text:?}");
        }
        for (text, sound) in
            [("", true), ("AA==", true), ("AAA=", true), ("AA", true), ("A", false), ("A===", false)]
        {
            assert_eq!(standard(text), sound, "{text:?}");
        }
        assert!(!standard("AAAé") && Base64::new("AAAé").is_some());
    }

    #[test]
    fn lone_surrogates_and_other_types_are_no_texts() {
        assert!(serde_json::from_str::<Text<'_>>(r#""\ud800""#).is_err());
        assert!(serde_json::from_str::<Text<'_>>("5").is_err());
        assert!(serde_json::from_str::<Text<'_>>(r#""\ud83d\ude00""#).is_ok());
    }

    #[test]
    fn depth_and_number_are_bounded_and_strings_do_not_count() {
        assert_eq!(survey(br#"{"a":"[[[[[[,,,,\""}"#, 2, 2), Ok(()));
        assert_eq!(survey(br#"{"a":"\\","b":[["\\\"[[["]]}"#, 3, 4), Ok(()));
        assert_eq!(survey(br#"{"a":"\\","b":[[["\\\"[[["]]]}"#, 3, 5), Err(Unfit::TooDeep));
        assert_eq!(survey(br#"["no end\"[[[["#, 1, 1), Ok(()));
        assert_eq!(survey(&b"[".repeat(65), 64, 1000), Err(Unfit::TooDeep));
        assert_eq!(survey(b"[1,2,3,4]", 64, 3), Err(Unfit::TooMany));
    }
}
