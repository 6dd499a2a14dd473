//! Why an operation was refused, in terms that every front end can show.

use crate::model::Invalid;

/// A refusal. The text is one line for people; the variant is for programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404: no such thing, or none that this app owns.
    #[error("Couldn't find that {what} ({name}).{hint}")]
    NotFound {
        /// `app`, `release`, `process type`.
        what: &'static str,
        /// As the client named it, cut to 120 characters.
        name: String,
        /// Empty, or a sentence that names the choices (starts with a space).
        hint: String,
    },
    /// 422: understood, but a rule of the model forbids it.
    #[error("{0}")]
    Invalid(String),
    /// 409: forbidden by the state that things are in now.
    #[error("{0}")]
    Conflict(String),
    /// 400: not understood.
    #[error("{0}")]
    BadRequest(String),
    /// 413: larger than the platform takes.
    #[error("{0}")]
    TooLarge(String),
    /// 401: no token, or a wrong one.
    #[error("Invalid credentials provided.")]
    Unauthorized,
    /// 500: the platform's own fault. The cause goes to the daemon's log, not to the client.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

impl Error {
    /// A missing thing, by the name that the client used.
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        let name: String = name.to_string().chars().take(120).collect();
        Self::NotFound { what, name, hint: String::new() }
    }

    /// A missing process type; the known ones are named.
    pub fn no_process_type<'a>(name: impl ToString, known: impl Iterator<Item = &'a str>) -> Self {
        let known: Vec<_> = known.collect();
        let hint = match known.as_slice() {
            [] => " The app has no process types yet: deploy it first.".to_owned(),
            known => format!(" Process types are {}.", known.join(", ")),
        };
        let name: String = name.to_string().chars().take(120).collect();
        Self::NotFound { what: "process type", name, hint }
    }

    /// A fault of the platform itself.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }
}

impl From<Invalid> for Error {
    fn from(e: Invalid) -> Self {
        Self::Invalid(e.to_string())
    }
}
