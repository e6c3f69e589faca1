//! What a binary tells of its making: the compiler, and the revision where the builder names one (`REVISION`).

use std::io::Write;
use std::process::Command;

fn main() -> std::io::Result<()> {
    let told = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    let version = told("RUSTC").and_then(|rustc| Command::new(rustc).arg("--version").output().ok());
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    // "rustc 1.95.0 (…)"
    let rustc = version.as_deref().and_then(|version| version.split(' ').nth(1)).unwrap_or("unknown");
    let revision = told("REVISION").and_then(|revision| revision.into_string().ok());
    let mut cargo = std::io::stdout();
    writeln!(cargo, "cargo:rerun-if-changed=build.rs")?;
    writeln!(cargo, "cargo:rerun-if-env-changed=REVISION")?;
    writeln!(cargo, "cargo:rustc-env=GEMWAY_RUSTC={}", rustc.trim())?;
    writeln!(cargo, "cargo:rustc-env=GEMWAY_REVISION={}", revision.as_deref().unwrap_or("unknown"))
}
