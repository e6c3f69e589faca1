//! Decimals of the sizes that vectors are made of, read and written eight digits at a time.
//!
//! A vector is hundreds of numbers and a batch is a hundred vectors, so each number is worth some care. What does not
//! look like nearly all numbers do is left to the slow ways, which are right for everything; the tests hold the fast
//! ways against them.

/// Powers of ten, each of them exact.
const POWERS: [f64; 20] = [
    1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19,
];
/// Those below a hundred million, as whole numbers.
const WHOLE_POWERS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// One in each of eight bytes.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
/// The figure nought in each of eight bytes.
const NOUGHTS: u64 = u64::from_ne_bytes([b'0'; 8]);

/// How many of the bytes are digits, from the first on.
#[inline]
const fn digits(bytes: u64) -> u32 {
    // What is no digit reaches the top bit of its byte; what that may carry into the next does not touch the first.
    let other = ((bytes ^ NOUGHTS).wrapping_add(ONES * 0x76) | bytes) & (ONES << 7);
    other.trailing_zeros() / 8
}

/// The number that eight digits write; nothing in a byte is a nought.
#[inline]
const fn joined(bytes: u64) -> u64 {
    let pairs = ((bytes & (ONES * 0x0f)).wrapping_mul((10 << 8) | 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul((100 << 16) | 1) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul((10_000 << 32) | 1) >> 32
}

/// The digits of a number below a hundred million, with noughts in front.
#[inline]
const fn spread(number: u64) -> u64 {
    let (high, low) = (number / 10_000, number % 10_000);
    let fours = high | (low << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((pairs - tens * 10) << 8) | NOUGHTS
}

/// The number that a text begins with and how long it is, where it is `0.` and up to fifteen digits, and more text
/// follows. Its digits as a whole number and the power of ten are both exact, so that their quotient is what a slower
/// reading would give.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "fifteen digits fit")]
pub(super) fn begin(text: &[u8]) -> Option<(f64, usize)> {
    let negative = usize::from(text.first() == Some(&b'-'));
    let [b'0', b'.', fraction @ ..] = text.get(negative..)?.first_chunk::<18>()? else { return None };
    let (front, back) = fraction.split_first_chunk::<8>()?;
    let (front, back) = (u64::from_le_bytes(*front), u64::from_le_bytes(*back.first_chunk()?));
    let (count, whole) = match digits(front) {
        0 => return None,
        8 => match digits(back) {
            0 => (8, joined(front)),
            8 => return None,
            more => {
                let last = joined(back << (64 - 8 * more));
                (8 + more as usize, joined(front) * WHOLE_POWERS.get(more as usize)? + last)
            }
        },
        few => (few as usize, joined(front << (64 - 8 * few))),
    };
    let value = whole as f64 / POWERS.get(count)?;
    Some((if negative == 1 { -value } else { value }, negative + 2 + count))
}

/// A number of few digits and without an exponent. It is exact for the same reason.
pub(super) fn short(token: &[u8]) -> Option<f64> {
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    let (mut whole, mut behind, mut point) = (0_u64, 0_usize, false);
    // Nineteen digits fit whatever they are.
    if digits.len() > 19 {
        return None;
    }
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            whole = whole * 10 + u64::from(digit);
            behind += usize::from(point);
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            return None;
        }
    }
    if digits.len() == usize::from(point) || whole > EXACT {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "it was seen to fit")]
    let value = whole as f64 / POWERS.get(behind)?;
    Some(if digits.len() < token.len() { -value } else { value })
}

/// The most bytes that [`write`] needs, sign and comma included.
pub(super) const ROOM: usize = 17;

/// Writes a number and a comma to where there is [`ROOM`], and says how long that is: nine digits, without the noughts
/// at the end, which read back as the number's 32-bit float. Nothing for numbers of one and more and for those that begin
/// far behind the point.
#[inline]
pub(super) fn write(number: f64, room: &mut [u8; ROOM]) -> Option<usize> {
    let size = number.abs();
    let noughts = match size {
        0.1..1.0 => 0,
        0.01..0.1 => 1,
        0.001..0.01 => 2,
        0.0001..0.001 => 3,
        _ => return None,
    };
    let power = *POWERS.get(9 + noughts)?;
    #[expect(clippy::cast_possible_truncation, reason = "the float is what must come back")]
    let float = size as f32;
    // Nine digits tell any two floats apart. Those of the number itself are a little nearer to what was meant; where
    // they are nearer to another float, those of the float.
    let nine = digits_of(size, power, float).or_else(|| digits_of(f64::from(float), power, float))?;
    let (first, rest) = (nine / 100_000_000, spread(nine % 100_000_000));
    // The nine digits and a comma, behind `0.` and as many noughts as it takes.
    let shift = 8 * (2 + noughts);
    let digits = u128::from(first) | u128::from(b'0') | (u128::from(rest) << 8) | (u128::from(b',') << 72);
    let front = u128::from_le_bytes(*b"0.000\0\0\0\0\0\0\0\0\0\0\0") & ((1 << shift) - 1);
    let [sign, ..] = room;
    *sign = b'-';
    let begin = usize::from(number.is_sign_negative());
    let place = room.get_mut(begin..begin + 16)?;
    place.copy_from_slice(&(front | (digits << shift)).to_le_bytes());
    let mut length = 2 + noughts + 9;
    if rest >> 56 == u64::from(b'0') {
        length = place.get(..length)?.iter().rposition(|byte| *byte != b'0')? + 1;
        *place.get_mut(length)? = b',';
    }
    Some(begin + length + 1)
}

