//! Calls without a thought signature: Gemini did not make them, or their signatures are lost.
//!
//! Google checks the current turn only: there the first call of each step gets the value that it documents for such
//! histories. Older turns need nothing, and get nothing; but a call that was asked with the value once keeps it when
//! its turn is over, or the conversation would not begin with the same bytes any more, and Google's cache would not
//! find it. What the memory keeps for that is where in which conversation the call stands.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use crate::gemini::ask::{Content, Part};
use crate::translate::{Signatures, Target};
use crate::wire::Text;

/// Tells Google that a call has no signature.
pub(in crate::translate) const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// The steps of one conversation, in their order.
pub(in crate::translate) struct Unsigned<'s> {
    signatures: &'s dyn Signatures,
    /// The model wants signatures.
    wanted: bool,
    /// What was said in the turns up to here.
    said: DefaultHasher,
    upto: usize,
}

impl<'s> Unsigned<'s> {
    pub(in crate::translate) fn new(target: &Target<'_>, signatures: &'s dyn Signatures) -> Self {
        let mut said = DefaultHasher::new();
        target.model.hash(&mut said);
        Self { signatures, wanted: target.traits.signatures, said, upto: 0 }
    }

    /// Looks at one turn of the model: `before` is what stands before it, `current` whether its turn still goes on.
    pub(in crate::translate) fn step(
        &mut self,
        before: &[Content<'_>],
        parts: &mut [Part<'_>],
        current: bool,
    ) {
        let first = parts.iter().find(|part| part.function_call.is_some());
        if !self.wanted || first.is_none_or(|first| first.thought_signature.is_some()) {
            return;
        }
        let place = self.place(before, parts);
        if !current && self.signatures.recall(&place).is_none() {
            return;
        }
        if current && self.signatures.believed() {
            self.signatures.remember(&place, NO_SIGNATURE);
        }
        if let Some(first) = parts.iter_mut().find(|part| part.function_call.is_some()) {
            first.thought_signature = Some(Text::plain(NO_SIGNATURE));
        }
    }

    fn place(&mut self, before: &[Content<'_>], parts: &[Part<'_>]) -> String {
        for part in before.iter().skip(self.upto).flat_map(|content| &content.parts) {
            say(part, &mut self.said);
        }
        self.upto = before.len();
        let mut said = self.said.clone();
        for part in parts {
            say(part, &mut said);
        }
        format!("unsigned {:016x}", said.finish())
    }
}

/// What tells one conversation from another: texts, calls and results, but no media.
fn say(part: &Part<'_>, into: &mut DefaultHasher) {
    part.text.as_ref().map(Text::decode).hash(into);
    let mut into = Hashed(into);
    // A hasher takes everything.
    let _ = serde_json::to_writer(&mut into, &part.function_call);
    let _ = serde_json::to_writer(&mut into, &part.function_response.as_ref().map(|said| &said.response));
}

struct Hashed<'h>(&'h mut DefaultHasher);

impl io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
