//! Token arrays → text. Gemini takes text only, and some clients send nothing but tokens.
//!
//! Which encoding the tokens are in, is not said in `OpenAI`'s requests. The rule is the one the clients
//! themselves go by: the encoding that `OpenAI`'s tokenizer knows for the model's name, and `cl100k_base` for every
//! other name. A request may say otherwise by naming the `encoding`.

use serde_json::value::RawValue;
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};

use crate::error::{Error, Result};
use crate::translate::chat::request::read;

mod table;

use table::Table;

/// Tokens of one text; `OpenAI`'s own limit.
const MOST_TOKENS: usize = 8192;
/// Bytes of all decoded texts of a request: a single token may stand for a hundred blanks.
pub const MOST_BYTES: usize = 64 << 20;

const SWITCH_OFF: &str = "Send text instead; LangChain's OpenAIEmbeddings does with \
     check_embedding_ctx_length=False. Another encoding can be named in the field 'encoding'.";

/// From this number on the tokens of `o200k_harmony` are not those of `o200k_base`.
const HARMONY: usize = 199_998;

/// One of `OpenAI`'s encodings.
#[derive(Clone, Copy, Debug)]
pub struct Encoding(Tokenizer);

impl Encoding {
    /// The encoding of a request's tokens: the one it names, else the one of its model's name.
    ///
    /// # Errors
    /// For the name of an encoding that does not exist.
    pub fn of(named: Option<&str>, model: &str) -> Result<Self> {
        Ok(Self(match named {
            None => get_tokenizer(model).unwrap_or(Tokenizer::Cl100kBase),
            Some("cl100k_base") => Tokenizer::Cl100kBase,
            Some("o200k_base") => Tokenizer::O200kBase,
            Some("o200k_harmony") => Tokenizer::O200kHarmony,
            Some("p50k_base") => Tokenizer::P50kBase,
            Some("p50k_edit") => Tokenizer::P50kEdit,
            Some("r50k_base") => Tokenizer::R50kBase,
            Some("gpt2") => Tokenizer::Gpt2,
            Some(_) => {
                return Err(Error::invalid(
                    "encoding",
                    "'encoding' must be one of 'cl100k_base', 'o200k_base', 'o200k_harmony', 'p50k_base', \
                     'p50k_edit', 'r50k_base' and 'gpt2'.",
                ));
            }
        }))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Tokenizer::O200kHarmony => "o200k_harmony",
            Tokenizer::O200kBase => "o200k_base",
            Tokenizer::Cl100kBase => "cl100k_base",
            Tokenizer::P50kBase => "p50k_base",
            Tokenizer::R50kBase => "r50k_base",
            Tokenizer::P50kEdit => "p50k_edit",
            Tokenizer::Gpt2 => "gpt2",
        }
    }

    /// Unpacks the table behind it, should nobody have done so. That takes a moment: do it where waiting hurts nobody.
    pub fn load(self) {
        self.table();
    }

    /// Its table, and how many of the table's numbers are its own.
    fn table(self) -> (&'static Table, usize) {
        match self.0 {
            Tokenizer::Cl100kBase => (&table::CL100K, usize::MAX),
            Tokenizer::O200kBase => (&table::O200K, usize::MAX),
            Tokenizer::O200kHarmony => (&table::O200K, HARMONY),
            Tokenizer::P50kEdit => (&table::P50K, usize::MAX),
            Tokenizer::P50kBase => (&table::P50K, 50_281),
            Tokenizer::R50kBase | Tokenizer::Gpt2 => (&table::P50K, 50_257),
        }
    }

    /// Puts what a token stands for behind `out`; false where there is no such token.
    fn put(self, number: u32, out: &mut Vec<u8>) -> bool {
        let (table, own) = self.table();
        let at = number as usize;
        if at < own {
            let token = table.token(at);
            out.extend_from_slice(token.unwrap_or_default());
            return token.is_some();
        }
        let name = match number {
            _ if self.0 != Tokenizer::O200kHarmony => return false,
            199_998 => "startoftext",
            199_999 => "endoftext",
            200_002 => "return",
            200_003 => "constrain",
            200_005 => "channel",
            200_006 => "start",
            200_007 => "end",
            200_008 => "message",
            200_012 => "call",
            200_000..=201_087 => {
                out.extend_from_slice(format!("<|reserved_{number}|>").as_bytes());
                return true;
            }
            _ => return false,
        };
        for piece in ["<|", name, "|>"] {
            out.extend_from_slice(piece.as_bytes());
        }
        true
    }

    /// The text behind a list of tokens. Where a list begins or ends inside a character, as one piece of a longer
    /// text may, that character becomes U+FFFD.
    ///
    /// # Errors
    /// For an empty list, too long a list, and numbers that are no tokens of this encoding.
    pub fn text(self, raw: &RawValue) -> Result<String> {
        let tokens: Vec<u32> = read(raw).map_err(|error| {
            let place = error.param().unwrap_or_default().to_owned();
            Error::invalid(place, "A list of tokens must hold whole numbers only.").code("invalid_type")
        })?;
        if tokens.is_empty() {
            return Err(Error::invalid("", "A list of tokens must not be empty."));
        }
        if tokens.len() > MOST_TOKENS {
            let message =
                format!("A list of {} tokens is too long; at most {MOST_TOKENS} fit.", tokens.len());
            return Err(Error::invalid("", message));
        }
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        if let Some(none) = tokens.iter().find(|token| !self.put(**token, &mut bytes)) {
            let message = format!("Token {none} does not exist in {}. {SWITCH_OFF}", self.name());
            return Err(Error::invalid("", message).code("unsupported_tokens"));
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }
}

