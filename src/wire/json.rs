//! Values as JSON, straight into a buffer.
//!
//! The same text that `serde_json` writes in its compact form, down to the escapes, with two differences: bytes are
//! written as a string that needs no escapes (see [`super::Base64`]), and a field is written in one go. `serde_json`
//! hands every quote and colon to a writer that could be a socket, which for the small objects of both dialects
//! costs more than all the rest.

use std::fmt::Display;
use std::io;

use serde::ser::{self, Error as _, Impossible, Serialize};

type Error = serde_json::Error;
type Result<T = ()> = std::result::Result<T, Error>;

/// How `serde_json` calls a value that is text already.
const RAW: &str = "$serde_json::private::RawValue";

/// Where JSON is written to.
pub(super) trait Out {
    /// Takes a piece.
    fn put(&mut self, piece: &[u8]);
}

impl Out for bytes::BytesMut {
    #[inline]
    fn put(&mut self, piece: &[u8]) {
        self.extend_from_slice(piece);
    }
}

/// Writes one value.
pub(super) struct Json<'o, O>(pub(super) &'o mut O);

/// What `serde_json` writes better than we would: floats.
struct Writer<'o, O>(&'o mut O);

impl<O: Out> io::Write for Writer<'_, O> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.put(piece);
        Ok(piece.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unsigned(out: &mut impl Out, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut begin = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        // One digit is below ten.
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        begin = at;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put(digits.get(begin..).unwrap_or_default());
}

fn signed(out: &mut impl Out, number: i64) {
    if number < 0 {
        out.put(b"-");
    }
    unsigned(out, number.unsigned_abs());
}

#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "a branch for each byte would cost more than all of them")]
fn plain(byte: u8) -> bool {
    (byte >= 0x20) & (byte != b'"') & (byte != b'\\')
}

/// The inside of a string.
fn escaped(out: &mut impl Out, text: &str) {
    let mut rest = text.as_bytes();
    if super::all(rest, plain) {
        return out.put(rest);
    }
    while let Some(at) = rest.iter().position(|byte| !plain(*byte)) {
        let (clean, more) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.put(clean);
        let Some((byte, more)) = more.split_first() else { return };
        match byte {
            b'"' => out.put(b"\\\""),
            b'\\' => out.put(b"\\\\"),
            b'\n' => out.put(b"\\n"),
            b'\r' => out.put(b"\\r"),
            b'\t' => out.put(b"\\t"),
            0x08 => out.put(b"\\b"),
            0x0C => out.put(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.put(b"\\u00");
                for digit in [byte >> 4, byte & 15] {
                    out.put(HEX.get(usize::from(digit)..=usize::from(digit)).unwrap_or_default());
                }
            }
        }
        rest = more;
    }
    out.put(rest);
}

fn string(out: &mut impl Out, text: &str) {
    out.put(b"\"");
    escaped(out, text);
    out.put(b"\"");
}

/// A list or an object that is being written.
pub(super) struct Several<'o, O> {
    out: &'o mut O,
    begun: bool,
    /// What it ends with.
    end: &'static [u8],
    /// It is no object but the text of a value.
    raw: bool,
}

impl<O: Out> Several<'_, O> {
    #[inline]
    fn next(&mut self) {
        if self.begun {
            self.out.put(b",");
        }
        self.begun = true;
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
        if self.raw {
            return value.serialize(Token(self.out));
        }
        // Names of fields are words of ours: nothing in them needs an escape.
        self.out.put(if self.begun { b",\"" } else { b"\"" });
        self.begun = true;
        self.out.put(name.as_bytes());
        self.out.put(b"\":");
        value.serialize(Json(self.out))
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.next();
        value.serialize(Json(self.out))
    }

    #[inline]
    #[expect(clippy::unnecessary_wraps, reason = "what the traits below want")]
    fn close(self) -> Result {
        self.out.put(self.end);
        Ok(())
    }
}

