//! The host's /dev/null. Peers with a user namespace give their streams to the user inside, by chown(2): for crun that is also the device that
//! it was started with. It is given back here.

use std::{fs, io, os::unix::fs::MetadataExt};

const PATH: &str = "/dev/null";

/// Whose it was. Dropped, it is theirs again.
pub struct NullDevice {
    owner: (u32, u32),
}

impl NullDevice {
    /// Looks.
    ///
    /// # Errors
    /// Of stat(2).
    pub fn remember() -> io::Result<Self> {
        Ok(Self { owner: owner()? })
    }
}

impl Drop for NullDevice {
    fn drop(&mut self) {
        let (uid, gid) = self.owner;
        let given_back = owner().and_then(|now| if now == self.owner { Ok(()) } else { std::os::unix::fs::chown(PATH, Some(uid), Some(gid)) });
        if let Err(e) = given_back {
            eprintln!("{PATH} belongs to another than before ({uid}:{gid}): {e}");
        }
    }
}

fn owner() -> io::Result<(u32, u32)> {
    fs::metadata(PATH).map(|about| (about.uid(), about.gid()))
}
