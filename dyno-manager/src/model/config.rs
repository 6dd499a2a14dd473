//! Config vars: the environment that an operator gives to an app.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// All config vars of an app together may hold this many bytes (names and values), as on Heroku.
pub const MAX_CONFIG_BYTES: usize = 64 * 1024;

/// Names that the platform itself sets; an app cannot.
const RESERVED: [&str; 3] = ["PORT", "DYNO", "HOME"];

/// Validated config vars, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigVars(BTreeMap<String, String>);

impl ConfigVars {
    /// The vars after `changes`: a value sets, `None` removes.
    ///
    /// # Errors
    /// A name that is not `[A-Za-z_][A-Za-z0-9_]*` or reserved (`PORT`, `DYNO`, `HOME`), a value with NUL,
    /// or more than [`MAX_CONFIG_BYTES`] in all.
    pub fn with(&self, changes: impl IntoIterator<Item = (String, Option<String>)>) -> Result<Self, Invalid> {
        let mut vars = self.0.clone();
        for (name, value) in changes {
            check_name(&name)?;
            match value {
                Some(v) if v.contains('\0') => return Err(Invalid::new("config var", name, "must not hold a NUL byte")),
                Some(v) => drop(vars.insert(name, v)),
                None => drop(vars.remove(&name)),
            }
        }
        let size: usize = vars.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > MAX_CONFIG_BYTES {
            let rule = format!("bytes in all are over the limit of {MAX_CONFIG_BYTES}");
            return Err(Invalid::new("config vars:", size, rule));
        }
        Ok(Self(vars))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All vars, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// True when none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !head || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.len() > 256 {
        return Err(Invalid::new("config var name", name, "must match [A-Za-z_][A-Za-z0-9_]*"));
    }
    if RESERVED.contains(&name) {
        return Err(Invalid::new("config var name", name, "is set by the platform"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<ConfigVars, Invalid> {
        ConfigVars::default().with([(name.to_owned(), Some(value.to_owned()))])
    }

    #[test]
    fn bad_names_and_values_are_refused_by_name() {
        for name in ["", "1A", "A-B", "A=B", "A\nB", "A\0", "PORT", "DYNO", "HOME"] {
            assert!(set(name, "x").is_err(), "{name:?} was accepted");
        }
        assert!(set("A", "x\0y").is_err());
        assert!(set("A", &"x".repeat(MAX_CONFIG_BYTES)).is_err());
        assert_eq!(set("A", "1\n2").unwrap().get("A"), Some("1\n2"));
    }

    #[test]
    fn none_removes() {
        let vars = set("A", "1").unwrap().with([("A".to_owned(), None)]).unwrap();
        assert!(vars.is_empty());
    }
}
