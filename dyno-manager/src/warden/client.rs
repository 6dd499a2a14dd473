//! dynod's side: one connection per call under way, kept for the next. No thread waits for an answer: a wake-up costs as much as many a call.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream as StdTcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use dyno_runtime::Sandbox;
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    sync::Semaphore,
};
use uuid::Uuid;

use super::{Held, Launch, Reply, Request, Started, StdioFds, StreamKind, WardenError, wire};
use crate::model::Exit;

/// Starts at once for each processor.
const STARTS_PER_PROCESSOR: usize = 2;

/// dynod's side of the connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
    /// Starts under way at once. More would only contend for the kernel's locks: the last of a hundred is up no sooner, and the first later.
    starts: Semaphore,
}

impl Client {
    /// A client of the warden that listens on `socket`; it connects when it is first used, and again after the warden was replaced.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let at_once = std::thread::available_parallelism().map_or(2, usize::from) * STARTS_PER_PROCESSOR;
        Self(Arc::new(Inner { socket: socket.into(), idle: Mutex::default(), starts: Semaphore::new(at_once) }))
    }

    /// Starts a dyno; returns once the program's exec is done.
    ///
    /// # Errors
    /// The warden's refusal.
    pub async fn start(&self, launch: &Launch) -> Result<Started, WardenError> {
        let _place = self.0.starts.acquire().await.map_err(|e| WardenError::new("io", e.to_string()))?;
        self.call(Request::Start(Box::new(launch.clone()))).await.and_then(started)
    }

    /// Dynos that the warden holds, running or waiting to be freed.
    ///
    /// # Errors
    /// When the warden cannot be reached.
    pub async fn list(&self) -> Result<Vec<Held>, WardenError> {
        match self.call(Request::List).await? {
            (Reply::Held(held), _) => Ok(held),
            other => Err(unexpected(&other.0)),
        }
    }

    /// Takes up a dyno of [`Self::list`] again.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn open(&self, id: Uuid) -> Result<Started, WardenError> {
        self.call(Request::Open(id)).await.and_then(started)
    }

    /// Sends `signal` to every process of the dyno (SIGKILL ends it at once).
    ///
    /// # Errors
    /// For an unknown dyno or signal.
    pub async fn signal(&self, id: Uuid, signal: i32) -> Result<(), WardenError> {
        self.call(Request::Signal { id, signal }).await.map(drop)
    }

    /// An unconnected TCP socket inside the dyno's network namespace.
    ///
    /// # Errors
    /// For a dyno that has ended.
    pub async fn socket(&self, id: Uuid) -> Result<OwnedFd, WardenError> {
        let (reply, mut fds) = self.call(Request::Socket(id)).await?;
        fds.pop().ok_or_else(|| unexpected(&reply))
    }

    /// How an ended dyno ended. Its writable layer stays readable ([`dyno_runtime::Layer::UpperOf`]) until [`Self::free`].
    ///
    /// # Errors
    /// For an unknown dyno.
    pub async fn exit(&self, id: Uuid) -> Result<Exit, WardenError> {
        match self.call(Request::Exit(id)).await? {
            (Reply::Exit(exit), _) => Ok(exit),
            other => Err(unexpected(&other.0)),
        }
    }

    /// Frees everything of a dyno; kills it first if it runs. Freeing an unknown dyno succeeds.
    ///
    /// # Errors
    /// When something of it could not be removed.
    pub async fn free(&self, id: Uuid) -> Result<(), WardenError> {
        self.call(Request::Free(id)).await.map(drop)
    }

    /// Keeps `count` sandboxes like this ready for [`Self::start`], from now on; what cannot be kept ready is started as any other. A warden
    /// that comes after this one knows nothing of it.
    ///
    /// # Errors
    /// When it may not be started here either, or cannot wait.
    pub async fn park(&self, sandbox: Sandbox, count: usize) -> Result<(), WardenError> {
        self.call(Request::Park { sandbox: Box::new(sandbox), count }).await.map(drop)
    }

    /// Takes back every [`Self::park`], those of a former daemon too.
    ///
    /// # Errors
    /// When the warden cannot be reached.
    pub async fn park_none(&self) -> Result<(), WardenError> {
        self.call(Request::ParkNone).await.map(drop)
    }

    /// Ends every dyno and the warden itself; the host is then as before.
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn shutdown(&self) -> Result<(), WardenError> {
        self.call(Request::Shutdown).await.map(drop)
    }

    /// A TCP stream to `port` on the dyno's loopback.
    ///
    /// # Errors
    /// Of connect(2); ECONNREFUSED at once while nobody listens.
    pub async fn connect(&self, id: Uuid, port: u16) -> std::io::Result<TcpStream> {
        let socket = self.socket(id).await.map_err(std::io::Error::other)?;
        let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket));
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn call(&self, request: Request) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
        let inner = self.0.clone();
        // To its end, whatever becomes of the caller: an answer that nobody takes off its connection would be the next call's.
        let answer = tokio::spawn(async move { inner.exchange(&request).await }).await;
        let (reply, fds) = answer.map_err(|e| WardenError::new("io", e.to_string()))??;
        match reply {
            Reply::Failed(e) => Err(e),
            reply => Ok((reply, fds)),
        }
    }
}

