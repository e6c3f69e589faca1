//! What tokens stand for, by number.
//!
//! A table is part of the program in the form that `build.rs` gives it, a fifth of the usual one: nearly every token is
//! two earlier ones behind each other, and two numbers are less than its text. It is unpacked when it is first asked for.

use std::sync::LazyLock;

/// What the tokens of an encoding stand for, behind each other.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Where each token ends, by its number. Those that do not exist are empty.
    ends: Vec<usize>,
}

pub(super) static CL100K: LazyLock<Table> =
    LazyLock::new(|| Table::unpacked(include_bytes!(concat!(env!("OUT_DIR"), "/cl100k_base.tokens"))));
pub(super) static O200K: LazyLock<Table> =
    LazyLock::new(|| Table::unpacked(include_bytes!(concat!(env!("OUT_DIR"), "/o200k_base.tokens"))));
/// With the tokens of `p50k_edit`, which are the last; `r50k_base` and `gpt2` are its first part.
pub(super) static P50K: LazyLock<Table> =
    LazyLock::new(|| Table::unpacked(include_bytes!(concat!(env!("OUT_DIR"), "/p50k_edit.tokens"))));

impl Table {
    /// What a token stands for.
    pub(super) fn token(&self, number: usize) -> Option<&[u8]> {
        self.bytes.get(self.place(number)?).filter(|bytes| !bytes.is_empty())
    }

    fn place(&self, number: usize) -> Option<std::ops::Range<usize>> {
        let before = number.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        Some(before..*self.ends.get(number)?)
    }

    fn unpacked(mut packed: &[u8]) -> Self {
        let mut table = Self { bytes: Vec::with_capacity(4 * packed.len()), ends: Vec::new() };
        while !packed.is_empty() {
            match number(&mut packed) {
                0 => {
                    let length = number(&mut packed);
                    let (bytes, more) = packed.split_at_checked(length).unwrap_or((packed, &[]));
                    table.bytes.extend_from_slice(bytes);
                    packed = more;
                }
                left => {
                    for half in [left - 1, number(&mut packed)] {
                        if let Some(place) = table.place(half) {
                            table.bytes.extend_from_within(place);
                        }
                    }
                }
            }
            table.ends.push(table.bytes.len());
        }
        table
    }
}

/// Seven bits in each byte, the lowest first; the last byte has no eighth.
fn number(packed: &mut &[u8]) -> usize {
    let (mut number, mut shift) = (0, 0_u32);
    while let Some((byte, more)) = packed.split_first() {
        *packed = more;
        number |= usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if *byte < 0x80 {
            break;
        }
    }
    number
}
