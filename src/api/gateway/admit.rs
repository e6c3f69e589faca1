//! Admission: how big a request is, what it may cost at most, and whether its key may make it.

use super::Gateway;
use crate::api::Ctx;
use crate::error::Result;
use crate::limits::{Amount, Claim, Tokens};
use crate::usage::Tier;
use crate::wire::Rope;

/// What an answer takes where nothing is known of it: enough for a short one, and the truth settles it.
const ANSWER: u64 = 256;

/// What an inline image, a page or a few seconds of sound take, about.
const INLINE: u64 = 1300;

/// How big a request is, as far as that can be told before it is answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Tokens of the prompt, about.
    pub(super) input: u64,
    /// The most tokens that the prompt can be, as a rule; looked for where there is a budget.
    heaviest: Option<u64>,
    /// The most tokens of the answer, where the client named it.
    pub(super) most: Option<u64>,
    /// It may be served as a priority, at that price.
    dear: bool,
    /// It uses no tokens at all.
    free: bool,
    /// How many answers there are to it, each as long as one may be; none means one.
    answers: u64,
}

impl Size {
    /// A request that uses no tokens: it counts as a request, and costs nothing.
    pub(super) const FREE: Self =
        Self { input: 0, most: None, dear: false, free: true, answers: 1, heaviest: None };

    /// A prompt of about so many tokens.
    pub(super) fn about(input: u64) -> Self {
        Self { input, ..Self::default() }
    }

    /// The size of what will be sent to Google: text by its length, inline media by the piece.
    pub(super) fn of(body: &Rope) -> Self {
        let tokens = body.pieces().map(|piece| if is_media(piece) { INLINE } else { piece.len() as u64 / 4 });
        // Inside of a text the quotes would be escaped; a long one is a piece of its own, and megabytes.
        let written = body.pieces().filter(|piece| !is_media(piece) && !is_text(piece));
        let dear = { written }.any(|piece| memchr::memmem::find(piece, b"\"priority\"").is_some());
        Self { dear, ..Self::about(tokens.sum()) }
    }

    /// With the most that the prompt can come to, where the key has a budget to be kept.
    pub(super) fn weighed(self, cx: &Ctx, body: &Rope) -> Self {
        let heaviest = || body.pieces().map(|piece| heaviest(piece)).sum();
        Self { heaviest: cx.tenant.budget().map(|_| heaviest()), ..self }
    }

    /// A request that was not looked into: it may ask for the dearest tier.
    pub(super) fn unread(self) -> Self {
        Self { dear: true, ..self }
    }

    /// What is sent so many times, and answered so many times.
    pub(super) fn times(self, sent: u64, answers: u64) -> Self {
        let sent = sent.max(1);
        let heaviest = self.heaviest.map(|tokens| tokens.saturating_mul(sent));
        Self { input: self.input.saturating_mul(sent), heaviest, answers, ..self }
    }

    /// With the client's own bound on all answers together.
    pub(super) fn bounded(self, most: Option<u64>) -> Self {
        Self { most, ..self }
    }
}

/// Whether a piece is inline media: the encoder leaves long base64 as a piece of its own.
fn is_media(piece: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
    piece.len() > 1024 && piece.iter().take(512).all(base64)
}

/// Whether a piece is a text: what is written behind media begins with their quote, and goes on with what no text
/// begins with often.
fn is_text(piece: &[u8]) -> bool {
    matches!(piece, [b'"', second, .., b'"'] if piece.len() > 1024 && !b"},".contains(second))
}

/// The most tokens that a piece comes to, as a rule. Prose has four letters a token and more; but each digit is a
/// token, so is most punctuation, and other scripts have a token for two bytes. A picture is what its resolution
/// makes it, whatever its bytes; a page takes a few hundred tokens and two kilobytes at least, sound at the lowest
/// rates forty bytes a token.
fn heaviest(piece: &[u8]) -> u64 {
    if is_media(piece) {
        let picture: [&[u8]; 4] = [b"/9j/", b"iVBOR", b"R0lGOD", b"UklGR"];
        // WAVE begins as WebP does.
        let wave = piece.get(11..16) == Some(b"XQVZF");
        let fixed = picture.iter().any(|magic| piece.starts_with(magic)) && !wave;
        return if fixed { 2 * INLINE } else { INLINE.max(piece.len() as u64 / 40) };
    }
    let (mut letters, mut others, mut foreign) = (0_u64, 0_u64, 0_u64);
    for byte in piece {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b' ' => letters += 1,
            128.. => foreign += 1,
            _ => others += 1,
        }
    }
    letters / 3 + others + foreign / 2
}

