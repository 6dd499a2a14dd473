//! `cargo xtask tidy`: the house rules that a machine can check, over every tracked file.
//!
//! One function per rule, from a file's name and text to the complaints about it; a test of this crate
//! runs them over the repository, so a broken rule fails `cargo xtask test` as well.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, supply, units};

/// Lines that a Rust file may have without its inline tests.
const MAX_LINES: usize = 600;

/// The rooms with the key to `unsafe`; the last, because what the runtime's tests run makes calls that no library offers.
const UNSAFE_ROOMS: [&str; 3] = ["dyno-runtime/src/sys/", "dyno-runtime/init/", "dyno-runtime/tests/"];

/// File names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

/// Macros that mark unfinished work.
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// What no tracked text holds, in lower case: makers of text, places of one machine, words that praise. In two halves each,
/// so that this list does not name itself.
const FORBIDDEN: [&str; 14] = [
    concat!("clau", "de"),
    concat!("anthro", "pic"),
    concat!("open", "ai"),
    concat!("chat", "gpt"),
    concat!("copi", "lot"),
    concat!("language ", "model"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/.cargo"),
    concat!("blazing", "ly"),
    concat!("blazing", " fast"),
    concat!("seam", "less"),
    concat!("cutting", "-edge"),
    concat!("effort", "less"),
];

/// The page that says what the runtime can do; its tests are named from the crate on: `tests/walls.rs::mount_table`.
const CLAIMS: &str = "docs/features.md";

/// The page that says what stops which attack; its tests are named from either crate or from the repository on, and `battery::NAME` is a
/// row of [`BATTERY`].
const THREATS: &str = "docs/threat-model.md";

/// From where the tests of a page are named.
const CLAIMED: [(&str, &[&str]); 2] = [(CLAIMS, &["dyno-runtime"]), (THREATS, &["dyno-runtime", "dyno-manager", ""])];

/// The battery's program, and the directory of its rows.
const BATTERY: [&str; 2] = ["dyno-runtime/tests/battery.rs", "dyno-runtime/tests/battery/rows"];

/// Checks the repository; the complaints are the error.
pub fn run() -> Result<()> {
    let files = tracked()?;
    let mut complaints = Vec::new();
    for name in &files {
        let path = cargo::root().join(name);
        // A link is checked as the file that it leads to; what was removed but not yet committed is not there.
        if path.is_symlink() || !path.exists() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        // Images and archives are no text.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            complaints.extend(complaints_about(name, text));
        }
    }
    complaints.extend(unformatted()?);
    complaints.extend(supply::complaints()?);
    complaints.extend(units::complaints()?);
    ensure!(complaints.is_empty(), "{} broken rules\n{}", complaints.len(), complaints.join("\n"));
    println!("tidy: {} files keep the house rules", files.len());
    Ok(())
}

/// What rustfmt would write otherwise (`rustfmt.toml`), for both workspaces. Says so where there is no rustfmt.
fn unformatted() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for workspace in ["", "fuzz"] {
        let mut command = Command::new("cargo");
        command.args(["fmt", "--", "--check", "-l"]).current_dir(cargo::root().join(workspace));
        let output = command.output().context("run cargo fmt")?;
        let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if failed.contains("not installed") || failed.contains("no such command") {
            println!("skipped: the format of the code: there is no rustfmt here");
            break;
        }
        ensure!(output.status.success() || !said.is_empty(), "cargo fmt in {workspace:?}: {failed}");
        found.extend(said.lines().map(|file| format!("{file}: cargo fmt writes it otherwise")));
    }
    Ok(found)
}

/// Files that git knows, and new ones that it does not ignore.
fn tracked() -> Result<Vec<String>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(cargo::root());
    let output = command.output().context("run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let names: Vec<String> = String::from_utf8(output.stdout)?.split_terminator('\0').map(str::to_owned).collect();
    ensure!(!names.is_empty(), "git names no file; is this a clone of the repository?");
    Ok(names)
}

fn complaints_about(name: &str, text: &str) -> Vec<String> {
    let mut found = name_says_nothing(name);
    found.extend(forbidden_words(text));
    if name.ends_with(".rs") {
        found.extend(too_long(text));
        found.extend(no_intent(text));
        found.extend(code_rules(name, text));
    }
    if name.ends_with(".md") {
        found.extend(dead_links(name, text));
    }
    if let Some((_, bases)) = CLAIMED.iter().find(|(page, _)| *page == name) {
        found.extend(claims_without_proof(text, bases));
    }
    if name == THREATS {
        found.extend(attacks_without_proof(text));
    }
    found.into_iter().map(|complaint| format!("{name}{complaint}")).collect()
}

fn name_says_nothing(name: &str) -> Vec<String> {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let bad = EMPTY_NAMES.contains(&stem.as_str());
    bad.then(|| format!(": {stem} says nothing about what is inside")).into_iter().collect()
}

