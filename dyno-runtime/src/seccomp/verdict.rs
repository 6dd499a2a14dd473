//! What a profile says of every call, with the part of it that says so.

use std::collections::BTreeMap;

use super::{
    condition::Condition,
    profile::{Action, ProfileData},
    table,
};
use crate::spec::Capability;

/// What a profile says of one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Whatever its arguments.
    Always(Action),
    /// The first alternative whose conditions all hold; else the second field.
    When(Vec<(Vec<Condition>, Action)>, Action),
}

/// The part of a profile that speaks of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Default,
    Newer,
    Allow,
    Answers,
    Rules,
    With(Capability),
}

/// A profile worked out for one set of capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// By number, up to the newest of the table.
    pub calls: Vec<(Verdict, Source)>,
    /// What is newer.
    pub newer: Action,
}

impl Verdicts {
    /// Works out `data`, which extends nothing any more, for a sandbox with these capabilities.
    pub fn new(data: &ProfileData, capabilities: u64) -> Result<Self, String> {
        data.check_names()?;
        let action =
            |field: &str, text: &Option<String>, none: i32| text.as_deref().map_or(Ok(Action::Errno(none as u16)), |text| Action::parse(field, text));
        let (default, newer) = (action("default", &data.default, libc::EPERM)?, action("newer", &data.newer, libc::ENOSYS)?);
        let mut all = Self { calls: vec![(Verdict::Always(newer), Source::Newer); table::NEWEST as usize + 1], newer };
        for (name, _) in table::calls() {
            all.set(name, Verdict::Always(default), Source::Default);
        }
        for (name, answer) in &data.answers {
            all.set(name, Verdict::Always(Action::parse(&format!("answers.{name}"), answer)?), Source::Answers);
        }
        for name in &data.allow {
            all.set(name, Verdict::Always(Action::Allow), Source::Allow);
        }
        for (name, alternatives) in alternatives(data)? {
            all.set(name, Verdict::When(alternatives, default), Source::Rules);
        }
        for (capability, names) in data.with.iter().filter(|(c, _)| capabilities & c.bit() != 0) {
            for name in names {
                all.set(name, Verdict::Always(Action::Allow), Source::With(*capability));
            }
        }
        Ok(all)
    }

    /// Calls of another architecture are left out.
    fn set(&mut self, name: &str, verdict: Verdict, source: Source) {
        if let Some(slot) = table::number(name).and_then(|nr| self.calls.get_mut(nr as usize)) {
            *slot = (verdict, source);
        }
    }

    /// What is done about the call `number` with `args`.
    pub fn action(&self, number: u32, args: &[u64; 6]) -> Action {
        match self.calls.get(number as usize) {
            Some((verdict, _)) => verdict.action(args),
            None => self.newer,
        }
    }
}

impl Verdict {
    pub(super) fn action(&self, args: &[u64; 6]) -> Action {
        match self {
            Self::Always(action) => *action,
            Self::When(alternatives, otherwise) => {
                let holds = |(conditions, _): &&(Vec<Condition>, Action)| conditions.iter().all(|c| c.holds(args));
                alternatives.iter().find(holds).map_or(*otherwise, |(_, action)| *action)
            }
        }
    }
}

type Alternatives<'a> = BTreeMap<&'a str, Vec<(Vec<Condition>, Action)>>;

fn alternatives(data: &ProfileData) -> Result<Alternatives<'_>, String> {
    let mut rules = Alternatives::new();
    for rule in &data.rules {
        let field = format!("rules.{}", rule.call);
        let conditions = rule.when.iter().map(|c| c.lower(&format!("{field}.when"))).collect::<Result<Vec<_>, _>>()?;
        if conditions.is_empty() {
            return Err(format!("{field}.when is empty; a call that is allowed always belongs into allow"));
        }
        let action = rule.then.as_deref().map_or(Ok(Action::Allow), |then| Action::parse(&format!("{field}.then"), then))?;
        rules.entry(&rule.call).or_default().push((conditions, action));
    }
    Ok(rules)
}
