//! All that a configuration says of one call of one architecture, and which of it counts.
//!
//! As libseccomp has it. A rule without conditions beats all that have some, and the first such rule beats later ones. Of two rules of which
//! one asks for the other's conditions and further ones behind them, the one that asks for less counts alone. Two that ask for the same but
//! want different things are refused. For the rest, the order in which conditions are tried is not the order of the configuration:
//! higher arguments first, equality before order, greater values first (smaller ones for "less").

use std::cmp::Ordering;

use crate::seccomp::{
    condition::{Condition, Op, Test},
    tree::Leaf,
};

/// Rules of a call, and what they return.
#[derive(Debug, Default)]
pub struct Rules {
    always: Option<u32>,
    /// In the order in which they are tried; conditions by argument.
    when: Vec<(Vec<Condition>, u32)>,
}

impl Rules {
    /// Adds a rule; its conditions are about different arguments, in their order.
    ///
    /// # Errors
    /// It contradicts another one.
    pub fn add(&mut self, conditions: Vec<Condition>, value: u32) -> Result<(), String> {
        if self.always.is_some()
            || self.when.iter().any(|(known, v)| conditions.starts_with(known) && (known.len() < conditions.len() || *v == value))
        {
            return Ok(());
        }
        if conditions.is_empty() {
            (self.always, self.when) = (Some(value), Vec::new());
            return Ok(());
        }
        if self.when.iter().any(|(known, v)| known.starts_with(&conditions) && *v != value) {
            return Err("another rule has the same conditions and another action".to_owned());
        }
        self.when.retain(|(known, _)| !known.starts_with(&conditions));
        let at = self.when.iter().position(|(known, _)| before(&conditions, known)).unwrap_or(self.when.len());
        self.when.insert(at, (conditions, value));
        Ok(())
    }

    /// What stands at the end of the search for the call's number.
    pub fn leaf(&self, default: u32) -> Leaf<'_> {
        match self.always {
            Some(value) => Leaf::Return(value),
            None => Leaf::When(self.when.iter().map(|(conditions, value)| (conditions.as_slice(), *value)).collect(), default),
        }
    }
}

/// Whether `a` is tried before `b`, which was there first.
fn before(a: &[Condition], b: &[Condition]) -> bool {
    let ranks = |conditions: &[Condition]| conditions.iter().flat_map(rank).collect::<Vec<_>>();
    ranks(a).cmp(&ranks(b)) == Ordering::Greater
}

/// What a condition is ordered by: its halves, each by argument, operator and value.
fn rank(condition: &Condition) -> Vec<(u8, u8, u32)> {
    let (op, halves) = match condition.test {
        Test::Low { op, value, .. } => (op, vec![(0, value)]),
        Test::Wide { op, value, .. } => (op, vec![(1, (value >> 32) as u32), (0, value as u32)]),
    };
    let order = match op {
        Op::Eq | Op::Ne | Op::MaskedEq => 3,
        Op::Le | Op::Lt => 2,
        Op::Ge | Op::Gt => 1,
    };
    let value = |value: u32| if order == 2 { !value } else { value };
    halves.into_iter().map(|(half, v)| (condition.arg * 2 + half, order, value(v))).collect()
}