fn forbidden_words(text: &str) -> Vec<String> {
    let numbered = text.lines().enumerate();
    let in_line = |(i, line): (usize, &str)| {
        let line = line.to_lowercase();
        let word = FORBIDDEN.into_iter().find(|word| line.contains(word))?;
        Some(format!(":{}: {word:?} does not belong here", i + 1))
    };
    numbered.filter_map(in_line).collect()
}

/// The inline tests are the last item of a file.
fn too_long(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].starts_with("mod ") && two[1].ends_with('{'));
    let length = tests.unwrap_or(lines.len());
    (length > MAX_LINES).then(|| format!(": {length} lines without tests; at most {MAX_LINES}")).into_iter().collect()
}

/// Attributes of the crate may stand before the paragraph, nothing else.
fn no_intent(text: &str) -> Vec<String> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!["));
    let opens = first.is_some_and(|line| line.starts_with("//!"));
    (!opens).then(|| ": begins without a `//!` paragraph of intent".to_owned()).into_iter().collect()
}

fn code_rules(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let may_be_unsafe = UNSAFE_ROOMS.iter().any(|room| name.starts_with(room));
    for (i, line) in text.lines().enumerate() {
        let code = without_strings_and_comments(line);
        if !may_be_unsafe && has_word(&code, "unsafe") {
            found.push(format!(":{}: unsafe code outside {}", i + 1, UNSAFE_ROOMS.join(" and ")));
        }
        if let Some(mark) = UNFINISHED.iter().find(|mark| has_word(&code, mark)) {
            found.push(format!(":{}: {mark} marks unfinished work", i + 1));
        }
    }
    found
}

/// One line of Rust, as far as one line can tell: what stands in quotes and after `//` is taken out.
fn without_strings_and_comments(line: &str) -> String {
    let (mut code, mut quoted) = (String::new(), false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (quoted, c) {
            // `'"'` is a quote that opens nothing.
            (false, '\'') if rest.peek() == Some(&'"') => drop((rest.next(), rest.next())),
            (_, '"') => quoted = !quoted,
            (true, '\\') => drop(rest.next()),
            (true, _) => {}
            (false, '/') if rest.peek() == Some(&'/') => break,
            (false, c) => code.push(c),
        }
    }
    code
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| !part(code[..at].chars().next_back()) && !part(code[at + word.len()..].chars().next()))
}

/// Links to files of this repository lead somewhere.
fn dead_links(name: &str, text: &str) -> Vec<String> {
    let folder = cargo::root().join(Path::new(name).parent().unwrap_or(Path::new("")));
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                found.push(format!(":{}: the link to {file} leads nowhere", i + 1));
            }
        }
    }
    found
}

/// Every test that is named exists, and every row of a table whose second cell, ours, begins with "yes" names one.
fn claims_without_proof(text: &str, bases: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let ours = line.strip_prefix('|').and_then(|row| row.split('|').nth(1)).unwrap_or_default();
        if ours.trim_start().starts_with("yes") && named_tests(ours).next().is_none() {
            found.push(format!(":{}: a yes that names no test", i + 1));
        }
        for (file, test) in named_tests(line) {
            let mut codes = bases.iter().filter_map(|base| fs::read_to_string(cargo::root().join(base).join(file)).ok()).peekable();
            if codes.peek().is_none() {
                found.push(format!(":{}: {file}: No such file below {bases:?}", i + 1));
            } else if !codes.any(|code| holds_test(&code, test)) {
                found.push(format!(":{}: {file} holds no test {test}", i + 1));
            }
        }
    }
    found
}

/// Every row of the battery that is named is there, and every class with a CVE names a test or says `none:` and why.
fn attacks_without_proof(text: &str) -> Vec<String> {
    let (mut found, rows) = (Vec::new(), battery());
    for (i, line) in text.lines().enumerate() {
        let quoted = || line.split('`').skip(1).step_by(2);
        for row in quoted().filter_map(|quoted| quoted.strip_prefix("battery::")).filter(|row| *row != "NAME") {
            if !rows.contains(&format!("\"{row}\"")) {
                found.push(format!(":{}: the battery has no row {row}", i + 1));
            }
        }
        let proven = named_tests(line).next().is_some() || quoted().any(|quoted| quoted.starts_with("battery::")) || line.contains("| none: ");
        let class = line.strip_prefix('|').and_then(|row| row.split('|').next()).unwrap_or_default();
        if class.contains("(CVE-") && !proven {
            found.push(format!(":{}: a class of attack without a test", i + 1));
        }
    }
    found
}

/// The code of the battery's rows.
fn battery() -> String {
    let root = cargo::root();
    let rows = fs::read_dir(root.join(BATTERY[1])).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    rows.chain([root.join(BATTERY[0])]).filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// File and test of each `file.rs::test` between backticks.
fn named_tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let names = line.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"));
    names.filter(|(file, _)| file.ends_with(".rs"))
}

