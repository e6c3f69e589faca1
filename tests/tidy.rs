//! The house rules that a compiler does not check: ranks, module docs, and that the README's examples are real.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The ranks, lowest first. A module may name modules of a lower rank and its own folder.
const RANKS: &[&[&str]] = &[
    &[
        "error", "usage", "wire", "sse", "body", "cork", "ids", "clock", "hex", "decimal", "hash", "wake",
        "placed",
    ],
    &["openai", "gemini", "catalog"],
    &["translate", "memory"],
    &["telemetry", "store", "simulator"],
    &["limits"],
    &["keys", "meter"],
    &["upstream", "fetch"],
    &["api"],
    &["server", "admin"],
    &["config", "cli", "app", "main", "lib"],
];

/// The steps sideways, each to a module that does not look back: `wire` writes into the `Rope` of `body`, `sse`
/// fails with an `Error`, `memory` is a `Signatures` of `translate`.
const SIDEWAYS: &[(&str, &str)] = &[("wire", "body"), ("sse", "error"), ("memory", "translate")];

/// Crates that one place stands for, so that each can be replaced by changing that place.
const KEPT: &[(&str, &[&str])] = &[
    ("prometheus", &["telemetry"]),
    ("gcp_auth", &["upstream"]),
    ("rustls", &["upstream", "fetch", "server", "store"]),
    ("clap", &["cli", "config", "main"]),
    ("toml", &["catalog", "config", "meter"]),
    ("redis", &["limits"]),
    ("rusqlite", &["store", "meter", "keys"]),
    ("tokio_postgres", &["store", "meter", "keys"]),
    ("tiktoken_rs", &["translate"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file: its path under src, its top module, and its text.
fn files() -> Vec<(String, String, String)> {
    let src = root().join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found.sort();
    assert!(found.len() > 20, "the sources were not found");
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
            let module = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            (name, module, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.contains(&module))
}

/// The text without comments, and without what only tests see: a `mod tests` at the foot of a file.
fn code(text: &str) -> String {
    let seen = text.split("#[cfg(test)]").next().unwrap_or_default();
    seen.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// The identifier at the start of `text`.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The top modules that `code` names with `crate::`, in paths and in `use crate::{…}`.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let word_before = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if word_before {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(identifier(rest).to_owned());
            continue;
        };
        let mut depth = 0_usize;
        let mut start = true;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if c.is_whitespace() => {}
                _ if start && depth == 0 => {
                    names.push(identifier(&group[index..]).to_owned());
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn every_module_has_a_rank() {
    for (name, module, _) in files() {
        assert!(
            rank(&module).is_some(),
            "src/{name}: give `{module}` a rank in tests/tidy.rs and ARCHITECTURE.md"
        );
    }
}

#[test]
fn modules_name_only_lower_ranks() {
    let mut wrong = Vec::new();
    for (name, module, text) in files() {
        if is_test(&name) {
            continue;
        }
        let own = rank(&module).unwrap();
        for other in named(&code(&text)) {
            let Some(theirs) = rank(&other) else { continue };
            let top = own == RANKS.len() - 1;
            let sideways = SIDEWAYS.contains(&(module.as_str(), other.as_str()));
            if other != module && !top && !sideways && theirs >= own {
                wrong.push(format!("src/{name} (rank {own}) names {other} (rank {theirs})"));
            }
        }
    }
    assert!(wrong.is_empty(), "a module may name only lower ranks:\n{}", wrong.join("\n"));
}

#[test]
fn the_rank_rule_sees_every_form_of_use() {
    let text = "use crate::api::x; use crate::{error::{Error, Kind}, wire::Open,\n keys}; fn f(_: &crate::meter::M) {}";
    assert_eq!(named(text), ["api", "error", "wire", "keys", "meter"]);
    assert!(named("other_crate::api").is_empty());
}

#[test]
fn translation_is_pure() {
    for (name, module, text) in files() {
        if module != "translate" || is_test(&name) {
            continue;
        }
        let code = code(&text);
        for word in
            ["async ", "tokio::", "tracing::", "SystemTime", "Instant", "std::fs", "std::env", "getrandom"]
        {
            assert!(!code.contains(word), "src/{name} is pure and must not use `{word}`");
        }
    }
}

#[test]
fn some_crates_stay_in_one_place() {
    for (name, module, text) in files() {
        let code = code(&text);
        for (krate, places) in KEPT {
            let used = code.match_indices(&format!("{krate}::")).any(|(at, _)| {
                !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(
                !used || is_test(&name) || places.contains(&module.as_str()),
                "src/{name}: `{krate}` belongs to {places:?} only"
            );
        }
    }
}

/// The names in a table of Cargo.toml.
fn dependencies(table: &str) -> Vec<String> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    manifest.get(table).and_then(toml::Value::as_table).unwrap().keys().cloned().collect()
}

#[test]
fn every_dependency_is_used_and_has_its_reason() {
    let reasons = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let ours: String = files().into_iter().map(|(_, _, text)| text).collect();
    let mut tested = Vec::new();
    for folder in ["src", "tests", "benches"] {
        sources(&root().join(folder), &mut tested);
    }
    let all: String = tested.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for (table, text) in [("dependencies", &ours), ("dev-dependencies", &all)] {
        for name in dependencies(table) {
            assert!(reasons.contains(&format!("`{name}`")), "ARCHITECTURE.md gives no reason for {name}");
            let path = name.replace('-', "_");
            let used = text.match_indices(&format!("{path}::")).any(|(at, _)| {
                !text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(used, "nothing uses {name}");
        }
    }
}

#[test]
fn the_tree_is_the_one_that_is_written_down() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (index, modules) in RANKS.iter().enumerate() {
        let number = index.to_string();
        let named = if index == RANKS.len() - 1 { "top" } else { &number };
        let row = architecture.lines().find(|line| line.starts_with(&format!("| {named} |")));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no rank {named}"));
        for module in modules.iter().filter(|module| **module != "lib") {
            assert!(row.contains(&format!("`{module}`")), "ARCHITECTURE.md: `{module}` has rank {named}");
        }
    }
    for (name, module, _) in files() {
        if name.contains('/') {
            assert!(
                architecture.contains(&format!("`src/{module}`")),
                "ARCHITECTURE.md does not tell of src/{module}"
            );
        }
    }
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    for (name, _, text) in files() {
        // A file of tests is said by the file that it tests.
        assert!(is_test(&name) || text.starts_with("//!"), "src/{name} does not begin with //!");
    }
}

#[test]
fn nothing_is_left_undone() {
    // Written in two halves so that this file does not find itself.
    let marks = [concat!("to", "do!("), concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for (name, _, text) in files() {
        for mark in marks {
            assert!(!text.contains(mark), "src/{name} contains {mark}");
        }
    }
}

/// The fenced blocks of a document that are marked with `language`.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line.trim() == opening {
            found.push(lines.by_ref().take_while(|line| line.trim() != "```").collect::<Vec<_>>().join("\n"));
        }
    }
    found
}

#[test]
fn the_configuration_examples_are_toml() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let examples = blocks(&readme, "toml");
    assert!(!examples.is_empty(), "README.md shows no configuration");
    for example in examples {
        if let Err(error) = toml::from_str::<toml::Table>(&example) {
            panic!("README.md: {error}\n{example}");
        }
    }
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let path = word.trim_end_matches('/');
            let looks_like_ours = ["src/", "tests/", "benches/", "scripts/", "deploy/", ".ci/", ".config/"]
                .iter()
                .any(|folder| path.starts_with(folder))
                && !path.contains(['*', ' ', '…', '<']);
            if looks_like_ours {
                assert!(root().join(path).exists(), "{document} names {path}, which does not exist");
            }
        }
    }
}

#[test]
fn ci_runs_exactly_the_test_command() {
    let script = fs::read_to_string(root().join(".ci/run")).unwrap();
    let last = script.lines().rfind(|line| !line.trim().is_empty()).unwrap();
    assert_eq!(last, "exec bash scripts/test");
    assert!(fs::read_to_string(root().join("README.md")).unwrap().contains("scripts/test"));
}
