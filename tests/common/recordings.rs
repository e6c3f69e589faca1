//! The recorded exchanges with Google: a few of them are here, and a developer may have them all.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    files
}

/// Those that are here.
pub(crate) fn copies() -> Vec<PathBuf> {
    files(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings"))
}

/// All of them, in the folder that the environment names. Tests that read them are ignored unless asked for, so
/// that nobody takes them for passed who does not have it.
pub(crate) fn collection() -> Vec<PathBuf> {
    let found = std::env::vars_os().find(|(name, _)| name == "GEMWAY_RECORDINGS");
    let (_, folder) = found.expect("GEMWAY_RECORDINGS names the folder of the recordings");
    files(Path::new(&folder))
}
