//! The search for a call's number: a balanced tree of comparisons. It serves our own profiles and the filters of OCI configurations.
//!
//! The code is written from its end, because every jump of classic BPF goes forward: so where one leads is known before it is written, and
//! comparisons far apart jump to one and the same return. What the kernel takes to install a filter is mostly its just-in-time compiler's
//! work, which grows with the number of instructions.

use std::collections::BTreeMap;

use super::{
    compile::{JA, JGE, RET, alternative, op},
    condition::Condition,
};
use crate::sys::Filter;

/// What stands at the end of the search for a number.
#[derive(Debug, Clone, PartialEq)]
pub enum Leaf<'a> {
    /// SECCOMP_RET_….
    Return(u32),
    /// The first alternative whose conditions all hold; else the second field.
    When(Vec<(&'a [Condition], u32)>, u32),
}

/// Leaves by the first number of the run that each stands for, ascending from 0.
pub type Ranges<'a> = Vec<(u32, Leaf<'a>)>;

/// From `number` on it is `leaf`.
pub fn from<'a>(ranges: &mut Ranges<'a>, number: u32, leaf: Leaf<'a>) {
    if ranges.last().is_some_and(|(first, _)| *first == number) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != leaf) {
        ranges.push((number, leaf));
    }
}

/// The search for a call's number, which is loaded, and what stands at its end; every path returns.
///
/// # Errors
/// A rule with too many conditions.
pub fn tree(ranges: &[(u32, Leaf<'_>)]) -> Result<Vec<Filter>, String> {
    let mut code = Backward::default();
    code.search(ranges)?;
    code.code.reverse();
    Ok(code.code)
}

/// Farthest that a conditional jump goes.
const FAR: usize = u8::MAX as usize;

/// A return is shared with what is written within so many instructions before it: the jump to it must still reach.
const SHARED: usize = 200;

/// A program from its end; places are counted from there.
#[derive(Default)]
struct Backward {
    code: Vec<Filter>,
    /// Where each value is returned, nearest to the beginning.
    returns: BTreeMap<u32, usize>,
}

impl Backward {
    fn push(&mut self, instruction: Filter) -> usize {
        self.code.push(instruction);
        self.code.len() - 1
    }

    /// From behind the instruction that is written next to the one at `place`.
    fn distance(&self, place: usize) -> usize {
        self.code.len() - place - 1
    }

    /// `place`, or a jump to it, within reach of a conditional jump when `more` instructions have been written.
    fn near(&mut self, place: usize, more: usize) -> usize {
        let distance = self.distance(place);
        if distance + more <= FAR { place } else { self.push(op(JA, 0, 0, distance as u32)) }
    }

    /// Where the search begins.
    fn search(&mut self, ranges: &[(u32, Leaf<'_>)]) -> Result<usize, String> {
        let [(_, only)] = ranges else {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let above = self.search(high)?;
            let below = self.search(low)?;
            let (above, below) = (self.near(above, 1), self.near(below, 0));
            return Ok(self.push(op(JGE, self.distance(above) as u8, self.distance(below) as u8, high[0].0)));
        };
        match only {
            Leaf::Return(value) => Ok(self.answer(*value)),
            Leaf::When(alternatives, otherwise) => {
                let mut code = Vec::new();
                for (conditions, value) in alternatives {
                    code.extend(alternative(conditions, *value)?);
                }
                let last = self.push(op(RET, 0, 0, *otherwise));
                self.returns.insert(*otherwise, last);
                self.code.extend(code.into_iter().rev());
                Ok(self.code.len() - 1)
            }
        }
    }

    fn answer(&mut self, value: u32) -> usize {
        match self.returns.get(&value) {
            Some(place) if self.distance(*place) <= SHARED => *place,
            _ => {
                let place = self.push(op(RET, 0, 0, value));
                self.returns.insert(value, place);
                place
            }
        }
    }
}
