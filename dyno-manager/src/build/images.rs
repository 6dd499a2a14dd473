//! Images on disk: written under a draft name while they are hashed, then renamed to what they are.
//!
//! ```text
//! slugs/draft-…  ─▶ slugs/<sha256>.sqsh
//! cache/draft-…  ─▶ cache/<app id>.sqsh, with its hash in cache/<app id>.sha256
//! ```
//!
//! A slug appears whole or not at all. Of a cache the hash is removed first and written last, so a
//! kill in between loses a cache and never pairs an image with the hash of another.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Image, remove_if_there};

const DRAFT: &str = "draft-";

/// An image being written; its file goes when it is dropped before it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
}

/// An image written whole, still under its draft name.
#[derive(Debug)]
pub(super) struct Written {
    draft: Draft,
    pub sha256: String,
    pub size: u64,
}

impl Draft {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{DRAFT}{}", Uuid::new_v4()));
        let file = File::create_new(&path)?;
        Ok(Self { path, file, hash: Sha256::new(), size: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Makes the bytes durable.
    pub(super) fn finish(self) -> io::Result<Written> {
        // Other users of the host may mount it; nobody may change it.
        self.file.set_permissions(Permissions::from_mode(0o644))?;
        self.file.sync_all()?;
        let sha256 = self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { sha256, size: self.size, draft: self })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Already renamed, or to be found by the next start.
        drop(remove_if_there(&self.path));
    }
}

impl Written {
    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.draft.path, to)?;
        sync_folder(to)
    }

    /// Makes it the slug of its hash.
    pub(super) fn keep_as_slug(self, slugs: &Path) -> io::Result<()> {
        let to = slugs.join(format!("{}.sqsh", self.sha256));
        self.rename(&to)
    }
}

fn sync_folder(of: &Path) -> io::Result<()> {
    of.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// What a build left for the next one of the same app.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    image: PathBuf,
    hash: PathBuf,
}

impl Cache {
    pub(super) fn of(folder: &Path, app: Uuid) -> Self {
        Self { image: folder.join(format!("{app}.sqsh")), hash: folder.join(format!("{app}.sha256")) }
    }

    /// The image, if there is one with a hash.
    pub(super) fn find(&self) -> Option<Image> {
        let sha256 = fs::read_to_string(&self.hash).ok()?.trim().to_owned();
        let hex = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        (hex && self.image.is_file()).then(|| Image { path: self.image.clone(), sha256 })
    }

    pub(super) fn replace(&self, by: Written) -> io::Result<()> {
        remove_if_there(&self.hash)?;
        let sha256 = by.sha256.clone();
        by.rename(&self.image)?;
        fs::write(&self.hash, sha256 + "\n")
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        remove_if_there(&self.hash)?;
        remove_if_there(&self.image)
    }
}

/// Removes what a killed daemon was writing.
pub(super) fn remove_drafts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(DRAFT) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn written(folder: &Path, bytes: &[u8]) -> Written {
        let mut draft = Draft::create(folder).unwrap();
        draft.write(bytes).unwrap();
        draft.finish().unwrap()
    }

    #[test]
    fn a_slug_has_the_name_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for _ in 0..2 {
            let image = written(dir.path(), b"abc");
            assert_eq!((image.sha256.as_str(), image.size), (want, 3));
            image.keep_as_slug(dir.path()).unwrap();
            assert_eq!(names(dir.path()), [format!("{want}.sqsh")]);
        }
        let mode = fs::metadata(dir.path().join(format!("{want}.sqsh"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
    }

    #[test]
    fn drafts_vanish() {
        let dir = tempfile::tempdir().unwrap();
        drop(Draft::create(dir.path()).unwrap());
        drop(written(dir.path(), b"abc"));
        assert!(names(dir.path()).is_empty());
        fs::write(dir.path().join("draft-x"), "").unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        remove_drafts(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["other"]);
    }

    #[test]
    fn a_cache_is_found_only_with_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::of(dir.path(), Uuid::nil());
        assert_eq!(cache.find(), None);
        cache.remove().unwrap();
        for bytes in [b"one", b"two"] {
            let image = written(dir.path(), bytes);
            let sha256 = image.sha256.clone();
            cache.replace(image).unwrap();
            assert_eq!(cache.find().unwrap().sha256, sha256);
        }
        // Killed between the steps of a replacement.
        fs::remove_file(&cache.hash).unwrap();
        assert_eq!(cache.find(), None);
        fs::write(&cache.hash, "short\n").unwrap();
        assert_eq!(cache.find(), None);
        cache.remove().unwrap();
        assert!(names(dir.path()).is_empty());
    }
}
