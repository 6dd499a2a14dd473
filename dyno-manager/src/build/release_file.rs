//! The one thing that is read of a buildpack's release: its default process types.
//!
//! The file is YAML by contract and a dozen lines by nature. Only the shape that buildpacks write
//! is accepted: `default_process_types:` at the start of a line, then indented `type: command`
//! lines. Anything cleverer is an error that says so, rather than a guess.

use std::collections::BTreeMap;

use crate::model::ProcessType;

/// Process types by name; empty when the file has none.
///
/// # Errors
/// The first line that is not understood, with its number.
pub(super) fn default_process_types(text: &[u8]) -> Result<BTreeMap<ProcessType, String>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the buildpack's release is not UTF-8 text".to_owned())?;
    let mut types = BTreeMap::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let fail = |what: &str| format!("line {} of the buildpack's release {what}", index + 1);
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            let value = content.strip_prefix("default_process_types:").map(|value| uncommented(value).trim());
            inside = match value {
                None => false,
                Some("") => true,
                Some("{}" | "~" | "null") => false,
                Some(_) => return Err(fail("must list process types on lines of their own")),
            };
            continue;
        }
        if !inside {
            continue;
        }
        let (name, command) = entry(content).ok_or_else(|| fail("is not `type: command`"))?;
        let name: ProcessType = name.parse().map_err(|error| fail(&format!("names a bad type: {error}")))?;
        if command.is_empty() || command.contains('\0') {
            return Err(fail("has no usable command"));
        }
        if types.insert(name, command).is_some() {
            return Err(fail("declares a process type again"));
        }
    }
    Ok(types)
}

/// `key: value`, either quoted or plain.
fn entry(content: &str) -> Option<(String, String)> {
    let (name, rest) = match content.chars().next()? {
        quote @ ('"' | '\'') => {
            let (name, rest) = quoted(content, quote)?;
            (name, rest.strip_prefix(':')?)
        }
        _ => content.split_once(':').map(|(name, rest)| (name.to_owned(), rest))?,
    };
    // YAML needs a space there: `a:b` is a plain word.
    let value = rest.strip_prefix([' ', '\t']).or(rest.is_empty().then_some(""))?.trim();
    let command = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let (command, rest) = quoted(value, quote)?;
            uncommented(rest).trim().is_empty().then_some(command)?
        }
        // Block scalars, anchors, aliases, tags, flow collections: nothing that a command begins with.
        Some('|' | '>' | '&' | '*' | '!' | '{' | '[' | '%' | '@' | '`') => return None,
        _ => uncommented(value).trim().to_owned(),
    };
    Some((name, command))
}

/// The text of a quoted scalar that ends on its line, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => match chars.next()?.1 {
                same @ ('"' | '\\' | '/' | ' ') => found.push(same),
                't' => found.push('\t'),
                _ => return None,
            },
            _ if c != quote => found.push(c),
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => found.extend(chars.next().map(|(_, c)| c)),
            _ => return Some((found, &text[at + 1..])),
        }
    }
    None
}

/// Without a comment: a `#` at the start or after white space.
fn uncommented(text: &str) -> &str {
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &text[..at];
        }
        before = c;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<&[(&str, &str)], &str>) {
        match (default_process_types(text.as_bytes()), want) {
            (Ok(got), Ok(want)) => {
                let got: Vec<_> = got.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect();
                assert_eq!(got, want, "{text:?}");
            }
            (Err(got), Err(part)) => assert!(got.contains(part), "{text:?}: {got}"),
            (got, want) => panic!("{text:?}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn shapes_that_buildpacks_write() {
        check("", Ok(&[]));
        check("--- {}\n", Ok(&[]));
        check("---\naddons: []\ndefault_process_types: {}\n", Ok(&[]));
        check("---\ndefault_process_types:\n  web: npm start\n  worker: a: b # c\n", Ok(&[("web", "npm start"), ("worker", "a: b")]));
        check("default_process_types:\n  web: \"sh -c \\\"x # y\\\"\" # z\n", Ok(&[("web", "sh -c \"x # y\"")]));
        check("default_process_types:\n  'web': 'it''s'\r\n", Ok(&[("web", "it's")]));
        check("default_process_types: # ours\n\n  # none\n  web: a#b\nconfig_vars:\n  x: y\n", Ok(&[("web", "a#b")]));
    }

    #[test]
    fn shapes_that_are_not_guessed_at() {
        check("default_process_types: {web: a}\n", Err("line 1"));
        check("default_process_types:\n  web: |\n    a\n", Err("line 2"));
        check("default_process_types:\n  - web\n", Err("line 2"));
        check("default_process_types:\n  web:a\n", Err("line 2"));
        check("default_process_types:\n  web:\n", Err("no usable command"));
        check("default_process_types:\n  ../x: a\n", Err("bad type"));
        check("default_process_types:\n  web: a\n  web: b\n", Err("again"));
        check("default_process_types:\n  web: \"a\n", Err("line 2"));
        check("default_process_types:\n  web: \"a\" b\n", Err("line 2"));
        check("default_process_types:\n  web: \"a\\n\"\n", Err("line 2"));
        assert!(default_process_types(b"\xff").is_err());
    }
}
