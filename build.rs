//! What a binary tells of its making: the compiler, and the revision where the builder names one (`REVISION`). And
//! the tables of tokens, packed.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tiktoken_rs::CoreBPE;

fn main() -> std::io::Result<()> {
    let told = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    let version = told("RUSTC").and_then(|rustc| Command::new(rustc).arg("--version").output().ok());
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    // "rustc 1.95.0 (…)"
    let rustc = version.as_deref().and_then(|version| version.split(' ').nth(1)).unwrap_or("unknown");
    let revision = told("REVISION").and_then(|revision| revision.into_string().ok());
    let folder = std::env::var_os("OUT_DIR").unwrap_or_default();
    for (name, table) in [
        ("cl100k_base", tiktoken_rs::cl100k_base()),
        ("o200k_base", tiktoken_rs::o200k_base()),
        ("p50k_edit", tiktoken_rs::p50k_edit()),
    ] {
        let table = table.map_err(std::io::Error::other)?;
        std::fs::write(Path::new(&folder).join(format!("{name}.tokens")), packed(&table))?;
    }
    let mut cargo = std::io::stdout();
    writeln!(cargo, "cargo:rerun-if-changed=build.rs")?;
    writeln!(cargo, "cargo:rerun-if-env-changed=REVISION")?;
    writeln!(cargo, "cargo:rustc-env=GEMWAY_RUSTC={}", rustc.trim())?;
    writeln!(cargo, "cargo:rustc-env=GEMWAY_REVISION={}", revision.as_deref().unwrap_or("unknown"))
}

/// More numbers than any encoding has.
const NUMBERS: u32 = 210_000;

/// What the tokens stand for, in the order of their numbers. Each is two earlier tokens: the number of the first and one,
/// the number of the second. Or a nought, a length and the bytes themselves; none where there is no such token.
fn packed(table: &CoreBPE) -> Vec<u8> {
    let mut tokens: Vec<_> = (0..NUMBERS).map(|at| table.decode_bytes(&[at]).unwrap_or_default()).collect();
    tokens.truncate(tokens.iter().rposition(|token| !token.is_empty()).map_or(0, |last| last + 1));
    let mut earlier: HashMap<&[u8], usize> = HashMap::new();
    let mut out = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let halves = (1..token.len()).filter_map(|cut| {
            let (left, right) = token.split_at(cut);
            Some((*earlier.get(left)?, *earlier.get(right)?))
        });
        let shortest = halves.min_by_key(|(left, right)| length(left + 1) + length(*right));
        if let Some((left, right)) = shortest {
            number(left + 1, &mut out);
            number(right, &mut out);
        } else {
            number(0, &mut out);
            number(token.len(), &mut out);
            out.extend_from_slice(token);
        }
        earlier.insert(token, at);
    }
    out
}

/// Bytes of a number, as it is written below.
fn length(number: usize) -> u32 {
    (usize::BITS - number.leading_zeros()).max(1).div_ceil(7)
}

/// Seven bits in each byte, the lowest first; the last byte has no eighth.
fn number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}
