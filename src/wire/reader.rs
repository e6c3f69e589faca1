//! Long bodies, read with fewer looks at what is in their strings.
//!
//! `serde_json` begins anew behind each escape, which in a text of many lines costs more than all the rest. Here a string
//! is looked at eight bytes at a time, and behind an escape too. Only lists, objects and strings are read here; what is
//! small (numbers, words, strings that must be decoded) is left to `serde_json`, and so is every complaint: whoever finds
//! a fault reads again with that.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// How `serde_json` asks for a value as text.
const RAW: &str = "$serde_json::private::RawValue";

type Error = serde_json::Error;
type Result<T> = std::result::Result<T, Error>;

/// Reads a text of JSON that is nested no deeper, and holds no more values, than it may: both as [`super::survey`] counts.
///
/// # Errors
/// Where there is something wrong, without saying what.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str, depth: usize, values: usize) -> Result<T> {
    let mut reader = Reader { text, at: 0, depth, values };
    let value = T::deserialize(&mut reader)?;
    reader.blanks();
    if reader.at == text.len() { Ok(value) } else { Err(fault()) }
}

fn fault() -> Error {
    Error::custom("no JSON")
}

/// A text, and how far it is read.
struct Reader<'de> {
    text: &'de str,
    at: usize,
    /// How many lists and objects may be opened in one another.
    depth: usize,
    /// How many values may come.
    values: usize,
}

impl<'de> Reader<'de> {
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no blank; it stays.
    fn peek(&mut self) -> Result<u8> {
        self.blanks();
        self.text.as_bytes().get(self.at).copied().ok_or_else(fault)
    }

    /// Takes the next byte, which must be this one.
    fn take(&mut self, byte: u8) -> Result<()> {
        if self.peek()? != byte {
            return Err(fault());
        }
        self.at += 1;
        Ok(())
    }

    /// Takes what a list or an object begins with.
    fn open(&mut self) -> Result<()> {
        self.at += 1;
        self.depth = self.depth.checked_sub(1).ok_or_else(fault)?;
        self.count()
    }

    fn count(&mut self) -> Result<()> {
        self.values = self.values.checked_sub(1).ok_or_else(fault)?;
        Ok(())
    }

    /// Takes what stands between two values or ends them; whether another one comes.
    fn more(&mut self, begun: bool, end: u8) -> Result<bool> {
        match self.peek()? {
            byte if byte == end => {
                self.at += 1;
                self.depth += 1;
                Ok(false)
            }
            b',' if begun => {
                self.at += 1;
                self.count().map(|()| true)
            }
            _ if begun => Err(fault()),
            _ => Ok(true),
        }
    }

    /// Takes a whole value.
    fn value(&mut self) -> Result<&'de str> {
        let first = self.peek()?;
        let begin = self.at;
        match first {
            b'"' => self.string()?,
            b'{' | b'[' => {
                let end = if first == b'{' { b'}' } else { b']' };
                self.open()?;
                let mut begun = false;
                while self.more(begun, end)? {
                    begun = true;
                    if first == b'{' {
                        self.peek()?;
                        self.string()?;
                        self.take(b':')?;
                    }
                    self.value()?;
                }
            }
            _ => {
                let rest = self.text.as_bytes().get(begin..).unwrap_or_default();
                let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                self.at += rest.iter().take_while(|byte| word(byte)).count();
                let token = self.text.get(begin..self.at).ok_or_else(fault)?;
                serde_json::from_str::<serde::de::IgnoredAny>(token)?;
            }
        }
        self.text.get(begin..self.at).ok_or_else(fault)
    }

    /// Takes a string, which begins here.
    fn string(&mut self) -> Result<()> {
        let Some([b'"', rest @ ..]) = self.text.as_bytes().get(self.at..) else { return Err(fault()) };
        self.at += 1 + ended(rest).ok_or_else(fault)?;
        Ok(())
    }

    /// Gives a string: as it stands, unless it has escapes.
    fn text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let token = self.value()?;
        let inner = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(fault)?;
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return visitor.visit_borrowed_str(inner);
        }
        serde_json::Deserializer::from_str(token).deserialize_str(visitor)
    }
}

/// How long a string is that begins behind its quote, with the quote that ends it; nothing where it has no end or holds
/// what may not stand in a string.
fn ended(text: &[u8]) -> Option<usize> {
    let (blocks, _) = text.as_chunks();
    // Where in the block: an escape may reach into the next one.
    let mut at = 0;
    for (index, block) in blocks.iter().enumerate() {
        let marks = special(block);
        while let Some(left) = marks.checked_shr(at).filter(|left| *left != 0) {
            at += left.trailing_zeros();
            let place = index * 64 + at as usize;
            match stop(text, place)? {
                0 => return Some(place + 1),
                escape => at += escape,
            }
        }
        at = at.saturating_sub(64);
    }
    let mut at = blocks.len() * 64 + at as usize;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' | b'\\' | 0..0x20 => match stop(text, at)? {
                0 => return Some(at + 1),
                escape => escape as usize,
            },
            _ => 1,
        };
    }
    None
}