/// A case of a suite's table, `("test", …)`, or a function below `#[test]` and its like.
fn holds_test(code: &str, test: &str) -> bool {
    let lines = || code.lines().map(str::trim_start);
    let case = format!("(\"{test}\",");
    let (function, future) = (format!("fn {test}("), format!("async fn {test}("));
    let marked = |at: usize| {
        lines()
            .take(at)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .take_while(|line| line.starts_with("#["))
            .any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
    };
    lines().enumerate().any(|(at, line)| line.starts_with(&case) || (line.starts_with(&function) || line.starts_with(&future)) && marked(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_the_house_rules() {
        run().unwrap();
    }

    #[test]
    fn every_rule_bites() {
        let threat = |text: &str| complaints_about(THREATS, text).join("\n");
        assert!(threat("| a (CVE-1) | b | `walls` |\n").contains("without a test"));
        assert!(threat("`battery::no_such_row`").contains("no row no_such_row"));
        assert!(threat("`tests/walls.rs::no_such_test`").contains("holds no test no_such_test"));
        let check = |name: &str, text: &str, want: &str| {
            let found = complaints_about(name, text).join("\n");
            assert!(found.contains(want), "{name}: {found:?} does not say {want:?}");
        };
        check("src/utils.rs", "//! x\n", "says nothing");
        check("src/a.rs", "fn main() {}\n", "paragraph of intent");
        check("src/a.rs", "#![no_std]\n// not a paragraph\n", "paragraph of intent");
        check("src/a.rs", &format!("//! x\n{}", "\n".repeat(MAX_LINES)), "601 lines");
        check("src/a.rs", "//! x\nlet x = unsafe { f() };\n", ":2: unsafe code outside");
        check("src/a.rs", "//! x\nfn f() { \"a\\\"b\"; '\"'; todo!(\"x\") }\n", "todo! marks");
        check("src/a.rs", "//! x\n    dbg!(1);\n", ":2: dbg!");
        check("notes.txt", &format!("a\nsee {}x\n", concat!("/wo", "rk/")), ":2:");
        check("README.md", "[a](docs/never-written.md#there)\n", "leads nowhere");
        check(CLAIMS, "# x\n\n| a root | yes, always | no |\n", ":3: a yes that names no test");
        check(CLAIMS, "| a root | yes `tests/never_written.rs::x` |\n", ":1: tests/never_written.rs: No such file");
        check(CLAIMS, "see `tests/walls.rs::never_written`\n", ":1: tests/walls.rs holds no test never_written");
        // A function of the suite that is no case of it.
        check(CLAIMS, "| a | yes `tests/walls.rs::main` |\n", "holds no test main");
    }

    #[test]
    fn tests_are_found_as_cases_and_as_functions() {
        let check = |code: &str, holds: bool| assert_eq!(holds_test(code, "a_test"), holds, "{code}");
        check("const CASES: &[Case] = &[\n    (\"a_test\", a_test),\n];\n", true);
        check("    (\"a_test\", cases::a_test, &[Kind::Single]),\n", true);
        check("    (\"not_a_test\", a_test),\n", false);
        check("    // (\"a_test\", a_test),\n", false);
        check("    #[test]\n    fn a_test() {\n", true);
        check("    #[test]\n    #[cfg(unix)]\n    fn a_test(ops in any()) {\n", true);
        check("    #[test]\n    fn another() {}\n\n    fn a_test() {}\n", false);
        check("    #[test]\n    fn a_test_of_more() {}\n", false);
        assert_eq!(
            named_tests("`a` | `src/x.rs::one`, `tests/y.rs::two` and `std::fs`").collect::<Vec<_>>(),
            [("src/x.rs", "one"), ("tests/y.rs", "two")]
        );
    }

    #[test]
    fn what_is_allowed_passes() {
        let check = |name: &str, text: &str| assert_eq!(complaints_about(name, text), Vec::<String>::new(), "{name}: {text}");
        check("dyno-runtime/src/sys/a.rs", "//! x\nunsafe { f() }\n");
        check("src/a.rs", "#![forbid(unsafe_code)]\n//! x\n// unsafe todo!()\nlet x = \"unsafe todo!()\";\n");
        check("src/a.rs", &format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(MAX_LINES)));
        check(CLAIMS, "| feature | ours |\n|---|---|\n| a root | yes `tests/walls.rs::mount_table`, `src/exit.rs::causes` |\n| b | no |\n");
        check(THREATS, "| a (CVE-1) | b | `tests/walls.rs::mount_table`, `battery::unshare_user` |\n| c (CVE-2) | d | none: why |\n| e | f | g |\n");
        check("README.md", "| a | yes |\n");
        check("README.md", "[a](Cargo.toml) [b](https://example.com/x) [c](#part)\n");
    }
}
