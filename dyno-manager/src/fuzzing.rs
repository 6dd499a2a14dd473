//! What must hold of whatever bytes others give us, one function per parser: what the fuzzers of `fuzz/` call, and the tests of this crate with the
//! seeds that lie there.
//!
//! A function takes bytes and panics if something does not hold; what it holds them against stands with the parser, in a module `fuzz` beside it.

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

use std::path::PathBuf;

macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident = $check:path;)*) => {
        $($(#[$attribute])* pub fn $name(bytes: &[u8]) { $check(bytes) })*

        /// Every seed, and what a few thousand mutations make of them.
        #[cfg(test)]
        mod replayed {
            $(#[test] fn $name() { super::replay::replay(stringify!($name), $check) })*
        }
    };
}

targets! {
    /// A request to the API: a line `METHOD PATH`, a line for `Range`, the body.
    api = crate::api::fuzz::request_bytes;
    /// Frames of an attached session.
    attach = crate::attach::fuzz;
    /// The first bytes that a build's clients send to the way out: `CONNECT`, absolute requests.
    egress = crate::build::egress::fuzz::requests;
    /// A host and a port, as a build asks for them.
    egress_policy = crate::build::egress::fuzz::policy;
    /// Records on a dyno's log FIFO.
    log_records = crate::logs::fuzz::records;
    /// Names and sizes.
    names = crate::model::fuzz::names;
    /// What a pack dyno writes.
    pack = crate::build::fuzz::pack;
    /// A Procfile.
    procfile = crate::model::fuzz::procfile;
    /// A buildpack's release.
    release_file = crate::build::fuzz::release_file;
    /// Bytes of a client's connection to the router, and what a dyno gets of them.
    router_request = crate::router::fuzz::request;
    /// Bytes of a dyno's connection to the router, and what a client gets of them.
    router_response = crate::router::fuzz::response;
    /// A squashfs image before it is kept.
    slug = crate::build::fuzz::slug;
    /// A source archive, tar or tar.gz.
    source = crate::build::fuzz::source;
    /// Frames of the warden's socket.
    warden = crate::warden::fuzz::frame;
}

/// One line, that says something, and not all that was given.
pub(crate) fn one_line(said: &str) {
    assert!(!said.is_empty() && said.len() < 8000 && !said.contains(char::is_control), "{said:?}");
}

/// A directory of this thread's own, below TMPDIR; gone with the thread.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dyno-fuzz-{name}-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).expect("a place for temporary files");
        Self(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).expect("it was made").next().is_none()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