/// How long the escape is that stands here, nought for a quote; nothing for what may not stand in a string.
#[inline]
fn stop(text: &[u8], at: usize) -> Option<u32> {
    let byte = *text.get(at)?;
    if byte != b'\\' {
        return (byte == b'"').then_some(0);
    }
    match text.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => text.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

/// Which of these bytes are quotes, backslashes or may not stand in a string: one bit for each, the first the lowest.
#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "a branch for each byte would cost more than all of them")]
fn special(block: &[u8; 64]) -> u64 {
    let mut flags = [0_u8; 64];
    for (flag, byte) in flags.iter_mut().zip(block) {
        // By its second bit turned, the quote comes to stand right behind what is smaller than a blank.
        *flag = u8::from(((byte ^ 2) < 0x21) | (*byte == b'\\'));
    }
    let (eights, _) = flags.as_chunks();
    // The product brings the lowest bits of eight bytes together in the highest byte.
    let bits = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().enumerate().fold(0, |marks, (at, eight)| marks | (bits(eight) << (8 * at)))
}

/// What `serde_json` reads from a value alone.
macro_rules! left_to_serde_json {
    ($($method:ident($($name:ident: $kind:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $kind,)* visitor: V) -> Result<V::Value> {
            let mut value = serde_json::Deserializer::from_str(self.value()?);
            (&mut value).$method($($name,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'{' => {
                self.open()?;
                let mut several = Several { reader: &mut *self, begun: false };
                let value = visitor.visit_map(&mut several)?;
                several.ended(b'}').map(|()| value)
            }
            b'[' => {
                self.open()?;
                let mut several = Several { reader: &mut *self, begun: false };
                let value = visitor.visit_seq(&mut several)?;
                several.ended(b']').map(|()| value)
            }
            b'"' => self.text(visitor),
            _ => serde_json::Deserializer::from_str(self.value()?).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek()? != b'n' {
            return visitor.visit_some(self);
        }
        match self.value()? {
            "null" => visitor.visit_none(),
            _ => Err(fault()),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name == RAW {
            return visitor.visit_map(Raw(Some(self.value()?)));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.value()?;
        visitor.visit_unit()
    }

    left_to_serde_json! {
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    forward_to_deserialize_any! { str string identifier seq tuple tuple_struct map struct }
}

/// A list or an object that is being read.
struct Several<'r, 'de> {
    reader: &'r mut Reader<'de>,
    begun: bool,
}

impl Several<'_, '_> {
    fn another(&mut self, end: u8) -> Result<bool> {
        let more = self.reader.more(self.begun, end)?;
        // The end is for whoever began.
        if !more {
            self.reader.at -= 1;
            self.reader.depth -= 1;
        }
        self.begun = true;
        Ok(more)
    }

    /// Takes the end, which must come now.
    fn ended(&mut self, end: u8) -> Result<()> {
        self.reader.depth += 1;
        self.reader.take(end)
    }
}

impl<'de> SeqAccess<'de> for &mut Several<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.another(b']')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for &mut Several<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.another(b'}')? {
            return Ok(None);
        }
        if self.reader.peek()? != b'"' {
            return Err(fault());
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.take(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// A value as text, the way `serde_json` hands it over: an object of one field.
struct Raw<'de>(Option<&'de str>);

impl<'de> MapAccess<'de> for Raw<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.0.map(|_| seed.deserialize(BorrowedStrDeserializer::new(RAW))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(BorrowedStrDeserializer::new(self.0.take().ok_or_else(fault)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::Deserialize;
    use crate::wire::{Open, Text, Unknown};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two(u8),
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Inner {
        a: u8,
        #[serde(default)]
        b: Option<f32>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Tagged<'a> {
        Text { text: std::borrow::Cow<'a, str> },
        Other { n: i64 },
    }

    #[derive(Debug, Deserialize)]
    struct Raw<'a>(#[serde(borrow)] &'a RawValue);

    impl PartialEq for Raw<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.0.get() == other.0.get()
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct All<'a> {
        #[serde(borrow)]
        raw: Raw<'a>,
        #[serde(borrow, default)]
        text: Option<Text<'a>>,
        #[serde(default)]
        kinds: Vec<Kind>,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        open: Option<Open<Kind>>,
        #[serde(borrow, default)]
        tagged: Vec<Tagged<'a>>,
        #[serde(default)]
        pair: (i32, String),
        #[serde(default)]
        unit: (),
        #[serde(flatten)]
        unknown: Unknown,
    }

    fn read<'de, T: Deserialize<'de>>(text: &'de str) -> super::Result<T> {
        super::read(text, 64, 1000)
    }

    fn same<'a, T: Deserialize<'a> + std::fmt::Debug + PartialEq>(text: &'a str) -> super::Result<()> {
        let (here, there) = (read::<T>(text), serde_json::from_str::<T>(text));
        assert_eq!(here.as_ref().ok(), there.as_ref().ok(), "{text}: {here:?}, {there:?}");
        here.map(|_| ())
    }

    #[test]
    fn every_form_is_read_as_serde_json_reads_it() {
        let full = r#" { "raw" : [1, {"x" : "\u00e9\"" }, -1.5e3, true ] , "text":"a\nb\ud83d\ude00",
            "kinds":["one",{"two":2}], "inner":{"a":1,"b":null}, "open":"three","tagged":[{"type":"text",
            "text":"x"},{"n":-4,"type":"other"}],"pair":[7,"s\\"],"unit":null,"more":{"q":["\t"]},"\u0061":1 } "#;
        same::<All<'_>>(full).unwrap();
        assert_eq!(read::<All<'_>>(full).unwrap().raw.0.get(), r#"[1, {"x" : "\u00e9\"" }, -1.5e3, true ]"#);
        for text in [r#"{"raw":{}}"#, r#"{"raw":null,"inner":[3,1.5]}"#, "[1,[null],[]]", "-0", "\"\"", "{}"]
        {
            let _ = same::<All<'_>>(text);
            same::<Value>(text).unwrap();
        }
        for text in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "{\"a\":1,}",
            "{,}",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{1:2}",
            "[1 2]",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "01",
            "1.",
            "-",
            "nul",
            "truefalse",
            "1 2",
            "[]]",
            "{\"raw\":1,\"raw\":2}",
            "{\"raw\":\"\u{1}\"}",
            "{\"raw\":[}]}",
            "{\"raw\":1,\"text\":\"\\ud800\"}",
            "{\"raw\":1,\"inner\":{\"a\":256}}",
            "{\"raw\":1,\"kinds\":[\"x\"]}",
            "{\"raw\":1,\"unit\":nulll}",
            "{\"raw\":1,\"pair\":[1,\"\",3]}",
            "{\"raw\":1,\"text\":nil}",
        ] {
            assert!(same::<All<'_>>(text).is_err(), "{text}");
            let _ = same::<Value>(text);
        }
    }

    #[test]
    fn depth_and_number_are_bounded_as_the_survey_bounds_them() {
        for text in
            [r#"{"a":[1,{"b":["x,[{",2]}],"c":{}}"#, "[[[]],[],[[]]]", "[]", "7", r#"[{"a":1},{"a":[2]}]"#]
        {
            for (depth, values) in (0..6).flat_map(|depth| (0..12).map(move |values| (depth, values))) {
                let fits = crate::wire::survey(text.as_bytes(), depth, values).is_ok();
                assert_eq!(
                    super::read::<Value>(text, depth, values).is_ok(),
                    fits,
                    "{text} {depth} {values}"
                );
                assert_eq!(
                    super::read::<Raw<'_>>(text, depth, values).is_ok(),
                    fits,
                    "{text} {depth} {values}"
                );
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-z\"\\\\\n ]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-z\"\\\\]{0,9}", inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_serde_json_reads_it(value in any_value(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            same::<Value>(&text).unwrap();
            prop_assert_eq!(read::<&RawValue>(&text).unwrap().get(), text.as_str());
        }

        #[test]
        fn what_is_broken_is_refused_as_serde_json_refuses_it(
            value in any_value(), at: prop::sample::Index, with in "[\"\\\\{}\\[\\],:a0\u{0}-\u{1f} é]{0,2}",
        ) {
            let mut text: Vec<char> = value.to_string().chars().collect();
            let at = at.index(text.len());
            text.splice(at..=at, with.chars());
            let text: String = text.into_iter().collect();
            let _ = (same::<Value>(&text), same::<Raw<'_>>(&text));
        }

        #[test]
        fn what_is_special_is_marked(bytes: Vec<u8>, odd in "[\u{0}-\u{ff}\"\\\\]{0,64}") {
            for mut bytes in [bytes, odd.into_bytes()] {
                bytes.resize(64, b'x');
                let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
                let expected = bytes.iter().rev().fold(0, |marks, byte| (marks << 1) | u64::from(special(byte)));
                prop_assert_eq!(super::special(bytes.first_chunk().unwrap()), expected);
            }
        }

        #[test]
        fn a_long_string_ends_where_it_ends(
            pieces in prop::collection::vec("[a-zé ]{0,70}|\\\\[\"\\\\/bfnrt]{1}|\\\\u00[0-9a-fA-F]{2}", 0..40),
            behind in "[ -~]{0,90}",
        ) {
            let inside = pieces.concat();
            let text = format!("{inside}\"{behind}");
            prop_assert_eq!(super::ended(text.as_bytes()), Some(inside.len() + 1));
            prop_assert_eq!(super::ended(inside.as_bytes()), None);
            let broken = format!("{inside}\u{1}{text}");
            prop_assert_eq!(super::ended(broken.as_bytes()), None);
        }
    }
}
