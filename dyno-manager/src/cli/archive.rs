//! A directory as one gzipped tar: what `deploy` uploads.
//!
//! The same tree gives the same bytes: entries are sorted, owners and times are fixed, modes are 755 or 644.
//! `.git` and the `.dyno` file stay out; everything else goes in. `.slugignore` is the build's business, not
//! applied here, so that a build from any client ignores the same files.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    error::{CliError, Result},
    target,
};

/// 1980-01-02 00:00 UTC: zip files (Python wheels) cannot hold an earlier day, wherever they are made.
const MTIME: u64 = 315_619_200;
/// Bytes per piece of the upload.
const PIECE: usize = 64 * 1024;

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entries: Vec<Entry>,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Sockets, pipes and devices, which an archive of source has no place for.
    pub(super) skipped: Vec<PathBuf>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    what: What,
}

#[derive(Debug)]
enum What {
    Directory,
    File { size: u64, executable: bool },
    Link(PathBuf),
}

impl Tree {
    /// Lists everything under `root`, sorted by name in every directory, directories before what they hold.
    pub(super) fn scan(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.enter(root, Path::new(""))?;
        if tree.entries.is_empty() {
            return Err(CliError::new(format!("There is nothing to deploy in {}.", root.display())));
        }
        Ok(tree)
    }

    fn enter(&mut self, root: &Path, relative: &Path) -> Result<()> {
        let directory = root.join(relative);
        let fault = |e: io::Error| unreadable(&directory, &e);
        let mut found = fs::read_dir(&directory).map_err(fault)?.collect::<io::Result<Vec<_>>>().map_err(fault)?;
        found.sort_by_key(fs::DirEntry::file_name);
        for entry in found {
            let name = entry.file_name();
            let top = relative.as_os_str().is_empty();
            if name == ".git" || (top && name == target::FILE) {
                continue;
            }
            self.add(root, relative.join(name))?;
        }
        Ok(())
    }

    fn add(&mut self, root: &Path, path: PathBuf) -> Result<()> {
        let full = root.join(&path);
        let fault = |e: io::Error| unreadable(&full, &e);
        let found = fs::symlink_metadata(&full).map_err(fault)?;
        if found.is_dir() {
            self.entries.push(Entry { path: path.clone(), what: What::Directory });
            return self.enter(root, &path);
        }
        let what = if found.is_symlink() {
            What::Link(fs::read_link(&full).map_err(fault)?)
        } else if found.is_file() {
            self.bytes += found.len();
            What::File { size: found.len(), executable: found.mode() & 0o111 != 0 }
        } else {
            self.skipped.push(path);
            return Ok(());
        };
        self.entries.push(Entry { path, what });
        Ok(())
    }

    /// Writes the archive; `progress` is told the bytes of every file as they are read.
    pub(super) fn write<W: Write>(&self, root: &Path, out: W, progress: &mut dyn FnMut(u64)) -> Result<W> {
        let mut tar = tar::Builder::new(GzBuilder::new().mtime(0).write(out, Compression::default()));
        for entry in &self.entries {
            entry.append(root, &mut tar, progress)?;
        }
        let finished = tar.into_inner().and_then(flate2::write::GzEncoder::finish);
        finished.map_err(|e| CliError::new(format!("The archive could not be finished: {e}")))
    }
}

impl Entry {
    fn append(&self, root: &Path, tar: &mut tar::Builder<impl Write>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let full = root.join(&self.path);
        let fault = |e: io::Error| unreadable(&full, &e);
        let mut header = tar::Header::new_gnu();
        header.set_mtime(MTIME);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match &self.what {
            What::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                tar.append_data(&mut header, &self.path, io::empty()).map_err(fault)
            }
            What::Link(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, &self.path, to).map_err(fault)
            }
            What::File { size, executable } => {
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                let file = open(&full, *size).map_err(fault)?;
                let mut content = Exactly { inner: file, left: *size, progress };
                tar.append_data(&mut header, &self.path, &mut content).map_err(fault)
            }
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::new(format!("{} cannot be packed: {error}", path.display()))
}

/// The file that was listed: not a link put in its place since, and as long as it was.
fn open(path: &Path, size: u64) -> io::Result<fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() != size {
        return Err(io::Error::other("it changed while it was packed"));
    }
    Ok(file)
}

/// Reads as many bytes as the header of the entry promised, or fails: a file that grows or shrinks meanwhile
/// would shift everything behind it.
struct Exactly<'a> {
    inner: fs::File,
    left: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(io::Error::other("it became shorter while it was packed"));
        }
        self.left -= n as u64;
        (self.progress)(n as u64);
        Ok(n)
    }
}