impl<'o, O: Out> Json<'o, O> {
    fn several(self, open: &[u8], end: &'static [u8]) -> Several<'o, O> {
        self.0.put(open);
        Several { out: self.0, begun: false, end, raw: false }
    }

    /// `{"variant":` and what stands in it.
    fn variant(self, variant: &str, open: &[u8], end: &'static [u8]) -> Several<'o, O> {
        self.0.put(b"{");
        string(self.0, variant);
        self.0.put(b":");
        self.several(open, end)
    }
}

macro_rules! numbers {
    ($($method:ident $kind:ty => $write:ident;)*) => {
        $(#[inline]
        fn $method(self, number: $kind) -> Result<Self::Ok> {
            $write(self.0, number.into());
            Ok(())
        })*
    };
}

impl<'o, O: Out> ser::Serializer for Json<'o, O> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Several<'o, O>;
    type SerializeTuple = Several<'o, O>;
    type SerializeTupleStruct = Several<'o, O>;
    type SerializeTupleVariant = Several<'o, O>;
    type SerializeMap = Several<'o, O>;
    type SerializeStruct = Several<'o, O>;
    type SerializeStructVariant = Several<'o, O>;

    numbers! {
        serialize_u8 u8 => unsigned;
        serialize_u16 u16 => unsigned;
        serialize_u32 u32 => unsigned;
        serialize_u64 u64 => unsigned;
        serialize_i8 i8 => signed;
        serialize_i16 i16 => signed;
        serialize_i32 i32 => signed;
        serialize_i64 i64 => signed;
    }

    fn serialize_u128(self, number: u128) -> Result {
        self.0.put(number.to_string().as_bytes());
        Ok(())
    }

    fn serialize_i128(self, number: i128) -> Result {
        self.0.put(number.to_string().as_bytes());
        Ok(())
    }

    fn serialize_f32(self, number: f32) -> Result {
        serde_json::to_writer(Writer(self.0), &number)
    }

    fn serialize_f64(self, number: f64) -> Result {
        serde_json::to_writer(Writer(self.0), &number)
    }

    fn serialize_bool(self, yes: bool) -> Result {
        self.0.put(if yes { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_char(self, character: char) -> Result {
        string(self.0, character.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result {
        string(self.0, text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result {
        self.0.put(b"\"");
        self.0.put(bytes);
        self.0.put(b"\"");
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result {
        self.0.put(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        let several = self.variant(variant, b"", b"}");
        value.serialize(Json(&mut *several.out))?;
        several.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Several<'o, O>> {
        Ok(self.several(b"[", b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Several<'o, O>> {
        Ok(self.several(b"[", b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Several<'o, O>> {
        Ok(self.several(b"[", b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Several<'o, O>> {
        Ok(self.variant(variant, b"[", b"]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Several<'o, O>> {
        Ok(self.several(b"{", b"}"))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Several<'o, O>> {
        if name == RAW {
            return Ok(Several { out: self.0, begun: false, end: b"", raw: true });
        }
        Ok(self.several(b"{", b"}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Several<'o, O>> {
        Ok(self.variant(variant, b"{", b"}}"))
    }

    fn collect_str<T: Display + ?Sized>(self, text: &T) -> Result {
        self.serialize_str(&text.to_string())
    }
}

macro_rules! lists {
    ($($of:ident $method:ident;)*) => {
        $(impl<O: Out> ser::$of for Several<'_, O> {
            type Ok = ();
            type Error = Error;
            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
                self.item(value)
            }
            #[inline]
            fn end(self) -> Result {
                self.close()
            }
        })*
    };
}

lists! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! objects {
    ($($of:ident)*) => {
        $(impl<O: Out> ser::$of for Several<'_, O> {
            type Ok = ();
            type Error = Error;
            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result {
                self.field(name, value)
            }
            #[inline]
            fn end(self) -> Result {
                self.close()
            }
        })*
    };
}

objects!(SerializeStruct SerializeStructVariant);

impl<O: Out> ser::SerializeMap for Several<'_, O> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        self.next();
        key.serialize(Key(self.out))?;
        self.out.put(b":");
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(Json(self.out))
    }

    fn end(self) -> Result {
        self.close()
    }
}

macro_rules! refused {
    ($($method:ident $kind:ty;)*) => {
        $(fn $method(self, _: $kind) -> Result {
            Err(other())
        })*
    };
}

/// What takes a string and nothing else: the key of a map, the text of a raw value.
macro_rules! strings_only {
    ($name:ident, $of:literal, $write:expr, { $($more:item)* }) => {
        #[doc = $of]
        struct $name<'o, O>(&'o mut O);

        impl<O: Out> ser::Serializer for $name<'_, O> {
            type Ok = ();
            type Error = Error;
            type SerializeSeq = Impossible<(), Error>;
            type SerializeTuple = Impossible<(), Error>;
            type SerializeTupleStruct = Impossible<(), Error>;
            type SerializeTupleVariant = Impossible<(), Error>;
            type SerializeMap = Impossible<(), Error>;
            type SerializeStruct = Impossible<(), Error>;
            type SerializeStructVariant = Impossible<(), Error>;

            #[inline]
            fn serialize_str(self, text: &str) -> Result {
                let write: fn(&mut O, &str) = $write;
                write(self.0, text);
                Ok(())
            }

            fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result {
                self.serialize_str(variant)
            }

            fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
                value.serialize(self)
            }

            fn serialize_char(self, character: char) -> Result {
                self.serialize_str(character.encode_utf8(&mut [0; 4]))
            }

            $($more)*

            refused! {
                serialize_bool bool;
                serialize_f32 f32;
                serialize_f64 f64;
                serialize_bytes &[u8];
                serialize_unit_struct &'static str;
            }

            fn serialize_none(self) -> Result {
                Err(other())
            }

            fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result {
                Err(other())
            }

            fn serialize_unit(self) -> Result {
                Err(other())
            }

            fn serialize_newtype_variant<T: Serialize + ?Sized>(
                self,
                _: &'static str,
                _: u32,
                _: &'static str,
                _: &T,
            ) -> Result {
                Err(other())
            }

            fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
                Err(other())
            }

            fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
                Err(other())
            }

            fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
                Err(other())
            }

            fn serialize_tuple_variant(
                self,
                _: &'static str,
                _: u32,
                _: &'static str,
                _: usize,
            ) -> Result<Self::SerializeTupleVariant> {
                Err(other())
            }

            fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
                Err(other())
            }

            fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct> {
                Err(other())
            }

            fn serialize_struct_variant(
                self,
                _: &'static str,
                _: u32,
                _: &'static str,
                _: usize,
            ) -> Result<Self::SerializeStructVariant> {
                Err(other())
            }
        }
    };
}

fn other() -> Error {
    Error::custom("only a string can stand here")
}

macro_rules! quoted {
    ($($method:ident $kind:ty;)*) => {
        $(fn $method(self, number: $kind) -> Result {
            self.serialize_str(&number.to_string())
        })*
    };
}

strings_only!(Key, "The key of a map; numbers become strings.", string, {
    quoted! {
        serialize_u8 u8;
        serialize_u16 u16;
        serialize_u32 u32;
        serialize_u64 u64;
        serialize_i8 i8;
        serialize_i16 i16;
        serialize_i32 i32;
        serialize_i64 i64;
    }
});

strings_only!(Token, "The text of a raw value.", |out, text| out.put(text.as_bytes()), {
    refused! {
        serialize_u8 u8;
        serialize_u16 u16;
        serialize_u32 u32;
        serialize_u64 u64;
        serialize_i8 i8;
        serialize_i16 i16;
        serialize_i32 i32;
        serialize_i64 i64;
    }
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::BytesMut;
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    fn written<T: Serialize + ?Sized>(value: &T) -> String {
        let mut out = BytesMut::new();
        value.serialize(Json(&mut out)).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[derive(Serialize)]
    enum Kind {
        Unit,
        #[serde(rename = "new type")]
        New(u8),
        Tuple(i8, Option<bool>),
        Struct {
            a: f32,
            b: (),
        },
    }

    #[derive(Serialize)]
    struct Marker;

    #[derive(Serialize)]
    struct All<'a> {
        kinds: Vec<Kind>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u8>,
        raw: &'a RawValue,
        map: BTreeMap<u64, char>,
        marker: Marker,
        tuple: (i64, u64, u128, i128, f64, f64),
        text: &'a str,
        #[serde(flatten)]
        rest: BTreeMap<&'a str, Value>,
    }

    #[test]
    fn every_form_is_written_as_serde_json_writes_it() {
        let raw: &RawValue = serde_json::from_str(r#"{"kept" : [ 1.50, "\u00e9" ]}"#).unwrap();
        let all = All {
            kinds: vec![Kind::Unit, Kind::New(7), Kind::Tuple(-8, None), Kind::Struct { a: 1.5, b: () }],
            absent: None,
            raw,
            map: [(7, 'a'), (8, '"')].into(),
            marker: Marker,
            tuple: (i64::MIN, u64::MAX, u128::MAX, i128::MIN, f64::NAN, 1e300),
            text: "\u{0}\u{8}\u{c}\u{1f}\u{7f}\"\\\n\r\té\u{2028}😀",
            rest: [("x", json!({"deep": [null, true, -0.0, {}]})), ("y\n", json!([]))].into(),
        };
        assert_eq!(written(&all), serde_json::to_string(&all).unwrap());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let map: BTreeMap<Vec<u8>, u8> = [(vec![1], 1)].into();
        assert!(map.serialize(Json(&mut BytesMut::new())).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_serde_json_writes_it(value in any_value()) {
            prop_assert_eq!(written(&value), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn any_text_is_escaped_as_serde_json_escapes_it(text in any::<String>(), odd in "[\\x00-\\x7f]{0,300}") {
            prop_assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(written(&odd), serde_json::to_string(&odd).unwrap());
        }
    }
}
