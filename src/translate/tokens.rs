//! Token arrays → text. Gemini takes text only, and some clients send nothing but tokens.
//!
//! Which encoding the tokens are in, is not said in `OpenAI`'s requests. The rule is the one the clients
//! themselves go by: the encoding that `OpenAI`'s tokenizer knows for the model's name, and `cl100k_base` for every
//! other name. A request may say otherwise by naming the `encoding`.

use serde_json::value::RawValue;
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};
use tiktoken_rs::{CoreBPE, bpe_for_tokenizer};

use crate::error::{Error, Result};
use crate::translate::chat::request::read;

/// Tokens of one text; `OpenAI`'s own limit.
const MOST_TOKENS: usize = 8192;
/// Bytes of all decoded texts of a request: a single token may stand for a hundred blanks.
pub const MOST_BYTES: usize = 64 << 20;

const SWITCH_OFF: &str = "Send text instead; LangChain's OpenAIEmbeddings does with \
     check_embedding_ctx_length=False. Another encoding can be named in the field 'encoding'.";

/// An encoding, ready to decode.
#[derive(Clone, Copy)]
pub struct Decoder {
    bpe: &'static CoreBPE,
    name: &'static str,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({})", self.name)
    }
}

impl Decoder {
    /// The decoder for a request: by the encoding it names, else by its model's name. The first one of each
    /// encoding takes a moment (its table is built), all later ones none.
    ///
    /// # Errors
    /// For the name of an encoding that does not exist.
    pub fn new(encoding: Option<&str>, model: &str) -> Result<Self> {
        let tokenizer = match encoding {
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
        };
        let name = match tokenizer {
            Tokenizer::O200kHarmony => "o200k_harmony",
            Tokenizer::O200kBase => "o200k_base",
            Tokenizer::Cl100kBase => "cl100k_base",
            Tokenizer::P50kBase => "p50k_base",
            Tokenizer::R50kBase => "r50k_base",
            Tokenizer::P50kEdit => "p50k_edit",
            Tokenizer::Gpt2 => "gpt2",
        };
        let bpe = bpe_for_tokenizer(tokenizer)
            .map_err(|error| Error::internal(format!("the encoding {name} cannot be loaded: {error}")))?;
        Ok(Self { bpe, name })
    }

    /// The text behind a list of tokens. Where a list begins or ends inside a character, as one piece of a longer
    /// text may, that character becomes U+FFFD.
    ///
    /// # Errors
    /// For an empty list, too long a list, and numbers that are no tokens of this encoding.
    pub fn text(&self, raw: &RawValue) -> Result<String> {
        let tokens: Vec<u32> = read(raw)?;
        if tokens.is_empty() {
            return Err(Error::invalid("", "A list of tokens must not be empty."));
        }
        if tokens.len() > MOST_TOKENS {
            let message =
                format!("A list of {} tokens is too long; at most {MOST_TOKENS} fit.", tokens.len());
            return Err(Error::invalid("", message));
        }
        let bytes = self.bpe.decode_bytes(&tokens).map_err(|error| {
            let message = format!("Token {} does not exist in {}. {SWITCH_OFF}", error.token, self.name);
            Error::invalid("", message).code("unsupported_tokens")
        })?;
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
        assert_eq!(Decoder::new(None, "gemini-embedding-001").unwrap().name, "cl100k_base");
        assert_eq!(Decoder::new(None, "text-embedding-3-large").unwrap().name, "cl100k_base");
        assert_eq!(Decoder::new(None, "text-davinci-003").unwrap().name, "p50k_base");
        assert_eq!(Decoder::new(Some("gpt2"), "text-embedding-3-large").unwrap().name, "gpt2");
        assert_eq!(Decoder::new(Some("klingon"), "x").unwrap_err().param(), Some("encoding"));
    }

    #[test]
    fn tokens_become_text() {
        let decoder = Decoder::new(None, "gemini-embedding-001").unwrap();
        assert_eq!(decoder.text(&raw("[15339, 1917]")).unwrap(), "hello world");
        // Half of a character.
        assert!(decoder.text(&raw("[9468]")).unwrap().contains('\u{fffd}'));
        let error = decoder.text(&raw("[4000000]")).unwrap_err();
        assert!(error.message().contains("check_embedding_ctx_length=False"), "{}", error.message());
        assert_eq!(decoder.text(&raw("[1, 2.5]")).unwrap_err().param(), Some("[1]"));
        assert!(decoder.text(&raw("[]")).is_err());
    }

    #[test]
    fn tokens_are_told_from_texts() {
        assert!(are_tokens(&raw("[1]")) && are_tokens(&raw("[ [-1]]")));
        assert!(!are_tokens(&raw("1")) && !are_tokens(&raw(r#"["1"]"#)) && !are_tokens(&raw("[]")));
    }
}
