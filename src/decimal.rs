//! Decimal digits, written without the formatting machinery: a handful of numbers stands in the head of every reply and in
//! every line of the log.

/// A short text on the stack. What does not fit is left out, so make it of numbers and words of ours.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    bytes: [u8; ROOM],
    length: usize,
}

/// Two of the longest numbers and what stands between them.
const ROOM: usize = 48;

/// Writes a number behind what is there.
pub fn push(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

impl Default for Short {
    fn default() -> Self {
        Self { bytes: [0; ROOM], length: 0 }
    }
}

impl Short {
    /// A number.
    pub fn of(number: u64) -> Self {
        Self::default().number(number)
    }

    /// This, and a number behind it.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.bytes(itoa::Buffer::new().format(number).as_bytes())
    }

    /// This, and a number of that many digits at least behind it.
    #[must_use]
    pub fn padded(self, number: u64, least: usize) -> Self {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number).as_bytes();
        let zeros = b"00000000000000000000".get(..least.saturating_sub(digits.len())).unwrap_or_default();
        self.bytes(zeros).bytes(digits)
    }

    /// This, and a word behind it.
    #[must_use]
    pub fn word(self, word: &str) -> Self {
        self.bytes(word.as_bytes())
    }

    fn bytes(mut self, more: &[u8]) -> Self {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + more.len()) {
            room.copy_from_slice(more);
            self.length += more.len();
        }
        self
    }

    /// Without these letters at the end.
    #[must_use]
    pub fn without(mut self, letter: u8) -> Self {
        while self.as_bytes().last() == Some(&letter) {
            self.length -= 1;
        }
        self
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The same as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out() {
        let long = Short::of(u64::MAX).word("-").number(u64::MAX).word("1234567").word("8");
        assert_eq!(long.as_str(), format!("{0}-{0}1234567", u64::MAX));
    }

    proptest! {
        #[test]
        fn numbers_are_what_the_library_writes(number: u64, least in 0_usize..21) {
            prop_assert_eq!(Short::of(number).as_str().to_owned(), number.to_string());
            let mut pushed = b"x".to_vec();
            push(&mut pushed, number);
            prop_assert_eq!(String::from_utf8(pushed).unwrap(), format!("x{number}"));
            let padded = Short::default().word("x").padded(number, least);
            prop_assert_eq!(padded.as_str().to_owned(), format!("x{number:0least$}"));
            let trimmed = padded.without(b'0').as_str().to_owned();
            prop_assert_eq!(trimmed, format!("x{number:0least$}").trim_end_matches('0').to_owned());
        }
    }
}
