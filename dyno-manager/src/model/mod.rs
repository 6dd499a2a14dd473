//! Plain data and its rules: no IO, no clock, no knowledge of how anything is carried out.

mod app;
mod config;
mod dyno;
mod formation;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod procfile;
mod release;

pub use app::{App, AppName};
pub use config::{ConfigVars, MAX_CONFIG_BYTES};
pub use dyno::{DynoId, DynoKind, DynoName, DynoSize, DynoState, Exit, ExitCause, SIZES};
pub use formation::{Formation, FormationEntry, MAX_QUANTITY, ProcessType};
pub use release::{Build, BuildStatus, Egress, Release, ReleaseStatus, Slug};

/// An input that breaks a rule of the model: names the field, the value and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {rule}")]
pub struct Invalid {
    /// What was set, in the user's words (`app name`, `quantity`).
    pub field: &'static str,
    /// The offending value, cut to 120 characters.
    pub value: String,
    /// The rule it breaks, as the end of a sentence (`must start with a letter`).
    pub rule: String,
}

impl Invalid {
    /// Names a broken rule; long values are cut so that an error stays one line.
    pub fn new(field: &'static str, value: impl ToString, rule: impl Into<String>) -> Self {
        let mut value = value.to_string();
        if value.chars().count() > 120 {
            value = value.chars().take(117).collect::<String>() + "...";
        }
        Self { field, value, rule: rule.into() }
    }
}
