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

/// Digits of the largest number.
const LONGEST: usize = 20;

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    let mut rest: &mut [[u8; 2]] = &mut pairs;
    while let [first, more @ ..] = rest {
        *first = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
        rest = more;
    }
    pairs
};

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
        self.padded(number, 1)
    }

    /// This, and a number of that many digits at least behind it.
    #[must_use]
    pub fn padded(self, mut number: u64, least: usize) -> Self {
        let mut digits = [b'0'; LONGEST];
        let mut from = LONGEST;
        // Two at a time: dividing is what costs.
        for pair in digits.as_chunks_mut::<2>().0.iter_mut().rev() {
            *pair =
                usize::try_from(number % 100).ok().and_then(|at| PAIRS.get(at)).copied().unwrap_or_default();
            number /= 100;
            from -= 2;
            if number == 0 {
                // Of one digit the other is a zero in front.
                from += usize::from(pair[0] == b'0');
                break;
            }
        }
        self.bytes(digits.get(from.min(LONGEST.saturating_sub(least))..).unwrap_or_default())
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
            let padded = Short::default().word("x").padded(number, least);
            prop_assert_eq!(padded.as_str().to_owned(), format!("x{number:0least$}"));
            let trimmed = padded.without(b'0').as_str().to_owned();
            prop_assert_eq!(trimmed, format!("x{number:0least$}").trim_end_matches('0').to_owned());
        }
    }
}
