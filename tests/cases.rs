//! The lists that promise completeness: every numbered edge case has its folders, every field its line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn read(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_case_is_listed_and_its_folders_exist() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = read("tests/golden/CASES.md");
    let mut listed = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = line.trim_matches('|').splitn(3, '|').map(str::trim);
        let Ok(number) = cells.next().unwrap().parse::<usize>() else { continue };
        let (name, folders) = (cells.next().unwrap(), cells.next().unwrap());
        assert!(!name.is_empty() && listed.insert(number), "case {number}");
        if let Some(test) = folders.strip_prefix("no folder, a test over the simulator: ") {
            let (names, files): (Vec<_>, Vec<_>) = quoted(test).partition(|text| !text.contains('/'));
            assert!(!names.is_empty() && files.len() == 1, "case {number} needs its tests and their file");
            let source = read(files.first().unwrap());
            for name in names {
                assert!(source.contains(&format!("fn {name}()")), "case {number}: {name}");
            }
            continue;
        }
        let mut folders = quoted(folders).peekable();
        assert!(folders.peek().is_some(), "case {number} has no folder and no reason");
        for folder in folders {
            assert!(golden.join(folder).is_dir(), "case {number}: {folder}");
        }
    }
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), (1..=94).collect::<Vec<_>>());
}

#[test]
fn every_numbered_request_is_in_the_list() {
    let text = read("tests/golden/CASES.md");
    let known: BTreeSet<&str> = quoted(&text).collect();
    for entry in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/request")).unwrap()
    {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let number: usize = name.split('-').next().unwrap().parse().unwrap();
        assert!(
            number > 76 || known.contains(format!("request/{name}").as_str()),
            "{name} is not in CASES.md"
        );
    }
}

/// The fields of one of the request's structs, as the source names them.
fn fields(source: &str, name: &str) -> Vec<String> {
    let begin = source.find(&format!("pub struct {name}<'a> {{")).unwrap();
    let body = source.get(begin..).unwrap();
    let body = body.get(..body.find("\n}").unwrap()).unwrap();
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    let fields: Vec<String> =
        fields.map(|(name, _)| name.to_owned()).filter(|name| name != "unknown").collect();
    assert!(fields.len() >= 3, "{name}: {fields:?}");
    fields
}

#[test]
fn every_field_is_in_the_compatibility_table() {
    let (source, readme) = (read("src/openai/chat.rs"), read("README.md"));
    let begin = readme.find("## Compatibility: Chat Completions").unwrap();
    let section = readme.get(begin..).unwrap();
    let section = section.get(..section.find("\n## ").unwrap()).unwrap();
    let named: BTreeSet<&str> =
        section.lines().filter(|line| line.starts_with('|')).flat_map(quoted).collect();
    for field in fields(&source, "Request").iter().chain(&fields(&source, "Google")) {
        assert!(named.contains(field.as_str()), "README.md: the compatibility table has no `{field}`");
    }
}
