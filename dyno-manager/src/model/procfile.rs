//! The Procfile: one `type: command` per line.

use std::collections::BTreeMap;

use super::ProcessType;

/// A Procfile that cannot be used; `line` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Procfile line {line}: {what}")]
pub struct ProcfileError {
    /// Line number, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what is expected.
    pub what: String,
}

/// Process types and their commands, by type.
///
/// Grammar (Heroku's, with Dokku's strictness): blank lines and lines that start with `#` are
/// skipped; every other line is `<type>:<whitespace?><command>`, the type 1 to 63 of
/// `[A-Za-z0-9_-]`, the command not empty. A type named twice is an error. CRLF ends and a
/// leading byte order mark are accepted.
///
/// # Errors
/// The first offending line, by number.
pub fn parse(text: &[u8]) -> Result<BTreeMap<ProcessType, String>, ProcfileError> {
    if text.len() > 1 << 20 {
        return Err(ProcfileError { line: 0, what: format!("the file has {} bytes; at most 1 MiB is read", text.len()) });
    }
    let text = std::str::from_utf8(text).map_err(|e| {
        let line = text[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        ProcfileError { line, what: "is not UTF-8 text".into() }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut types = BTreeMap::new();
    for (index, raw) in text.lines().enumerate() {
        let fail = |what: String| ProcfileError { line: index + 1, what };
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains('\0') {
            return Err(fail("holds a NUL byte".into()));
        }
        let Some((name, command)) = line.split_once(':') else {
            let shown: String = line.chars().take(60).collect();
            return Err(fail(format!("{shown:?} has no colon; write <type>: <command>")));
        };
        let name: ProcessType = name.parse().map_err(|e: super::Invalid| fail(e.to_string()))?;
        let command = command.trim();
        if command.is_empty() {
            return Err(fail(format!("process type {name:?} has no command", name = name.as_str())));
        }
        if types.contains_key(&name) {
            return Err(fail(format!("process type {name:?} is declared twice", name = name.as_str())));
        }
        types.insert(name, command.to_owned());
    }
    Ok(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<&[(&str, &str)], (usize, &str)>) {
        match (parse(text.as_bytes()), want) {
            (Ok(got), Ok(want)) => {
                let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                assert_eq!(got, want, "{text:?}");
            }
            (Err(got), Err((line, part))) => {
                assert_eq!(got.line, line, "{text:?}: {got}");
                assert!(got.to_string().contains(part), "{text:?}: {got}");
            }
            (got, want) => panic!("{text:?}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn grammar() {
        check("", Ok(&[]));
        check("web: a\n", Ok(&[("web", "a")]));
        check("web:a b:c", Ok(&[("web", "a b:c")]));
        check("\u{feff}# x\r\n\r\nweb: a\r\nmy-w_2:\tb\r\n", Ok(&[("my-w_2", "b"), ("web", "a")]));
        check("web: a\nnonsense\n", Err((2, "no colon")));
        check("web:\n", Err((1, "no command")));
        check("web : x", Err((1, "process type")));
        check(": x", Err((1, "process type")));
        check("../x: y", Err((1, "process type")));
        check("web: a\n\nweb: b", Err((3, "twice")));
        check("web: a\0b", Err((1, "NUL")));
        assert_eq!(parse(b"web: a\n\xff\xfe").unwrap_err().line, 2);
    }
}
