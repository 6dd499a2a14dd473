//! Log sessions: a short-lived address under which a log can be read without the token.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::Either, stream};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Error, Platform, secret};
use crate::{
    logs::{Filter, Source},
    model::{App, Invalid},
};

/// A session can be opened for this long (Heroku: five minutes).
const LIFETIME: Duration = Duration::from_secs(300);
/// Lines given if none are asked for.
const DEFAULT_LINES: usize = 100;
/// Lines that are kept of an app.
const MAX_LINES: usize = 1500;

/// What is to be read.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// `web.1` or `web`.
    pub dyno: Option<String>,
    /// `app` or `heroku`.
    pub source: Option<String>,
    /// Kept lines to begin with.
    pub lines: Option<usize>,
    /// Goes on with what follows.
    pub tail: bool,
}

/// A session that can be opened now.
#[derive(Debug, Clone)]
pub struct LogSession {
    /// The secret part of its address.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Wanted {
    app_id: Uuid,
    filter: Filter,
    lines: usize,
    tail: bool,
    until: Instant,
}

/// Sessions that can be opened.
#[derive(Debug, Default)]
pub(super) struct LogSessions(Mutex<HashMap<String, Wanted>>);

impl LogSessions {
    /// The table without what has expired.
    fn live(&self) -> MutexGuard<'_, HashMap<String, Wanted>> {
        let mut sessions = self.0.lock().expect("no panic happens under this lock");
        let now = Instant::now();
        sessions.retain(|_, wanted| wanted.until > now);
        sessions
    }
}

impl Platform {
    /// Makes a session.
    ///
    /// # Errors
    /// An unknown source.
    pub fn create_log_session(&self, app: &App, request: LogRequest) -> Result<LogSession, Error> {
        let source = match request.source.as_deref() {
            None => None,
            Some("app") => Some(Source::App),
            Some("heroku") => Some(Source::Platform),
            Some(other) => return Err(Invalid::new("log source", other, "must be app or heroku").into()),
        };
        let wanted = Wanted {
            app_id: app.id,
            filter: Filter { ps: request.dyno, source },
            lines: request.lines.unwrap_or(DEFAULT_LINES).min(MAX_LINES),
            tail: request.tail,
            until: Instant::now() + LIFETIME,
        };
        let id = secret();
        self.sessions.live().insert(id.clone(), wanted);
        Ok(LogSession { id, created_at: Timestamp::now() })
    }

    /// Opens a session: its lines, each with its newline.
    ///
    /// # Errors
    /// Not found: never made, or expired.
    pub fn read_log(&self, session: &str) -> Result<impl Stream<Item = String> + Send + 'static, Error> {
        let wanted = self.sessions.live().get(session).cloned();
        let wanted = wanted.ok_or_else(|| Error::not_found("log session", "expired or unknown"))?;
        let lines = if wanted.tail {
            Either::Left(self.logs.tail(wanted.app_id, wanted.filter, wanted.lines))
        } else {
            Either::Right(stream::iter(self.logs.snapshot(wanted.app_id, &wanted.filter, wanted.lines)))
        };
        Ok(lines.map(|line| format!("{line}\n")))
    }
}
