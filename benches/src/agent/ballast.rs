//! What makes a process large: memory, threads, descriptors. A start must not cost more for it.

use std::{fs::File, sync::mpsc, thread::JoinHandle};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// How large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballast {
    /// Resident memory.
    pub bytes: usize,
    /// Threads that sleep.
    pub threads: usize,
    /// Open files.
    pub files: usize,
}

/// It is carried as long as this lives.
#[derive(Debug)]
pub struct Carried {
    _memory: Vec<u8>,
    _files: Vec<File>,
    awake: Option<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Ballast {
    /// A manager of thousands.
    pub const LARGE: Self = Self { bytes: 4 << 30, threads: 100, files: 5000 };

    /// Takes it on.
    ///
    /// # Errors
    /// When the host does not have it.
    pub fn take(&self) -> Result<Carried> {
        let limit = getrlimit(Resource::Nofile);
        let files = self.files as u64 + 1024;
        if limit.current.is_some_and(|most| most < files) {
            setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum.map(|most| most.max(files)) })
                .context("setrlimit(NOFILE)")?;
        }
        let files = (0..self.files).map(|_| File::open("/dev/null")).collect::<std::io::Result<_>>().context("open /dev/null")?;
        let (awake, asleep) = mpsc::channel::<()>();
        let asleep = std::sync::Arc::new(std::sync::Mutex::new(asleep));
        // They wait for each other and for the end of the channel: neither takes any processor time.
        let sleep = move || drop(asleep.lock().map(|end| end.recv()));
        let threads =
            (0..self.threads).map(|_| std::thread::Builder::new().spawn(sleep.clone())).collect::<std::io::Result<_>>().context("threads")?;
        // Not zeros, which the kernel would not back with memory.
        Ok(Carried { _memory: vec![1; self.bytes], _files: files, awake: Some(awake), threads })
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.awake = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("dyno-bench: a sleeping thread panicked");
            }
        }
    }
}
