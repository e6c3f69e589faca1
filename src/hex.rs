//! Hexadecimal: key hashes and trace ids are written so.

/// Two lower-case digits for each byte.
pub fn write(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads exactly `N` bytes, in digits of either case.
pub fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
        *byte = u8::try_from(value).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(write(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(read("001FfF"), Some([0, 0x1f, 0xff]));
        for wrong in ["", "0", "001ff", "001fff0", "001fff00", "0+1fff", "00é1f"] {
            assert_eq!(read::<3>(wrong), None, "{wrong}");
        }
    }
}
