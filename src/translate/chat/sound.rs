//! Sound in answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::translate::Stamp;

/// How long a client may refer to sound in a later turn, in seconds: it cannot, so the time is short.
const KEPT: u64 = 3600;
/// The length of a WAV head, in bytes.
const HEAD: u32 = 44;

/// Writes the lengths into a WAV head of ours, now that they are known.
fn measure(sound: &mut [u8]) {
    let whole = u32::try_from(sound.len()).unwrap_or(u32::MAX);
    if !sound.starts_with(b"RIFF\xff\xff\xff\xff") {
        return;
    }
    for (at, before) in [(4, 8), (40, HEAD)] {
        if let Some(place) = sound.get_mut(at..at + 4) {
            place.copy_from_slice(&whole.saturating_sub(before).to_le_bytes());
        }
    }
}

/// When the sound of a reply is gone, in Unix seconds.
pub(super) fn expires_at(stamp: &Stamp) -> u64 {
    stamp.created.saturating_add(KEPT)
}

/// Base64 pieces as one; each may end with its own padding.
pub(super) fn joined(pieces: &[String]) -> String {
    if let [one] = pieces {
        return one.clone();
    }
    let mut sound = Vec::new();
    for piece in pieces {
        match STANDARD.decode(piece) {
            Ok(bytes) => sound.extend_from_slice(&bytes),
            Err(_) => return pieces.concat(),
        }
    }
    measure(&mut sound);
    STANDARD.encode(sound)
}

/// The head of a WAV file, in base64, for the samples that a media type like `audio/L16;codec=pcm;rate=24000`
/// announces: 16 bits, one channel unless it says otherwise. `None` for sound that has a container of its own.
/// The length is not known when a stream begins, so the head says the most it can, as recorders do; players stop
/// where the data ends.
pub(super) fn wav_head(mime: &str) -> Option<String> {
    let mut words = mime.split(';').map(str::trim);
    if !words.next()?.eq_ignore_ascii_case("audio/l16") {
        return None;
    }
    let (mut rate, mut channels) = (24_000_u32, 1_u16);
    for word in words {
        match word.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("rate") => rate = value.parse().unwrap_or(rate),
            Some((name, value)) if name.eq_ignore_ascii_case("channels") => {
                channels = value.parse().unwrap_or(channels);
            }
            Some(_) | None => {}
        }
    }
    let frame = channels.saturating_mul(2);
    let mut head = Vec::with_capacity(HEAD as usize);
    head.extend_from_slice(b"RIFF\xff\xff\xff\xffWAVEfmt ");
    head.extend_from_slice(&16_u32.to_le_bytes());
    head.extend_from_slice(&1_u16.to_le_bytes());
    head.extend_from_slice(&channels.to_le_bytes());
    head.extend_from_slice(&rate.to_le_bytes());
    head.extend_from_slice(&rate.saturating_mul(u32::from(frame)).to_le_bytes());
    head.extend_from_slice(&frame.to_le_bytes());
    head.extend_from_slice(&16_u16.to_le_bytes());
    head.extend_from_slice(b"data\xff\xff\xff\xff");
    Some(STANDARD.encode(head))
}
