//! The one thread that owns the database connection.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::JoinHandle,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Result, StoreError};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Hands work to the thread; dropping it waits for the work already handed over.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It keeps `lock` open until the database is closed.
    pub(super) fn start(mut db: Connection, lock: File) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || {
            for job in queue {
                // The transaction rolled back while unwinding and its caller sees `Gone`; later calls are not to suffer.
                if catch_unwind(AssertUnwindSafe(|| job(&mut db))).is_err() {
                    tracing::error!("a store operation panicked and was rolled back");
                }
            }
            drop(db);
            drop(lock);
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `work` on the thread, also when the caller goes away meanwhile.
    pub(super) async fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |db| drop(answer.send(work(db))));
        let jobs = self.jobs.as_ref().ok_or(StoreError::Gone)?;
        jobs.send(job).map_err(|_| StoreError::Gone)?;
        wait.await.map_err(|_| StoreError::Gone)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
