//! An app and its name.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Invalid;

/// One deployed application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Stable identity; names can be reused after an app is destroyed.
    pub id: Uuid,
    /// Unique name, also the first label of its host name.
    pub name: AppName,
    /// The router answers H80 for it while set.
    pub maintenance: bool,
    /// What the last successful build detected ("Python").
    pub buildpack_description: Option<String>,
    /// Creation time.
    pub created_at: Timestamp,
    /// Last change of the app itself.
    pub updated_at: Timestamp,
    /// Time of the current release.
    pub released_at: Option<Timestamp>,
}

/// An app name: `^[a-z][a-z0-9-]{1,28}[a-z0-9]$` (Heroku Platform API v3, `app.name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(String);

impl AppName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let rule = |r: &str| Invalid::new("app name", s, r);
        if !(3..=30).contains(&s.len()) {
            return Err(rule("must have 3 to 30 characters"));
        }
        if !s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(rule("may hold only lowercase letters, digits and dashes"));
        }
        if !s.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(rule("must start with a letter"));
        }
        if s.ends_with('-') {
            return Err(rule("must not end with a dash"));
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for AppName {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<AppName> for String {
    fn from(n: AppName) -> String {
        n.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_platform_api_rule() {
        for good in ["abc", "a-1", "web-app-2", "a23456789012345678901234567890"] {
            assert_eq!(good.parse::<AppName>().unwrap().as_str(), good);
        }
        for bad in ["", "ab", "1ab", "-ab", "ab-", "Abc", "a/b", "../x", "a.b", "a b", "ä-b", "a%2eb", "a\0b"] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?} was accepted");
        }
        assert!("a".repeat(31).parse::<AppName>().is_err());
    }
}
