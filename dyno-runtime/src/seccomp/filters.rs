//! Compiled filters, kept: one program per profile, capabilities and purpose.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    compile::{Denied, compile},
    explain::{Explanation, explain_number},
    invalid, needs,
    verdict::Verdicts,
    verdicts,
};
use crate::{
    error::{Error, ErrorKind, Result},
    spec::Profile,
    sys::Filter,
};

/// A filter and what it was made of.
#[derive(Debug)]
pub struct Compiled {
    /// For the kernel; empty for none.
    pub program: Vec<Filter>,
    /// For explanations; None without a filter.
    pub(super) verdicts: Option<Verdicts>,
}

impl Compiled {
    /// Compiles.
    ///
    /// # Errors
    /// As [`super::check`].
    pub fn new(profile: &Profile, capabilities: u64, denied: Denied) -> Result<Self> {
        let Some(verdicts) = verdicts(profile, capabilities)? else { return Ok(Self { program: Vec::new(), verdicts: None }) };
        needs::check(&verdicts).map_err(invalid)?;
        Ok(Self { program: compile(&verdicts, denied).map_err(invalid)?, verdicts: Some(verdicts) })
    }

    /// Why a call gets what it gets.
    pub fn explain(&self, number: u32, args: &[u64; 6]) -> Explanation {
        explain_number(self.verdicts.as_ref(), number, args)
    }
}

/// How many are kept: enough for every capability set that a platform really uses, little enough to be searched one by one.
const MOST: usize = 32;

type Key = (Profile, u64, Denied);

/// The filters that a [`crate::Host`] has compiled, the latest used last.
#[derive(Debug, Default)]
pub struct Filters(Mutex<Vec<(Key, Arc<Compiled>)>>);

impl Filters {
    /// The filter of `profile` for a sandbox with these capabilities; compiled at its first use only.
    ///
    /// # Errors
    /// As [`super::check`].
    pub fn get(&self, profile: &Profile, capabilities: u64, denied: Denied) -> Result<Arc<Compiled>> {
        // A panic elsewhere leaves whole entries only.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |((p, c, d), _): &(Key, Arc<Compiled>)| (*c, *d) == (capabilities, denied) && p == profile;
        if let Some(at) = kept.iter().position(is) {
            kept[at..].rotate_left(1);
        } else {
            let made = Arc::new(Compiled::new(profile, capabilities, denied)?);
            if kept.len() == MOST {
                kept.remove(0);
            }
            kept.push(((profile.clone(), capabilities, denied), made));
        }
        kept.last().map(|(_, found)| found.clone()).ok_or_else(|| Error::refused(ErrorKind::Io, "no filter was kept"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::ProfileData;

    #[test]
    fn compiled_once_and_kept_by_content() {
        let filters = Filters::default();
        let custom =
            |comment: &str| Profile::Custom(Box::new(ProfileData { comment: comment.into(), extends: Some("dyno".into()), ..Default::default() }));
        let get = |profile: &Profile, capabilities| filters.get(profile, capabilities, Denied::Answer).unwrap();
        let (first, other) = (get(&custom("a"), 0), get(&Profile::Docker, 0));
        assert!(Arc::ptr_eq(&first, &get(&custom("a"), 0)));
        assert!(!Arc::ptr_eq(&first, &get(&custom("b"), 0)));
        assert_ne!(other.program, get(&Profile::Docker, 1 << 21).program);
        assert_ne!(other.program, filters.get(&Profile::Docker, 0, Denied::Report).unwrap().program);
        for n in 0..2 * MOST {
            get(&custom(&n.to_string()), 0);
            assert!(Arc::ptr_eq(&other, &get(&Profile::Docker, 0)), "what is used stays");
        }
        assert_eq!(filters.0.lock().unwrap().len(), MOST);
        assert!(!Arc::ptr_eq(&first, &get(&custom("a"), 0)), "what is not used goes");
    }

    #[test]
    fn nothing_to_install_for_unconfined() {
        assert!(Compiled::new(&Profile::Unconfined, 0, Denied::Answer).unwrap().program.is_empty());
    }
}