/// Whether a raw value holds tokens: a list whose first element, at some depth, is a number.
pub fn are_tokens(raw: &RawValue) -> bool {
    let inner = raw.get().trim_start_matches(|c: char| c == '[' || c.is_ascii_whitespace());
    raw.get().starts_with('[') && inner.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn the_models_name_decides_unless_the_request_does() {
        assert_eq!(Encoding::of(None, "gemini-embedding-001").unwrap().name(), "cl100k_base");
        assert_eq!(Encoding::of(None, "text-embedding-3-large").unwrap().name(), "cl100k_base");
        assert_eq!(Encoding::of(None, "text-davinci-003").unwrap().name(), "p50k_base");
        assert_eq!(Encoding::of(Some("gpt2"), "text-embedding-3-large").unwrap().name(), "gpt2");
        assert_eq!(Encoding::of(Some("klingon"), "x").unwrap_err().param(), Some("encoding"));
    }

    #[test]
    fn tokens_become_text() {
        let encoding = Encoding::of(None, "gemini-embedding-001").unwrap();
        assert_eq!(encoding.text(&raw("[15339, 1917]")).unwrap(), "hello world");
        // Half of a character.
        assert!(encoding.text(&raw("[9468]")).unwrap().contains('\u{fffd}'));
        let error = encoding.text(&raw("[4000000]")).unwrap_err();
        assert!(error.message().contains("check_embedding_ctx_length=False"), "{}", error.message());
        assert_eq!(encoding.text(&raw("[1, 2.5]")).unwrap_err().param(), Some("[1]"));
        assert!(encoding.text(&raw("[]")).is_err());
    }

    #[test]
    fn every_token_is_what_the_tokenizer_says() {
        // The other encodings are parts of these. To build all of them would take long.
        for name in ["cl100k_base", "o200k_harmony", "p50k_edit"] {
            let encoding = Encoding::of(Some(name), "").unwrap();
            let tokenizer = tiktoken_rs::bpe_for_tokenizer(encoding.0).unwrap();
            for number in 0..210_000 {
                let mut bytes = Vec::new();
                let known = encoding.put(number, &mut bytes).then_some(bytes);
                assert_eq!(known, tokenizer.decode_bytes(&[number]).ok(), "{name} {number}");
            }
        }
        for (name, last, none) in [
            ("o200k_base", (200_018, "<|endofprompt|>"), [199_998, 200_000, 200_019]),
            ("p50k_base", (50_280, "                         "), [50_281, 50_283, 60_000]),
            ("r50k_base", (50_256, "<|endoftext|>"), [50_257, 50_280, 60_000]),
            ("gpt2", (50_256, "<|endoftext|>"), [50_257, 50_280, 60_000]),
        ] {
            let encoding = Encoding::of(Some(name), "").unwrap();
            assert_eq!(encoding.text(&raw(&format!("[{}]", last.0))).unwrap(), last.1);
            assert!(none.iter().all(|number| !encoding.put(*number, &mut Vec::new())), "{name}");
        }
    }

    #[test]
    fn tokens_are_told_from_texts() {
        assert!(are_tokens(&raw("[1]")) && are_tokens(&raw("[ [-1]]")));
        assert!(!are_tokens(&raw("1")) && !are_tokens(&raw(r#"["1"]"#)) && !are_tokens(&raw("[]")));
    }
}
