//! The two streams a command writes to. Results go to standard output; what the command is doing and what
//! went wrong goes to standard error, so that a script can use the one and a person see the other.

use std::io::IsTerminal;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::error::{CliError, Result};

/// One of the two streams.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard output and standard error.
pub(super) struct Screen {
    /// Results.
    pub(super) out: Writer,
    /// Everything else.
    pub(super) err: Writer,
    /// Standard error is a terminal: lines may be redrawn.
    pub(super) live: bool,
    /// The action whose line is not ended yet.
    doing: Option<String>,
}

impl Screen {
    /// The process's own streams.
    pub(super) fn own() -> Self {
        let live = std::io::stderr().is_terminal();
        Self::new(Box::new(tokio::io::stdout()), Box::new(tokio::io::stderr()), live)
    }

    /// Any two streams.
    pub(super) fn new(out: Writer, err: Writer, live: bool) -> Self {
        Self { out, err, live, doing: None }
    }

    /// Writes `text` and a newline to standard output.
    pub(super) async fn say(&mut self, text: impl AsRef<str>) -> Result<()> {
        self.write(format!("{}\n", text.as_ref()).as_bytes()).await
    }

    /// Writes bytes to standard output as they are.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = async {
            self.out.write_all(bytes).await?;
            self.out.flush().await
        };
        written.await.map_err(|e| CliError::output(&e))
    }

    /// Writes to standard error.
    async fn mutter(&mut self, text: &str) {
        let written = async {
            self.err.write_all(text.as_bytes()).await?;
            self.err.flush().await
        };
        // Where standard error is closed there is no place left to say so; the exit status still tells.
        drop(written.await);
    }

    /// A line for people, on standard error.
    pub(super) async fn note(&mut self, text: impl AsRef<str>) {
        self.mutter(&format!("{}\n", text.as_ref())).await;
    }

    /// Opens the line of an action: `Scaling dynos... `.
    pub(super) async fn begin(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.mutter(&format!("{what}... ")).await;
        self.doing = Some(what);
    }

    /// Redraws the open line with how far the action is; does nothing where lines cannot be redrawn.
    pub(super) async fn meanwhile(&mut self, word: &str) {
        if let (true, Some(what)) = (self.live, &self.doing) {
            let line = format!("\r{what}... {word}\x1b[K");
            self.mutter(&line).await;
        }
    }

    /// Ends the open line: `done, v5`.
    pub(super) async fn done(&mut self, how: impl AsRef<str>) {
        let how = how.as_ref();
        let line = match self.doing.take() {
            Some(what) if self.live => format!("\r{what}... {how}\x1b[K\n"),
            _ => format!("{how}\n"),
        };
        self.mutter(&line).await;
    }

    /// Ends the open line, if any, as failed and tells the error.
    pub(super) async fn fail(&mut self, error: &CliError) {
        let ending = if self.doing.take().is_some() { "!\n" } else { "" };
        self.mutter(&format!("{ending}{error}")).await;
    }
}