/// The sending end of an upload: hashes and counts what goes through.
pub(super) struct Upload {
    queue: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    hash: Sha256,
    sent: u64,
}

impl Upload {
    /// Pieces go to `queue`.
    pub(super) fn new(queue: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { queue, piece: Vec::with_capacity(PIECE), hash: Sha256::new(), sent: 0 }
    }

    /// Sends the rest; the sha256 in hex and the number of all bytes.
    pub(super) fn finish(mut self) -> io::Result<(String, u64)> {
        self.flush()?;
        let hex = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((hex, self.sent))
    }
}

impl Write for Upload {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.hash.update(&piece);
        self.sent += piece.len() as u64;
        self.queue.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn pack(root: &Path) -> Vec<u8> {
        Tree::scan(root).unwrap().write(root, Vec::new(), &mut |_| ()).unwrap()
    }

    /// `mode type path [-> link] [bytes]` per entry.
    fn listing(archive: &[u8]) -> Vec<String> {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let show = |entry: io::Result<tar::Entry<'_, _>>| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (MTIME, 0, 0));
            let link = entry.link_name().unwrap().map(|to| format!(" -> {}", to.display())).unwrap_or_default();
            let path = entry.path().unwrap().display().to_string();
            format!("{:o} {path}{link} {}", header.mode().unwrap(), entry.size())
        };
        tar.entries().unwrap().map(show).collect()
    }

    fn plant(root: &Path, files: &[&str]) {
        for path in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
    }

    #[test]
    fn everything_goes_in_but_git_and_the_tie() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let long = "long/".repeat(30) + "name.txt";
        plant(root, &["Procfile", ".dyno", ".git/HEAD", "lib/.git", "lib/.dyno", "node_modules/a/b.js", "bin/x", &long]);
        fs::write(root.join(".slugignore"), "node_modules\n*.js\n").unwrap();
        fs::set_permissions(root.join("bin/x"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(root.join("Procfile"), fs::Permissions::from_mode(0o666)).unwrap();
        symlink("../bin/x", root.join("lib/x")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(root.join("s.sock")).unwrap();
        let tree = Tree::scan(root).unwrap();
        assert_eq!(tree.skipped, [PathBuf::from("s.sock")]);
        drop(socket);
        let got = listing(&pack(root));
        let want = [
            "644 .slugignore 18",
            "644 Procfile 8",
            "755 bin 0",
            "755 bin/x 1",
            "755 empty 0",
            "755 lib 0",
            "644 lib/.dyno 5",
            "777 lib/x -> ../bin/x 0",
            "755 long 0",
        ];
        assert_eq!(got[..want.len()], want);
        assert!(got.contains(&format!("644 {long} 8")), "{got:?}");
        assert!(got.contains(&"644 node_modules/a/b.js 4".to_owned()), "{got:?}");
        assert!(!got.iter().any(|line| line.contains(".git")), "{got:?}");
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let files = ["b", "a/c", "a/b", "a.txt", "z"];
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        plant(one.path(), &files);
        let mut other = files;
        other.reverse();
        plant(two.path(), &other);
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::open(two.path().join("b")).unwrap().set_modified(old).unwrap();
        assert_eq!(pack(one.path()), pack(two.path()));
        fs::write(two.path().join("z"), "Z").unwrap();
        assert_ne!(pack(one.path()), pack(two.path()));
    }

    #[test]
    fn a_tree_that_changes_meanwhile_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let check = |change: &dyn Fn(&Path), part: &str| {
            plant(root, &["a"]);
            let tree = Tree::scan(root).unwrap();
            change(&root.join("a"));
            let told = tree.write(root, Vec::new(), &mut |_| ()).unwrap_err().to_string();
            assert!(told.contains("/a cannot be packed") && told.contains(part), "{told}");
            drop(fs::remove_file(root.join("a")));
        };
        check(&|a| fs::write(a, "longer than before").unwrap(), "changed");
        check(&|a| fs::remove_file(a).unwrap(), "No such file");
        check(&|a| fs::remove_file(a).and_then(|()| symlink("/etc/passwd", a)).unwrap(), "symbolic links");
        let told = Tree::scan(root).unwrap_err().to_string();
        assert!(told.contains("nothing to deploy"), "{told}");
    }

    #[test]
    fn pieces_are_hashed_and_counted() {
        let (queue, mut pieces) = mpsc::channel(8);
        let mut upload = Upload::new(queue);
        upload.write_all(&vec![7; PIECE + 1]).unwrap();
        upload.write_all(b"end").unwrap();
        let (hex, sent) = upload.finish().unwrap();
        let mut all = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            all.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(sent, all.len() as u64);
        let want: String = Sha256::digest(&all).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, want);
    }
}
