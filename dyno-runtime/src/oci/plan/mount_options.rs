//! Options of a mount, as in fstab, and those that the specification adds (config.md, Linux mount options).

use rustix::mount::MountPropagationFlags as Propagation;

/// MOUNT_ATTR_… (linux/mount.h).
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// All of the access times; none of its bits is `relatime`.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// What one option says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Sets this attribute.
    Set(u64),
    /// Clears this attribute.
    Clear(u64),
    /// Which access times are written: the bits among [`attr::ATIME`].
    Times(u64),
    /// Where mounts and unmounts spread to.
    Propagation(u64),
    /// A tree of the host's; with the mounts below it.
    Bind(bool),
    /// What is below is copied up.
    CopyUp,
    /// Ids are shifted; with the mounts below.
    IdMap(bool),
    /// Nothing here: the default, or what a first mount has no use for.
    Nothing,
}

/// Attributes to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

impl Attributes {
    /// Of contradicting options the later one holds, as with mount(8).
    pub fn apply(&mut self, meaning: Meaning) {
        match meaning {
            Meaning::Set(bits) => {
                self.set |= bits;
                self.clear &= !bits;
            }
            Meaning::Clear(bits) => {
                self.clear |= bits;
                self.set &= !bits;
            }
            // mount_setattr(2) takes the access times only all together.
            Meaning::Times(bits) => {
                self.set = self.set & !attr::ATIME | bits;
                self.clear |= attr::ATIME;
            }
            _ => {}
        }
    }
}

/// The meaning of an option of this mount and, for `rro` and so on, whether it is for the mounts below too; `None` if it is the file
/// system's.
pub fn meaning(option: &str) -> Option<(Meaning, bool)> {
    if let Some(meaning) = attribute(option).or_else(|| other(option)) {
        return Some((meaning, false));
    }
    option.strip_prefix('r').and_then(attribute).map(|meaning| (meaning, true))
}

/// Those that have a recursive twin, by their plain names.
fn attribute(option: &str) -> Option<Meaning> {
    Some(match option {
        "ro" => Meaning::Set(attr::RDONLY),
        "rw" => Meaning::Clear(attr::RDONLY),
        "nosuid" => Meaning::Set(attr::NOSUID),
        "suid" => Meaning::Clear(attr::NOSUID),
        "nodev" => Meaning::Set(attr::NODEV),
        "dev" => Meaning::Clear(attr::NODEV),
        "noexec" => Meaning::Set(attr::NOEXEC),
        "exec" => Meaning::Clear(attr::NOEXEC),
        "nosymfollow" => Meaning::Set(attr::NOSYMFOLLOW),
        "symfollow" => Meaning::Clear(attr::NOSYMFOLLOW),
        "nodiratime" => Meaning::Set(attr::NODIRATIME),
        "diratime" => Meaning::Clear(attr::NODIRATIME),
        "noatime" => Meaning::Times(attr::NOATIME),
        "strictatime" => Meaning::Times(attr::STRICTATIME),
        // Without any of the others the kernel writes relative times.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => Meaning::Times(0),
        _ => return None,
    })
}

fn other(option: &str) -> Option<Meaning> {
    let spread = |flag: Propagation| Meaning::Propagation(u64::from(flag.bits()));
    let recursive = Propagation::REC;
    Some(match option {
        "shared" => spread(Propagation::SHARED),
        "slave" => spread(Propagation::DOWNSTREAM),
        "private" => spread(Propagation::PRIVATE),
        "unbindable" => spread(Propagation::UNBINDABLE),
        "rshared" => spread(Propagation::SHARED | recursive),
        "rslave" => spread(Propagation::DOWNSTREAM | recursive),
        "rprivate" => spread(Propagation::PRIVATE | recursive),
        "runbindable" => spread(Propagation::UNBINDABLE | recursive),
        "bind" => Meaning::Bind(false),
        "rbind" => Meaning::Bind(true),
        "tmpcopyup" => Meaning::CopyUp,
        "idmap" => Meaning::IdMap(false),
        "ridmap" => Meaning::IdMap(true),
        // `mand` has no effect since Linux 5.15; `silent` and `loud` only say what the kernel logs; `iversion` is the file system's
        // own business since 4.17; `remount` of what is not mounted yet is a first mount.
        "defaults" | "remount" | "mand" | "nomand" | "silent" | "loud" | "iversion" | "noiversion" => Meaning::Nothing,
        _ => return None,
    })
}

/// The propagation that an option of `linux.rootfsPropagation` names.
pub fn propagation(name: &str) -> Option<u64> {
    match other(name) {
        Some(Meaning::Propagation(flags)) => Some(flags),
        _ => None,
    }
}

/// All options of a name of their own, for `features`: those of the specification that are known here.
pub const KNOWN: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_option_means_something() {
        // These five are told to the file system (fsconfig(2), FSCONFIG_SET_FLAG).
        let of_the_file_system = ["async", "dirsync", "lazytime", "nolazytime", "sync"];
        for option in KNOWN {
            assert_eq!(meaning(option).is_none(), of_the_file_system.contains(option), "{option}");
        }
        assert_eq!(meaning("size=1m"), None);
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn recursive_ones_are_told_apart() {
        let check = |option: &str, is: (Meaning, bool)| assert_eq!(meaning(option), Some(is), "{option}");
        check("ro", (Meaning::Set(attr::RDONLY), false));
        check("rro", (Meaning::Set(attr::RDONLY), true));
        check("rrw", (Meaning::Clear(attr::RDONLY), true));
        check("relatime", (Meaning::Times(0), false));
        check("rrelatime", (Meaning::Times(0), true));
        check("rbind", (Meaning::Bind(true), false));
        check("rprivate", (Meaning::Propagation(libc::MS_PRIVATE | libc::MS_REC), false));
        check("rslave", (Meaning::Propagation(libc::MS_SLAVE | libc::MS_REC), false));
    }

    #[test]
    fn the_later_option_holds() {
        let check = |options: &[&str], set: u64, clear: u64| {
            let mut all = Attributes::default();
            options.iter().for_each(|o| all.apply(meaning(o).unwrap().0));
            assert_eq!(all, Attributes { set, clear }, "{options:?}");
        };
        check(&["ro", "rw"], 0, attr::RDONLY);
        check(&["rw", "ro"], attr::RDONLY, 0);
        check(&["noatime", "strictatime"], attr::STRICTATIME, attr::ATIME);
        check(&["strictatime", "relatime"], 0, attr::ATIME);
        check(&["nosuid", "noexec", "nodev"], attr::NOSUID | attr::NOEXEC | attr::NODEV, 0);
    }
}