impl Gateway {
    /// Lets a request in for `model`, or refuses it. The meter holds the permit from here on, settles it with
    /// what was really used, and tells the client where its limits stand.
    ///
    /// # Errors
    /// As [`crate::limits::Limiter::admit`].
    pub(super) async fn admit(&self, cx: &Ctx, model: &str, size: Size) -> Result<()> {
        // What serves when nothing is known of the model is generous: a worst case must not be too small.
        let cap = self.catalog.traits(model).max_output_tokens.unwrap_or(65_536);
        let answers = size.answers.max(1);
        let cap = cap.saturating_mul(answers);
        let most = size.most.unwrap_or(cap);
        let input = size.heaviest.map_or(size.input, |heaviest| heaviest.max(size.input));
        let worst = cx.tenant.budget().and_then(|budget| match budget.amount {
            _ if size.free => Some(0),
            Amount::Tokens(_) => Some(input.saturating_add(most)),
            Amount::Nanos(_) => {
                let price = self.prices.of(model, self.clock.unix_seconds())?;
                let dear = size.dear.then(|| price.worst(input, most, Tier::Priority)).flatten();
                dear.or_else(|| price.worst(input, most, Tier::Standard))
            }
        });
        let estimate = Tokens {
            input: size.input,
            output: if size.free {
                0
            } else {
                size.most.map_or(ANSWER.saturating_mul(answers), |most| most.min(cap))
            },
        };
        let claim = Claim {
            key: cx.tenant.name(),
            model,
            quota: cx.tenant.quota(),
            budget: cx.tenant.budget(),
            estimate,
            worst,
            bounded: size.most.is_some() || size.free,
        };
        match self.limiter.admit(&claim).await {
            Ok(permit) => {
                cx.meter.admitted(permit, estimate);
                Ok(())
            }
            Err(refusal) => {
                cx.meter.tell(refusal.headers);
                Err(refusal.error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn media_count_by_the_piece_and_text_by_its_length() {
        let mut body = Rope::default();
        body.push(Bytes::from(vec![b' '; 400]));
        body.push(Bytes::from(vec![b'A'; 1_000_000]));
        assert_eq!(Size::of(&body).input, 100 + INLINE);
    }

    #[test]
    fn what_is_sent_several_times_is_paid_several_times() {
        let size = Size::about(100).times(4, 4);
        assert_eq!((size.input, size.answers), (400, 4));
        let size = Size::about(100).times(1, 3);
        assert_eq!(
            (size.input, size.answers),
            (100, 3),
            "several candidates of one call read the prompt once"
        );
    }

    #[test]
    fn the_worst_case_of_a_prompt_knows_digits_and_other_scripts() {
        assert_eq!(heaviest(b"one two three"), 13 / 3);
        assert_eq!(heaviest(b"1234567890"), 10);
        assert_eq!(heaviest("日本語".as_bytes()), 4);
        let media = |begins: &[u8]| heaviest(&[begins, &vec![b'A'; 400_000]].concat());
        assert_eq!(media(b"/9j/"), 2 * INLINE);
        assert_eq!(media(b""), 10_000);
        assert_eq!(media(b"UklGRgAAAABXQVZF"), 10_000);
        assert_eq!(media(b"UklGRgAAAABXRUJQ"), 2 * INLINE);
    }

    #[test]
    fn only_a_wish_for_priority_is_dear() {
        let size = |text: &'static str| {
            let mut body = Rope::default();
            body.push(Bytes::from_static(text.as_bytes()));
            Size::of(&body).dear
        };
        assert!(size(r#"{"serviceTier":"priority","contents":[]}"#));
        assert!(!size(r#"{"serviceTier":"flex","contents":[{"parts":[{"text":"a \"priority\" of"}]}]}"#));
    }
}
