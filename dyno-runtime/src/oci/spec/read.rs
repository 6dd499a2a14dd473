//! Reading: bytes to types, with an error that names the member.

use std::{fs::File, io::Read, path::Path};

use serde::de::DeserializeOwned;

use super::strict::{Strict, Trail};
use crate::{Error, ErrorKind, Result, error::Context, one_line::cut};

/// Bytes that a configuration may have. The greatest that execve(2) can make use of (6 MiB of arguments and environment) fits;
/// what is greater is taken for an attempt to use up memory.
const MOST: u64 = 16 << 20;

/// Reads a file: a [`super::Spec`] (`config.json`), a [`super::Process`] (for `exec --process`), [`super::Resources`] (for `update`).
///
/// # Errors
/// One line: the kernel's answer, or what [`parse`] says, after the file's name.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_with_text(path).map(|(value, _)| value)
}

/// [`read`], and what was read.
///
/// # Errors
/// As there.
pub fn read_with_text<T: DeserializeOwned>(path: &Path) -> Result<(T, Vec<u8>)> {
    let file = File::open(path).io(|| format!("open {}", path.display()))?;
    read_open(file, &path.display().to_string())
}

/// [`read_with_text`] of what is open, stdin for one.
///
/// # Errors
/// As there, after `name`.
pub fn read_open<T: DeserializeOwned>(from: impl Read, name: &str) -> Result<(T, Vec<u8>)> {
    // Most are read at once.
    let mut bytes = Vec::with_capacity(1 << 14);
    from.take(MOST + 1).read_to_end(&mut bytes).io(|| format!("read {name}"))?;
    let value = parse(&bytes).map_err(|e| Error::refused(ErrorKind::Invalid, format!("{name}: {e}")))?;
    Ok((value, bytes))
}

/// Reads what one of these files holds.
///
/// # Errors
/// One line of kind [`ErrorKind::Invalid`] that names the member.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.len() as u64 > MOST {
        return Err(Error::refused(ErrorKind::Invalid, format!("more than {} MiB long", MOST >> 20)));
    }
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = T::deserialize(Strict { inner: &mut json, trail: &trail });
    read.and_then(|value| json.end().map(|()| value)).map_err(|e| Error::refused(ErrorKind::Invalid, told(&e, &trail)))
}

/// `linux.namespaces[2]: missing field `type` (line 1, column 30)`. Messages and trails repeat what was read, so both are cut.
fn told(error: &serde_json::Error, trail: &Trail) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    match trail.to_string() {
        root if root.is_empty() => format!("{} (line {line}, column {column})", cut(text)),
        member => format!("{}: {} (line {line}, column {column})", cut(&member), cut(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::Spec;

    fn said(text: &str) -> String {
        parse::<Spec>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_member_is_named() {
        let check = |text: &str, says: &str| assert!(said(text).starts_with(says), "{text}: {}", said(text));
        check(r#"{"linux":{"namespaces":[{"type":"pid"},{}]}}"#, "linux.namespaces[1]: missing field `type` (line 1, ");
        check(r#"{"process":{"user":{"uid":-1}}}"#, "process.user.uid: invalid value: integer `-1`, expected u32");
        check(r#"{"process":{"user":{"uid":4294967296}}}"#, "process.user.uid: invalid value");
        check(r#"{"process":{"user":{"uid":1.5}}}"#, "process.user.uid: invalid type: floating point `1.5`");
        check(r#"{"process":{"args":["a",7]}}"#, "process.args[1]: invalid type: integer `7`, expected a string");
        check(r#"{"process":{"args":["a"],"args":["b"]}}"#, "process.args: is given twice");
        check(r#"{"annotations":{"a.b":"1","a.b":"2"}}"#, r#"annotations["a.b"]: is given twice"#);
        check(r#"{"linux":{"timeOffsets":{"boottime":{"secs":"1"}}}}"#, "linux.timeOffsets.boottime.secs: invalid type");
        check(r#"{"root":{"path":"\ud800"}}"#, "root.path: ");
        check(r#"{"process":{"user":[]}}"#, "process.user: invalid type: sequence");
        check("[]", "invalid type: sequence, expected struct Spec (line 1");
        check("", "EOF while parsing a value (line 1, column 0)");
        check("{} {}", "trailing characters (line 1, column 4)");
        check("null", "invalid type: null, expected struct Spec");
    }

    #[test]
    fn a_hostile_text_is_not_repeated_at_length() {
        let long = "x".repeat(1 << 20);
        for text in [format!(r#"{{"mounts":"{long}"}}"#), format!(r#"{{"annotations":{{"{long}":1}}}}"#), "{\"mounts\":\"a\\nb\u{85}\"}".to_owned()] {
            assert!(said(&text).len() < 1000 && !said(&text).contains(char::is_control), "{}", said(&text));
        }
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = |n: usize| "[".repeat(n);
        assert!(parse::<Spec>(deep(1 << 20).as_bytes()).is_err());
        assert!(parse::<Spec>(format!(r#"{{"unknown":{}}}"#, deep(1 << 20)).as_bytes()).is_err());
        parse::<Spec>(format!(r#"{{"unknown":{}{}}}"#, deep(100), "]".repeat(100)).as_bytes()).unwrap();
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let text = crate::oci::spec::example_text(None).unwrap();
        for end in 0..text.trim_end().len() {
            assert!(parse::<Spec>(&text.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let mut text = b"{}".to_vec();
        text.resize(MOST as usize, b' ');
        parse::<Spec>(&text).unwrap();
        text.push(b' ');
        assert_eq!(parse::<Spec>(&text).unwrap_err().to_string(), "more than 16 MiB long");
    }

    #[test]
    fn what_is_unknown_or_null_is_as_if_absent() {
        let text = r#"{"ociVersion":"1.0.0","what":{"is":[1]},"mounts":null,"linux":{"seccomp":null,"namespaces":null,"x":1},"annotations":null}"#;
        let spec: Spec = parse(text.as_bytes()).unwrap();
        assert_eq!(spec, Spec { oci_version: "1.0.0".to_owned(), linux: Some(Default::default()), ..Spec::default() });
    }
}