/// A number's nine digits, should they read back as that float, by way of a double or not.
#[inline]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "nine digits; a comparison")]
fn digits_of(number: f64, power: f64, float: f32) -> Option<u64> {
    /// Added to a number below it, it leaves that number, rounded, in the last bits.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    let nine = (number * power + WHOLE).to_bits() ^ WHOLE.to_bits();
    let back = nine as f64 / power;
    // The bits of a double that a float has no place for: half of the float's last bit.
    let between = back.to_bits() & 0x1fff_ffff == 0x1000_0000;
    (nine < 1_000_000_000 && !between && (back as f32).to_bits() == float.to_bits()).then_some(nine)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "floats are what is compared")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(number: f64) -> Option<String> {
        let mut room = [0; ROOM];
        let length = write(number, &mut room)?;
        Some(std::str::from_utf8(&room[..length]).unwrap().to_owned())
    }

    #[test]
    fn what_is_usual_is_read_and_written_fast() {
        for (text, value) in [
            ("0.5,0.25,000000000000000", (0.5, 3)),
            ("-0.012345678,-0.1234567", (-0.012_345_678, 12)),
            ("0.12345678,0.12345678", (0.123_456_78, 10)),
            ("0.000000000000001]}       ", (1e-15, 17)),
        ] {
            assert_eq!(begin(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["0.,                ", "1.5,                ", "0.1234567890123456,   ", "0.5,", ""] {
            assert_eq!(begin(text.as_bytes()), None, "{text}");
        }
        for (number, text) in [
            (0.6, "0.6,"),
            (-0.012_345_678_912_345, "-0.0123456789,"),
            (0.000_1, "0.0001,"),
            (0.100_000_004_9, "0.100000005,"),
        ] {
            assert_eq!(written(number).as_deref(), Some(text));
        }
        for number in [0.0, -0.0, 1.0, 0.999_999_999_9, 1e-5, f64::NAN, f64::INFINITY] {
            assert_eq!(written(number), None, "{number}");
        }
    }

    #[test]
    fn a_number_between_two_floats_is_written_as_one_of_them() {
        for (low, high) in
            [(0.5_f32, 0.5_f32.next_up()), (0.1, 0.1_f32.next_up()), (0.01, 0.01_f32.next_up())]
        {
            let half = f64::midpoint(f64::from(low), f64::from(high));
            for number in [half, half.next_up(), half.next_down()] {
                let text = written(number).unwrap();
                assert_eq!(
                    text.trim_end_matches(',').parse::<f32>().unwrap().to_bits(),
                    (number as f32).to_bits()
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn numbers_are_read_as_rust_reads_them(text in "-?0\\.[0-9]{1,18}", behind in "[,e\\] ][0-9.,]{18}") {
            let all = format!("{text}{behind}");
            if let Some((value, length)) = begin(all.as_bytes()) {
                prop_assert_eq!(length, text.len());
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
            } else {
                prop_assert!(text.trim_start_matches('-').len() > 2 + 15);
            }
        }

        #[test]
        fn whatever_comes_is_read_as_far_as_it_is_a_number(text in "[-0-9.e+, ]{18,24}") {
            if let Some((value, length)) = begin(text.as_bytes()) {
                prop_assert_eq!(value.to_bits(), text[..length].parse::<f64>().unwrap().to_bits());
            }
        }

        #[test]
        fn what_is_written_reads_back_as_the_same_float(number in -1.0..1.0_f64, small in 0..5_i32) {
            let number = number * 10_f64.powi(-small);
            if let Some(text) = written(number) {
                let text = text.strip_suffix(',').unwrap();
                prop_assert!(!text.ends_with('0'));
                prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), (number as f32).to_bits(), "{}", text);
                prop_assert_eq!((text.parse::<f64>().unwrap() as f32).to_bits(), (number as f32).to_bits());
            } else {
                prop_assert!(!(0.000_1..0.999_999_9).contains(&number.abs()));
            }
        }

        #[test]
        fn floats_are_written_so_that_they_stay(bits in any::<u32>()) {
            let number = f32::from_bits(bits);
            if let Some(text) = written(f64::from(number)) {
                prop_assert_eq!(text.trim_end_matches(',').parse::<f32>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn eight_digits_come_and_go(number in 0..100_000_000_u64) {
            let bytes = spread(number);
            let text = String::from_utf8(bytes.to_le_bytes().to_vec()).unwrap();
            prop_assert_eq!(text, format!("{number:08}"));
            prop_assert_eq!((digits(bytes), joined(bytes)), (8, number));
        }
    }
}
