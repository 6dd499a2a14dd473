//! Telling whoever started a process that it is ready: a line on stdout for a terminal or a parent, and systemd's word
//! (sd_notify(3), `Type=notify`) where `NOTIFY_SOCKET` asks for it.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The way to whoever waits for the word.
#[derive(Debug, Default)]
pub(crate) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Finds systemd's socket. Connected while every socket can be reached: a name in the abstract namespace cannot be from behind the daemon's walls.
    pub fn connect() -> Self {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        match connect(&socket) {
            Ok(connected) => Self(Some(connected)),
            Err(e) => {
                tracing::warn!(%e, ?socket, "NOTIFY_SOCKET");
                Self::default()
            }
        }
    }

    /// Says `ready`. That nobody listens is no reason to end.
    pub fn say(&self) {
        if let Err(e) = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush()) {
            tracing::debug!(%e, "nobody waits for the word");
        }
        if let Some(socket) = &self.0
            && let Err(e) = socket.send(b"READY=1")
        {
            tracing::warn!(%e, "NOTIFY_SOCKET");
        }
    }
}

/// A name that begins with `@` is in the abstract namespace.
fn connect(socket: &OsStr) -> io::Result<UnixDatagram> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let connected = UnixDatagram::unbound()?;
    connected.connect_addr(&address)?;
    Ok(connected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("dyno-ready-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let abstractly = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, given) in [(at_path, path.into_os_string()), (abstractly, format!("@{name}").into())] {
            Notifier(Some(connect(&given).unwrap())).say();
            let mut word = [0; 16];
            let n = socket.recv(&mut word).unwrap();
            assert_eq!(&word[..n], b"READY=1", "{given:?}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error_and_no_panic() {
        assert!(connect(OsStr::new("/nonexistent/notify")).is_err());
    }
}
