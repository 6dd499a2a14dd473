//! Source archives between their upload and the build that uses them.
//!
//! ```text
//!   create ──▶ empty ──upload──▶ receiving ──all bytes──▶ full ──take──▶ (the build's)
//!                ▲                   │                      │
//!                └───── broken off ──┘                      └── an hour old ──▶ removed
//! ```
//! The id is 128 random bits: whoever holds it may upload, as with the signed URLs of an object store.
//! Nothing is remembered over a restart of the daemon; what lies in the directory then is removed.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Error, secret};

/// Longest archive that is taken, bytes.
pub const MAX_SOURCE: u64 = 1 << 30;
/// Sources that may exist at once.
const MAX_HELD: usize = 64;
/// A source that no build has used by then is removed.
const LIFETIME: Duration = Duration::from_secs(3600);

/// All sources that are held.
#[derive(Debug)]
pub struct Sources {
    dir: PathBuf,
    held: Mutex<HashMap<String, State>>,
}

#[derive(Debug, Clone)]
enum State {
    Empty,
    Receiving,
    Full { sha256: String },
}

/// An archive as received.
#[derive(Debug)]
pub struct Source {
    /// Where it is; whoever holds this value removes the file.
    pub path: PathBuf,
    /// Lowercase hex.
    pub sha256: String,
}

impl Sources {
    /// Takes `dir` (made if missing, mode 0700) and empties it.
    ///
    /// # Errors
    /// The directory cannot be made or emptied.
    pub fn open(dir: &Path) -> io::Result<Arc<Self>> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for entry in std::fs::read_dir(dir)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(Arc::new(Self { dir: dir.to_owned(), held: Mutex::default() }))
    }

    /// A new, empty source; gives its id.
    ///
    /// # Errors
    /// Conflict while too many are held.
    pub fn create(self: &Arc<Self>) -> Result<String, Error> {
        let id = secret();
        let mut held = self.lock();
        if held.len() >= MAX_HELD {
            return Err(Error::Conflict(format!("{MAX_HELD} sources wait for a build; try again later")));
        }
        held.insert(id.clone(), State::Empty);
        drop(held);
        tokio::spawn(expire(Arc::downgrade(self), id.clone()));
        Ok(id)
    }

    /// Starts the upload of a source.
    ///
    /// # Errors
    /// Not found, conflict (already uploaded), or the file cannot be made.
    pub async fn upload(self: &Arc<Self>, id: &str) -> Result<Upload, Error> {
        match self.lock().get_mut(id) {
            None => return Err(Error::not_found("source", id)),
            Some(state @ State::Empty) => *state = State::Receiving,
            Some(_) => return Err(Error::Conflict("this source has been uploaded; make another with POST /sources".into())),
        }
        // From here on the drop of `upload` undoes the change of state.
        let mut upload = Upload { sources: self.clone(), id: id.to_owned(), file: None, hash: Sha256::new(), size: 0, done: false };
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        upload.file = Some(options.open(self.path(id)).await.map_err(Error::internal)?);
        Ok(upload)
    }

    /// The sha256 of an uploaded source, lowercase hex.
    ///
    /// # Errors
    /// Not found, or nothing has been uploaded.
    pub fn sha256(&self, id: &str) -> Result<String, Error> {
        match self.lock().get(id) {
            None => Err(Error::not_found("source", id)),
            Some(State::Full { sha256 }) => Ok(sha256.clone()),
            Some(_) => Err(Error::Conflict("nothing has been uploaded to this source yet; PUT the archive first".into())),
        }
    }

    /// Hands the file of an uploaded source to a build; whoever takes it removes it.
    ///
    /// # Errors
    /// Not found, or nothing has been uploaded.
    pub fn take(&self, id: &str) -> Result<Source, Error> {
        let sha256 = self.sha256(id)?;
        self.lock().remove(id).ok_or_else(|| Error::not_found("source", id))?;
        Ok(Source { path: self.path(id), sha256 })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, State>> {
        self.held.lock().expect("no panic happens under this lock")
    }
}

async fn expire(sources: Weak<Sources>, id: String) {
    tokio::time::sleep(LIFETIME).await;
    let Some(sources) = sources.upgrade() else { return };
    // An upload that is still under way removes its own file when it finds itself forgotten.
    if let Some(State::Full { .. }) = sources.lock().remove(&id) {
        remove(&sources.path(&id));
    }
}

/// Removes a file; one that is gone already is fine.
pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a source archive stays behind");
    }
}

/// An upload under way. Dropped before [`Self::finish`], it leaves the source empty again.
#[derive(Debug)]
pub struct Upload {
    sources: Arc<Sources>,
    id: String,
    file: Option<tokio::fs::File>,
    hash: Sha256,
    size: u64,
    done: bool,
}

impl Upload {
    /// Appends bytes.
    ///
    /// # Errors
    /// Too large, or the disk refuses.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if self.size > MAX_SOURCE {
            return Err(Error::TooLarge(format!("the source archive is over the limit of {MAX_SOURCE} bytes")));
        }
        self.hash.update(bytes);
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).await.map_err(Error::internal)
    }

    /// All bytes are there.
    ///
    /// # Errors
    /// The disk refuses, the archive is empty, or the source has expired meanwhile.
    pub async fn finish(mut self) -> Result<(), Error> {
        if self.size == 0 {
            return Err(Error::BadRequest("the source archive is empty".into()));
        }
        if let Some(mut file) = self.file.take() {
            file.flush().await.map_err(Error::internal)?;
        }
        let sha256 = hex(&self.hash.finalize_reset());
        match self.sources.lock().get_mut(&self.id) {
            Some(state) => *state = State::Full { sha256 },
            None => return Err(Error::not_found("source", &self.id)),
        }
        self.done = true;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        remove(&self.sources.path(&self.id));
        if let Some(state) = self.sources.lock().get_mut(&self.id) {
            *state = State::Empty;
        }
    }
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[tokio::test]
    async fn an_upload_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("left-over"), "x").unwrap();
        let sources = Sources::open(dir.path()).unwrap();
        assert_eq!(files(dir.path()), 0, "left-overs of a former daemon are removed");

        let id = sources.create().unwrap();
        assert!(matches!(sources.take(&id), Err(Error::Conflict(_))), "nothing uploaded yet");
        let mut broken = sources.upload(&id).await.unwrap();
        broken.write(b"half").await.unwrap();
        assert!(matches!(sources.upload(&id).await, Err(Error::Conflict(_))), "one upload at a time");
        drop(broken);
        assert_eq!(files(dir.path()), 0);

        let mut upload = sources.upload(&id).await.unwrap();
        upload.write(b"ab").await.unwrap();
        upload.write(b"c").await.unwrap();
        upload.finish().await.unwrap();
        let source = sources.take(&id).unwrap();
        assert_eq!(source.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read(&source.path).unwrap(), b"abc");
        assert!(matches!(sources.take(&id), Err(Error::NotFound { .. })), "a source serves one build");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_source_goes_after_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(dir.path()).unwrap();
        let id = sources.create().unwrap();
        let mut upload = sources.upload(&id).await.unwrap();
        upload.write(b"abc").await.unwrap();
        upload.finish().await.unwrap();
        tokio::time::sleep(LIFETIME + Duration::from_secs(1)).await;
        assert!(matches!(sources.take(&id), Err(Error::NotFound { .. })));
        assert_eq!(files(dir.path()), 0);
    }
}
