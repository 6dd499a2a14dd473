//! The formation: how many dynos of which type and size an app should have.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{DynoSize, Invalid};

/// Dynos of one type that one app may have (Heroku: 100 per app).
pub const MAX_QUANTITY: u32 = 100;

/// A process type of a Procfile: `[A-Za-z0-9_-]{1,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessType(String);

impl ProcessType {
    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `web` is the one type that the router reaches and that is given `PORT`.
    pub fn is_web(&self) -> bool {
        self.0 == "web"
    }
}

impl FromStr for ProcessType {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        if s.is_empty() || s.len() > 63 || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(Invalid::new("process type", s, "must be 1 to 63 letters, digits, dashes or underscores"));
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for ProcessType {
    type Error = Invalid;
    fn try_from(s: String) -> Result<Self, Invalid> {
        s.parse()
    }
}

impl From<ProcessType> for String {
    fn from(t: ProcessType) -> String {
        t.0
    }
}

impl fmt::Display for ProcessType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wanted of one process type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormationEntry {
    /// Dynos wanted, 0 to [`MAX_QUANTITY`].
    pub quantity: u32,
    /// Their size.
    pub size: DynoSize,
}

/// What is wanted of every process type of an app.
pub type Formation = BTreeMap<ProcessType, FormationEntry>;
