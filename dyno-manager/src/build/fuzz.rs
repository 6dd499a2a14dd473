//! What must hold of what a build takes in: a source archive, and what a pack dyno writes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io::Read,
    path::{Component, Path, PathBuf},
};

use super::{
    Limits,
    pack::{Cached, receive},
    release_file::default_process_types,
    source::{Bounds, Summary, sanitize_within},
    superblock,
};
use crate::{
    fuzzing::{Folder, one_line},
    model::ConfigVars,
};

const BOUNDS: Bounds = Bounds { entries: 300, bytes: 1 << 20, ratio: 50, ratio_from: 1 << 16 };

/// What is accepted is the same when it is written as buildpacks write it.
pub(crate) fn release_file(bytes: &[u8]) {
    match default_process_types(bytes) {
        Ok(types) => {
            let quoted = |text: &str| text.replace('\'', "''");
            let lines: String = types.iter().map(|(name, command)| format!("  {name}: '{}'\n", quoted(command))).collect();
            let text = format!("default_process_types:\n{lines}");
            assert!(types.values().all(|command| !command.is_empty() && !command.contains(['\0', '\n'])), "{types:?}");
            assert_eq!(default_process_types(text.as_bytes()), Ok(types), "{text:?}");
        }
        Err(error) => one_line(&error),
    }
}

/// Nothing is left of what is refused; what is kept has a name and a hash of its own.
pub(crate) fn pack(bytes: &[u8]) {
    thread_local!(static PLACE: RefCell<Option<Folder>> = const { RefCell::new(None) });
    PLACE.with_borrow_mut(|place| {
        let folder = place.get_or_insert_with(|| Folder::new("pack"));
        let limits = Limits { slug_bytes: 8 << 10, cache_bytes: 4 << 10, ..Limits::default() };
        match receive(bytes, &limits, &folder.0, &folder.0) {
            Ok(packed) => {
                assert!(!packed.process_types.is_empty() && packed.slug.sha256.len() == 64);
                assert!(packed.slug.size <= limits.slug_bytes && packed.detected.chars().count() <= 80);
                assert!(!packed.detected.contains(char::is_control), "{:?}", packed.detected);
                if let Cached::Image(image) = &packed.cache {
                    assert!(image.size <= limits.cache_bytes);
                }
            }
            Err(error) => one_line(&error.to_string()),
        }
        assert!(folder.is_empty(), "files are left");
    });
}

/// An image as far as it is looked at: what passes is of a size, has its tables in it, and passes with as many bytes as it says and with no fewer.
pub(crate) fn slug(bytes: &[u8]) {
    let length = bytes.len() as u64;
    if let Err(error) = superblock::check(bytes, length) {
        return one_line(&error);
    }
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let used = long(40);
    assert!(used <= length && used > 96, "{used} of {length}");
    assert!([64, 72, 48].map(long).iter().all(|at| *at < used && *at >= 96), "a table outside");
    assert_eq!((superblock::check(&bytes[..96], used), superblock::check(bytes, used - 1).is_err()), (Ok(()), true));
}

/// What is let through is read by another reader: all of it lies beneath `app` or is a config var, no link leads out, nothing is written
/// through a link, and it is as much as was said. It can be let through again.
pub(crate) fn source(bytes: &[u8]) {
    let env = ConfigVars::default().with([("A_VAR".to_owned(), Some("its value".to_owned()))]).expect("a sound name");
    let mut clean = Vec::new();
    let result = sanitize_within(BOUNDS, bytes, &env, &mut clean);
    assert!(clean.len() as u64 <= BOUNDS.bytes * 2 + BOUNDS.entries as u64 * (3 * 512 + 2 * 4608), "{} bytes came out", clean.len());
    match result {
        Ok(summary) => hold(&clean, summary),
        Err(error) => one_line(&error.to_string()),
    }
}

fn hold(clean: &[u8], summary: Summary) {
    let (mut kinds, mut found, mut vars, mut longest) = (HashMap::new(), Summary::default(), BTreeMap::new(), 0);
    for entry in tar::Archive::new(clean).entries().expect("a tar") {
        let mut entry = entry.expect("a member");
        let (path, kind) = (entry.path().expect("a name").into_owned(), entry.header().entry_type());
        longest = longest.max(path.as_os_str().len());
        assert!(path.components().all(|c| matches!(c, Component::Normal(_))), "{path:?}");
        if let Ok(name) = path.strip_prefix("tmp/env") {
            let mut value = String::new();
            entry.read_to_string(&mut value).expect("its value");
            vars.insert(name.to_owned(), value);
            continue;
        }
        assert!(path.starts_with("app") && path != Path::new("app"), "{path:?}");
        for above in path.ancestors().skip(1) {
            assert!(!matches!(kinds.get(above), Some(tar::EntryType::Symlink | tar::EntryType::Regular)), "{path:?} goes through {above:?}");
        }
        match kind {
            tar::EntryType::Directory => {}
            tar::EntryType::Regular => {
                (found.files, found.bytes) = (found.files + 1, found.bytes + entry.size());
                assert!(matches!(entry.header().mode(), Ok(0o644 | 0o755)), "{path:?}");
            }
            tar::EntryType::Symlink => {
                found.files += 1;
                stays(&path, &entry.link_name().expect("a name").expect("a target"));
            }
            tar::EntryType::Link => {
                found.files += 1;
                let target = entry.link_name().expect("a name").expect("a target").into_owned();
                assert!(matches!(kinds.get(&target), Some(tar::EntryType::Regular | tar::EntryType::Link)), "{path:?} is {target:?}");
            }
            other => panic!("{path:?} is {other:?}"),
        }
        kinds.insert(path, kind);
    }
    assert_eq!(found, summary);
    assert_eq!(vars.remove(Path::new("A_VAR")).as_deref(), Some("its value"));
    assert!(vars.keys().all(|name| name.as_os_str().is_empty()), "{vars:?}");
    // `app/` before a name, and folders above what was in the way, may go over a bound.
    if longest < 4000 {
        let wider = Bounds { entries: BOUNDS.entries * 2, bytes: BOUNDS.bytes * 2, ..BOUNDS };
        let again = sanitize_within(wider, clean, &ConfigVars::default(), std::io::sink()).expect("what came out goes in");
        assert_eq!(again, Summary { files: summary.files + 1, bytes: summary.bytes + 9 });
    }
}

/// A link's target, taken from the folder that it is in, without a look at other links: it begins with all its `..`.
fn stays(path: &Path, target: &Path) {
    let mut at: Vec<PathBuf> = path.parent().expect("below app").components().map(|c| PathBuf::from(c.as_os_str())).collect();
    let mut named = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir => {
                assert!(!named && at.len() > 1, "{path:?} leads to {target:?}");
                at.pop();
            }
            other => panic!("{path:?} leads to {target:?}: {other:?}"),
        }
    }
}
