//! Profiles as they stand in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{condition::RawCondition, errno, table};
use crate::spec::Capability;

/// A profile file: what it says of a call is looked for in `with`, `rules`, `allow`, `answers`, `default`, in this order.
///
/// ```json
/// {
///   "extends": "docker",
///   "default": "EPERM",
///   "newer": "ENOSYS",
///   "allow": ["read", "write"],
///   "answers": { "clone3": "ENOSYS", "ptrace": "kill_process", "acct": "log", "swapon": "13" },
///   "rules": [ { "call": "socket", "when": [ { "arg": 0, "is": "1" } ] },
///              { "call": "ioctl", "when": [ { "arg": 1, "op": "lt", "value": "0x100" } ], "then": "EINVAL" } ],
///   "with": { "SYS_ADMIN": ["mount", "umount2"] }
/// }
/// ```
///
/// An action is `allow`, `log` (allowed, and written to the kernel's audit log: Linux 4.14), `kill_process` (SIGSYS, 4.14), `trap`
/// (SIGSYS that the program can handle), or an errno by name or number.
///
/// `allow`, `answers` and `rules` each name a call that no other of them names. Calls of another architecture than this one have no
/// effect; what is no call anywhere is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileData {
    /// For readers of the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The shipped profile (`dyno`, `build`, `docker`) whose entries come first; its entries for calls named here are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// The action for calls that nothing below names, and for those of which no rule holds. EPERM if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The action for calls that came after the table of this library. ENOSYS if it is not given: C libraries then fall back as
    /// they do on old kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<String>,
    /// Calls allowed with any arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Calls with an action of their own, whatever their arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, String>,
    /// Calls that depend on their arguments. The first rule of a call that holds counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Calls allowed with any arguments when the sandbox has that capability, whatever is said above.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<Capability, Vec<String>>,
}

/// One rule: the action is taken when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For readers of the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Name of the call.
    pub call: String,
    /// All of these.
    pub when: Vec<RawCondition>,
    /// The action; to allow if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

/// What is done about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It runs.
    Allow,
    /// It runs, and the kernel's audit log tells of it (Linux 4.14).
    Log,
    /// It answers this errno.
    Errno(u16),
    /// The thread gets a SIGSYS that it may handle.
    Trap,
    /// The process ends by SIGSYS (Linux 4.14).
    KillProcess,
}

impl Action {
    /// Reads one.
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, String> {
        match text {
            "allow" => Ok(Self::Allow),
            "log" => Ok(Self::Log),
            "trap" => Ok(Self::Trap),
            "kill_process" => Ok(Self::KillProcess),
            _ => errno::parse(text)
                .map(Self::Errno)
                .ok_or_else(|| format!("{field} {text:?} is no action: allow, log, trap, kill_process, or an errno such as EACCES or 13")),
        }
    }

    /// Whether the call runs.
    pub fn runs(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Log => f.write_str("log"),
            Self::Errno(number) => f.write_str(&errno::name(*number)),
            Self::Trap => f.write_str("trap"),
            Self::KillProcess => f.write_str("kill_process"),
        }
    }
}

impl ProfileData {
    /// Reads a profile.
    ///
    /// # Errors
    /// Malformed JSON or an unknown field. What the fields say is checked when it is compiled ([`super::check`]).
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    /// This profile on top of the one that it extends.
    pub(super) fn onto(&self, mut base: Self) -> Self {
        let own = self.clone();
        let named = |call: &String| own.allow.contains(call) || own.answers.contains_key(call) || own.rules.iter().any(|r| r.call == *call);
        base.allow.retain(|call| !named(call));
        base.rules.retain(|rule| !named(&rule.call));
        base.answers.retain(|call, _| !named(call));
        for calls in base.with.values_mut() {
            calls.retain(|call| !named(call));
        }
        base.allow.extend(own.allow);
        base.answers.extend(own.answers);
        base.rules.extend(own.rules);
        for (capability, calls) in own.with {
            base.with.entry(capability).or_default().extend(calls);
        }
        Self { comment: own.comment, extends: None, default: own.default.or(base.default), newer: own.newer.or(base.newer), ..base }
    }

    /// Every name with the field that it stands in, each checked to be a call somewhere.
    pub(super) fn check_names(&self) -> Result<(), String> {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        let rules = self.rules.iter().map(|r| ("rules", r.call.as_str()));
        let named = self.allow.iter().map(|c| ("allow", c.as_str())).chain(self.answers.keys().map(|c| ("answers", c.as_str()))).chain(rules);
        for (field, call) in named {
            let known = seen.insert(call, field).is_none_or(|before| before == "rules" && field == "rules");
            if !known {
                return Err(format!("{field} {call:?} is named twice; allow, answers and rules each have calls of their own"));
            }
        }
        let with = self.with.values().flatten().map(|call| (call.as_str(), "with"));
        match seen.into_iter().chain(with).find(|(call, _)| !table::exists(call)) {
            Some((call, field)) => Err(format!("{field} {call:?} is no system call that this library knows")),
            None => Ok(()),
        }
    }
}
