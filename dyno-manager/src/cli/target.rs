//! Which app a command is about: `-a/--app`, else `DYNO_APP`, else the `.dyno` file of the directory or of
//! a parent. The file holds `app = name`; blank lines and `#` comments are allowed.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use uuid::Uuid;

use super::error::{CliError, Result};
use crate::model::{AppName, Invalid};

/// The file that ties a directory to an app.
pub(super) const FILE: &str = ".dyno";

/// An app as the API takes it: a name or an id. Safe as a path segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppRef(String);

impl AppRef {
    /// As typed.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppRef {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        if Uuid::try_parse(s).is_ok() {
            return Ok(Self(s.to_owned()));
        }
        s.parse::<AppName>().map(|name| Self(name.into()))
    }
}

impl fmt::Display for AppRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The app named by a flag, the environment or a file, in this order.
pub(super) fn resolve(flag: Option<&AppRef>, variable: Option<&str>, directory: &Path) -> Result<AppRef> {
    if let Some(app) = flag {
        return Ok(app.clone());
    }
    if let Some(name) = variable {
        return name.parse().map_err(|e: Invalid| CliError::usage(format!("DYNO_APP: {e}")));
    }
    if let Some((_, app)) = find(directory)? {
        return Ok(app);
    }
    Err(CliError::usage("No app is named.")
        .hint("Name one with -a APP or DYNO_APP, or run this where a .dyno file says `app = NAME`.")
        .hint("`dyno apps` lists the apps, `dyno apps:create` makes one."))
}

/// The nearest `.dyno` file and the app it names.
pub(super) fn find(directory: &Path) -> Result<Option<(PathBuf, AppRef)>> {
    for parent in directory.ancestors() {
        let path = parent.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => return parse(&text).map(|app| Some((path.clone(), app))).map_err(|e| e.at(&path)),
            // A directory of that name is somebody else's business.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
            Err(e) => return Err(CliError::new(format!("{} cannot be read: {e}", path.display()))),
        }
    }
    Ok(None)
}

/// Ties `directory` to `app` unless it is already tied; says what it did. A tie of a parent to another app stays
/// in force for the parent.
pub(super) fn remember(directory: &Path, app: &str) -> Result<Option<String>> {
    let path = directory.join(FILE);
    match find(directory)? {
        Some((_, named)) if named.as_str() == app => return Ok(None),
        Some((found, named)) if found == path => {
            return Ok(Some(format!("{} names {named}; it is left as it is.", path.display())));
        }
        _ => {}
    }
    let written = fs::write(&path, format!("app = {app}\n"));
    written.map_err(|e| CliError::new(format!("{} cannot be written: {e}", path.display())))?;
    Ok(Some(format!("Wrote {}: commands here are about {app}.", path.display())))
}

/// Removes the `.dyno` file of `directory` if it names `app`.
pub(super) fn forget(directory: &Path, app: &str) -> Result<()> {
    match find(directory)? {
        Some((path, named)) if named.as_str() == app && path.parent() == Some(directory) => {
            fs::remove_file(&path).map_err(|e| CliError::new(format!("{} cannot be removed: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// An id or a name of an answer, for use in a path: the platform's word is checked like anybody's.
pub(super) fn safe(segment: &str) -> Result<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if segment.is_empty() || !segment.bytes().all(plain) {
        return Err(CliError::new(format!("The platform named an id that cannot be used: {segment:?}")));
    }
    Ok(segment)
}

struct Fault {
    line: usize,
    what: String,
}

impl Fault {
    fn at(self, path: &Path) -> CliError {
        CliError::usage(format!("{} line {}: {}", path.display(), self.line, self.what))
    }
}

fn parse(text: &str) -> Result<AppRef, Fault> {
    for (index, line) in text.lines().enumerate() {
        let fault = |what: String| Fault { line: index + 1, what };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| fault("must say `app = NAME`".to_owned()))?;
        if key.trim() == "app" {
            return value.trim().trim_matches('"').parse().map_err(|e: Invalid| fault(e.to_string()));
        }
    }
    Err(Fault { line: 1, what: "names no app; it must say `app = NAME`".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_one_thing() {
        let check = |text: &str, want: Result<&str, (usize, &str)>| match (parse(text), want) {
            (Ok(app), Ok(want)) => assert_eq!(app.as_str(), want, "{text:?}"),
            (Err(fault), Err((line, part))) => {
                assert_eq!(fault.line, line, "{text:?}: {}", fault.what);
                assert!(fault.what.contains(part), "{text:?}: {}", fault.what);
            }
            (Ok(app), Err(_)) => panic!("{text:?} was read as {app}"),
            (Err(fault), Ok(_)) => panic!("{text:?}: {}", fault.what),
        };
        check("app = my-app\n", Ok("my-app"));
        check("# ours\r\n\r\napp=\"my-app\"\r\n", Ok("my-app"));
        check("later = 1\napp = my-app", Ok("my-app"));
        check("", Err((1, "names no app")));
        check("my-app", Err((1, "app = NAME")));
        check("\napp = ../x", Err((2, "app name")));
    }

    #[test]
    fn the_nearest_file_wins_and_flags_come_first() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let name = |flag: Option<&str>, variable: Option<&str>| {
            let flag = flag.map(|f| f.parse().unwrap());
            resolve(flag.as_ref(), variable, &deep).map(|app| app.to_string())
        };
        assert_eq!(name(None, None).unwrap_err().status, 2);
        fs::write(root.path().join(FILE), "app = outer\n").unwrap();
        assert_eq!(name(None, None).unwrap(), "outer");
        fs::write(root.path().join("a").join(FILE), "app = inner\n").unwrap();
        assert_eq!(name(None, None).unwrap(), "inner");
        assert_eq!(name(None, Some("from-env")).unwrap(), "from-env");
        assert_eq!(name(Some("from-flag"), Some("from-env")).unwrap(), "from-flag");
        assert_eq!(name(None, Some("../x")).unwrap_err().status, 2);
    }

    #[test]
    fn a_tie_is_written_once_and_only_removed_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path();
        let deep = here.join("a");
        fs::create_dir(&deep).unwrap();
        assert!(remember(here, "one").unwrap().unwrap().contains("about one"));
        assert_eq!(fs::read_to_string(here.join(FILE)).unwrap(), "app = one\n");
        assert_eq!(remember(here, "one").unwrap(), None);
        assert_eq!(remember(&deep, "one").unwrap(), None);
        forget(&deep, "one").unwrap();
        assert!(remember(here, "two").unwrap().unwrap().contains("names one; it is left"));
        assert!(remember(&deep, "two").unwrap().unwrap().contains("about two"));
        forget(here, "two").unwrap();
        assert!(here.join(FILE).exists());
        forget(here, "one").unwrap();
        assert!(!here.join(FILE).exists());
    }
}
