//! What is to be parked, and what is: one lot for each kind of walls.

use std::sync::Weak;

use crate::{
    host::Inner,
    spawn::parked::{Parked, same_walls},
    spec::Sandbox,
};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Lots(Vec<Lot>);

#[derive(Debug)]
struct Lot {
    host: Weak<Inner>,
    like: Sandbox,
    count: usize,
    ready: Vec<Parked>,
    /// None could be made; the next start that finds none lets it be tried again.
    given_up: bool,
}

impl Lots {
    fn find(&mut self, sandbox: &Sandbox) -> Option<&mut Lot> {
        self.0.iter_mut().find(|lot| same_walls(&lot.like, sandbox))
    }

    /// Keeps `count` of these from now on. What is too many is handed back.
    pub fn keep(&mut self, host: Weak<Inner>, like: &Sandbox, count: usize) -> Vec<Parked> {
        if self.find(like).is_none() {
            self.0.push(Lot { host, like: like.clone(), count, ready: Vec::new(), given_up: false });
        }
        let Some(lot) = self.find(like) else { return Vec::new() };
        (lot.count, lot.given_up) = (count, false);
        let surplus = lot.ready.split_off(count.min(lot.ready.len()));
        self.0.retain(|lot| lot.count > 0);
        surplus
    }

    /// One that fits.
    pub fn take(&mut self, sandbox: &Sandbox) -> Option<Parked> {
        let lot = self.find(sandbox)?;
        lot.given_up = false;
        lot.ready.pop()
    }

    /// How many fit.
    pub fn count(&self, sandbox: &Sandbox) -> usize {
        self.0.iter().find(|lot| same_walls(&lot.like, sandbox)).map_or(0, |lot| lot.ready.len())
    }

    /// The emptiest lot that is not full, and whether it is empty.
    pub fn wanting(&self) -> Option<(Weak<Inner>, Sandbox, bool)> {
        let lot = self.0.iter().filter(|lot| lot.ready.len() < lot.count && !lot.given_up).min_by_key(|lot| lot.ready.len())?;
        Some((lot.host.clone(), lot.like.clone(), lot.ready.is_empty()))
    }

    /// One more; handed back when nobody wants it any more.
    pub fn put(&mut self, like: &Sandbox, parked: Parked) -> Option<Parked> {
        match self.find(like) {
            Some(lot) if lot.ready.len() < lot.count => {
                lot.ready.push(parked);
                None
            }
            _ => Some(parked),
        }
    }

    /// None can be made.
    pub fn give_up(&mut self, like: &Sandbox) {
        if let Some(lot) = self.find(like) {
            lot.given_up = true;
        }
    }
}