impl Inner {
    async fn exchange(&self, request: &Request) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
        let frame = wire::frame(request).map_err(|e| WardenError::io("a request to the warden", &e))?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut stream) = kept
            && wire::send_later(&mut stream, &frame).await.is_ok()
        {
            // The warden may have gone between two calls. What it may have begun and must not do twice is not sent again.
            match wire::receive_later(&mut stream).await {
                Ok(Some(answer)) => return Ok(self.keep(stream, answer)),
                _ if matches!(request, Request::Start(_) | Request::Signal { .. } | Request::Shutdown) => {
                    return Err(WardenError::new("io", "the warden went away in the middle of a request"));
                }
                _ => {}
            }
        }
        let what = format!("the warden does not answer on {}; is it running?", self.socket.display());
        let failed = |e: std::io::Error| WardenError::io(&what, &e);
        let mut stream = UnixStream::connect(&self.socket).await.map_err(failed)?;
        wire::send_later(&mut stream, &frame).await.map_err(failed)?;
        let answer = wire::receive_later(&mut stream).await.map_err(failed)?;
        let answer = answer.ok_or_else(|| WardenError::new("io", format!("{what}: it closed the connection")))?;
        Ok(self.keep(stream, answer))
    }

    fn keep<T>(&self, stream: UnixStream, answer: T) -> T {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < 16 {
            idle.push(stream);
        }
        answer
    }
}

/// Whether a warden answers on `socket`. That a connection is taken says little: a child that was on its way to its exec when its
/// warden was killed keeps the socket for some milliseconds more.
pub fn answers(socket: &Path) -> bool {
    let ask = |stream: StdUnixStream| {
        wire::send(&stream, &Request::List, &[])?;
        wire::receive::<Reply>(&stream)
    };
    matches!(StdUnixStream::connect(socket).and_then(ask), Ok(Some(_)))
}

fn started((reply, fds): (Reply, Vec<OwnedFd>)) -> Result<Started, WardenError> {
    let Reply::Started { pid, streams, listeners, socket } = reply else { return Err(unexpected(&reply)) };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| WardenError::new("io", "the warden sent too few descriptors"));
    let pidfd = next()?;
    let stdio = match streams {
        StreamKind::Gone => StdioFds::Gone,
        StreamKind::Log => StdioFds::Log(next()?),
        StreamKind::Tty => StdioFds::Tty(next()?),
        StreamKind::Pipes => StdioFds::Pipes { stdin: next()?, stdout: next()?, stderr: next()? },
    };
    let listeners = (0..listeners).map(|_| next()).collect::<Result<_, _>>()?;
    let socket = socket.then(next).transpose()?;
    Ok(Started { pidfd, pid, stdio, listeners, socket })
}

fn unexpected(reply: &Reply) -> WardenError {
    WardenError::new("io", format!("the warden answered out of turn: {reply:?}"))
}
