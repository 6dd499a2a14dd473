//! Profiles as they stand in JSON, and what they say of one call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table;

/// A profile file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileData {
    #[serde(default)]
    #[allow(dead_code, reason = "for readers of the file")]
    comment: String,
    /// The profile whose lists come first; its entries for calls named here are replaced.
    #[serde(default)]
    pub extends: Option<String>,
    /// What calls answer that nothing below names.
    #[serde(default = "eperm")]
    pub default_errno: String,
    /// Calls allowed with any arguments.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Calls that answer a certain errno.
    #[serde(default)]
    pub errno: BTreeMap<String, String>,
    /// Calls allowed with certain arguments; several rules for one call are alternatives.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

fn eperm() -> String {
    "EPERM".to_owned()
}

/// One alternative: the call is allowed when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default)]
    #[allow(dead_code, reason = "for readers of the file")]
    comment: String,
    /// Name of the call.
    pub call: String,
    /// All of these.
    pub when: Vec<RawCondition>,
}

/// A condition as written: numbers are hexadecimal or decimal strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCondition {
    arg: u8,
    #[serde(default)]
    mask: Option<String>,
    #[serde(default)]
    is: Option<String>,
    #[serde(default)]
    not: Option<String>,
}

/// A condition on the low 32 bits of an argument. The kernel takes such arguments as `int`, so the
/// high half is ignored on purpose: comparing it is how CVE-2019-10063 got past a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// 0 to 5.
    pub arg: u8,
    /// Bits that count.
    pub mask: u32,
    /// Compared with.
    pub value: u32,
    /// True: must be equal; false: must differ.
    pub equal: bool,
}

/// What a profile says of one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Answers this errno.
    Errno(u16),
    /// Allowed when every condition of one alternative holds; else the default errno.
    When(Vec<Vec<Condition>>),
}

impl ProfileData {
    /// Reads a profile; `base` is the text of the one that it extends.
    ///
    /// # Errors
    /// Malformed JSON, an unknown field or number, or `extends` without a base.
    pub fn parse(text: &str, base: Option<&str>) -> Result<Self, String> {
        let mut own: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let Some(name) = own.extends.take() else { return Ok(own) };
        let base = base.ok_or_else(|| format!("extends {name:?}, which is not known"))?;
        let mut all = Self::parse(base, None)?;
        let named: Vec<&String> = own.allow.iter().chain(own.errno.keys()).chain(own.rules.iter().map(|r| &r.call)).collect();
        all.allow.retain(|call| !named.contains(&call));
        all.rules.retain(|rule| !named.contains(&&rule.call));
        all.errno.retain(|call, _| !named.contains(&call));
        all.allow.append(&mut own.allow);
        all.errno.append(&mut own.errno);
        all.rules.append(&mut own.rules);
        Ok(all)
    }

    /// The verdict on every call number from 0 to the newest known.
    ///
    /// # Errors
    /// An unknown errno name, argument index or number. Calls that this architecture lacks are skipped.
    pub fn verdicts(&self) -> Result<Vec<Verdict>, String> {
        let mut all = vec![Verdict::Errno(errno("ENOSYS")?); table::NEWEST as usize + 1];
        for (_, nr) in table::TABLE.iter().filter(|(_, nr)| *nr <= table::NEWEST) {
            all[*nr as usize] = Verdict::Errno(errno(&self.default_errno)?);
        }
        for (name, answer) in &self.errno {
            set(&mut all, name, Verdict::Errno(errno(answer)?));
        }
        for name in &self.allow {
            set(&mut all, name, Verdict::Allow);
        }
        let mut rules: BTreeMap<&str, Vec<Vec<Condition>>> = BTreeMap::new();
        for rule in &self.rules {
            let conditions = rule.when.iter().map(|c| c.lower(&rule.call)).collect::<Result<_, _>>()?;
            rules.entry(&rule.call).or_default().push(conditions);
        }
        for (name, alternatives) in rules {
            set(&mut all, name, Verdict::When(alternatives));
        }
        Ok(all)
    }

    /// The errno of calls that nothing names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn default_errno(&self) -> Result<u16, String> {
        errno(&self.default_errno)
    }
}

fn set(all: &mut [Verdict], name: &str, verdict: Verdict) {
    if let Some(slot) = table::number(name).and_then(|nr| all.get_mut(nr as usize)) {
        *slot = verdict;
    }
}

fn errno(name: &str) -> Result<u16, String> {
    match name {
        "EPERM" => Ok(libc::EPERM as u16),
        "ENOSYS" => Ok(libc::ENOSYS as u16),
        "EACCES" => Ok(libc::EACCES as u16),
        "EINVAL" => Ok(libc::EINVAL as u16),
        _ => Err(format!("errno {name:?} is not one of EPERM, ENOSYS, EACCES, EINVAL")),
    }
}

impl RawCondition {
    fn lower(&self, call: &str) -> Result<Condition, String> {
        let number = |text: &str| {
            let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16));
            parsed.map_err(|_| format!("rule for {call}: {text:?} is not a 32-bit number"))
        };
        let (text, equal) = match (&self.is, &self.not) {
            (Some(value), None) => (value, true),
            (None, Some(value)) => (value, false),
            _ => return Err(format!("rule for {call}: a condition needs `is` or `not`, and not both")),
        };
        if self.arg > 5 {
            return Err(format!("rule for {call}: argument {} does not exist; calls have 0 to 5", self.arg));
        }
        let mask = self.mask.as_deref().map_or(Ok(u32::MAX), number)?;
        Ok(Condition { arg: self.arg, mask, value: number(text)?, equal })
    }
}
