//! Why a profile lets a call through or not, in words.

use serde::{Deserialize, Serialize};

use super::{
    bits,
    compile::X32_BIT,
    condition::Condition,
    profile::Action,
    table,
    verdict::{Source, Verdict, Verdicts},
    verdicts,
};
use crate::{
    error::{Error, ErrorKind, Result},
    spec::{Capability, Profile},
};

/// What a profile says of one call, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the call, or its number if this library knows none.
    pub call: String,
    /// `allow`, `log`, `trap`, `kill_process`, or an errno by name.
    pub action: String,
    /// The errno that it answers.
    pub errno: Option<u16>,
    /// The rule: `default: not in any list`, `answers: ENOSYS`, `rules: arg 1 & 0xf is 0x3, which no rule allows: it must be …`.
    pub rule: String,
}

/// What `profile` says, in a sandbox with `capabilities`, of `call` (a name, or a number) with `args`. Asks no kernel.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a profile that [`super::check`] refuses, and for what is no call.
pub fn explain(profile: &Profile, capabilities: &[Capability], call: &str, args: [u64; 6]) -> Result<Explanation> {
    let number = table::number(call).or_else(|| call.parse().ok());
    let unknown = || {
        let elsewhere = if table::exists(call) { " on this architecture" } else { "" };
        Error::refused(ErrorKind::Invalid, format!("call {call:?} does not exist{elsewhere}"))
    };
    let number = number.ok_or_else(unknown)?;
    let verdicts = verdicts(profile, bits(capabilities))?;
    Ok(explain_number(verdicts.as_ref(), number, &args))
}

/// What `profile` says of every call of this architecture, all arguments 0.
///
/// # Errors
/// As [`explain`].
pub fn explain_all(profile: &Profile, capabilities: &[Capability]) -> Result<Vec<Explanation>> {
    let verdicts = verdicts(profile, bits(capabilities))?;
    let mut numbers: Vec<u32> = table::calls().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|number| explain_number(verdicts.as_ref(), number, &[0; 6])).collect())
}

/// [`explain`] with verdicts that were worked out before.
pub(super) fn explain_number(verdicts: Option<&Verdicts>, number: u32, args: &[u64; 6]) -> Explanation {
    let call = table::name(number).map_or_else(|| number.to_string(), str::to_owned);
    let (action, rule) = match verdicts {
        None => (Action::Allow, "unconfined: no filter".to_owned()),
        Some(_) if number >= X32_BIT => (Action::Errno(libc::ENOSYS as u16), "a call of the x32 ABI".to_owned()),
        Some(all) => match all.calls.get(number as usize) {
            Some((verdict, source)) => (verdict.action(args), rule(verdict, *source, args)),
            None => (all.newer, rule(&Verdict::Always(all.newer), Source::Newer, args)),
        },
    };
    let errno = if let Action::Errno(errno) = action { Some(errno) } else { None };
    Explanation { call, action: action.to_string(), errno, rule }
}

fn rule(verdict: &Verdict, source: Source, args: &[u64; 6]) -> String {
    match (source, verdict) {
        (Source::Default, _) => "default: not in any list".to_owned(),
        (Source::Newer, _) => "newer: not in this library's table".to_owned(),
        (Source::Allow, _) => "allow: with any arguments".to_owned(),
        (Source::With(capability), _) => format!("with {capability}: any arguments"),
        (_, Verdict::Always(action)) => format!("answers: {action}"),
        (_, Verdict::When(alternatives, _)) => {
            let all =
                |conditions: &[Condition]| conditions.iter().map(|c| format!("{} {}", c.subject(), c.demand())).collect::<Vec<_>>().join(" and ");
            match alternatives.iter().find(|(conditions, _)| conditions.iter().all(|c| c.holds(args))) {
                Some((conditions, _)) => format!("rules: {}", all(conditions)),
                None => format!("rules: {}", nearest(alternatives, args)),
            }
        }
    }
}

/// What would have had to be otherwise: the conditions that failed in those alternatives that came furthest.
fn nearest(alternatives: &[(Vec<Condition>, Action)], args: &[u64; 6]) -> String {
    let held = |conditions: &[Condition]| conditions.iter().take_while(|c| c.holds(args)).count();
    let allowing = || alternatives.iter().filter(|(_, action)| action.runs());
    let Some(most) = allowing().map(|(conditions, _)| held(conditions)).max() else { return "none holds".to_owned() };
    let near = allowing().filter(|(conditions, _)| held(conditions) == most);
    let mut failed: Vec<(String, u64, Vec<String>)> = Vec::new();
    for condition in near.filter_map(|(conditions, _)| conditions.iter().find(|c| !c.holds(args))) {
        let (subject, seen, demand) = (condition.subject(), condition.seen(args), condition.demand());
        match failed.iter_mut().find(|(s, ..)| *s == subject) {
            Some((.., demands)) if demands.contains(&demand) => {}
            Some((.., demands)) => demands.push(demand),
            None => failed.push((subject, seen, vec![demand])),
        }
    }
    let say = |(subject, seen, demands): (String, u64, Vec<String>)| format!("{subject} is {seen:#x}; allowed if it {}", demands.join(", or "));
    failed.into_iter().map(say).collect::<Vec<_>>().join("; or ")
}
