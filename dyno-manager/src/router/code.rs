//! Heroku's H-codes: what each is called, which status the client gets and what its page says.

use http::StatusCode;

/// Why the router, not the app, ended an exchange. Names and descriptions as in Heroku's error code list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    H10,
    H11,
    H12,
    H13,
    H14,
    H15,
    H17,
    H18,
    H19,
    H20,
    H21,
    H24,
    H26,
    H27,
    H28,
    H80,
    H81,
}

impl Code {
    /// `desc` of the log line and the heading of the page.
    pub(super) fn desc(self) -> &'static str {
        match self {
            Self::H10 => "App crashed",
            Self::H11 => "Backlog too deep",
            Self::H12 => "Request timeout",
            Self::H13 => "Connection closed without response",
            Self::H14 => "No web processes running",
            Self::H15 => "Idle connection",
            Self::H17 => "Poorly formatted HTTP response",
            Self::H18 => "Server Request Interrupted",
            Self::H19 => "Backend connection timeout",
            Self::H20 => "App boot timeout",
            Self::H21 => "Backend connection refused",
            Self::H24 => "Forced close",
            Self::H26 => "Request Error",
            Self::H27 => "Client Request Interrupted",
            Self::H28 => "Client Connection Idle",
            Self::H80 => "Maintenance mode",
            Self::H81 => "Blank app",
        }
    }

    /// What stands before `code=`: which socket failed, where Heroku says so, and the level.
    pub(super) fn level(self) -> &'static str {
        match self {
            Self::H18 => "sock=backend at=error",
            Self::H27 => "sock=client at=warning",
            Self::H80 | Self::H81 => "at=info",
            _ => "at=error",
        }
    }

    /// `status` of the log line. When a response was already under way the client saw that one's status instead;
    /// Heroku logs 503 (or 499) all the same.
    pub(super) fn status(self) -> StatusCode {
        match self {
            // 499 is nginx's "client closed request"; the value is in range, so this cannot fail.
            Self::H27 | Self::H28 => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::H26 => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the page tells the visitor, and the owner what to do.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::H10 => "The app's web process ended or did not start. Its owner sees why with: dyno logs --tail",
            Self::H11 => "All of the app's dynos are busy. Try again soon; its owner can add dynos: dyno ps:scale web+1",
            Self::H12 => "The app took too long to answer. Its owner can find the slow request in: dyno logs",
            Self::H13 | Self::H17 | Self::H18 => "The app's answer was broken. Its owner sees more with: dyno logs",
            Self::H14 => "No web process is running. Its owner starts one with: dyno ps:scale web=1",
            Self::H15 | Self::H28 => "Nothing was sent for too long, so the connection was closed.",
            Self::H19 | Self::H21 => "The app's web process does not accept connections. Its owner sees more with: dyno ps",
            Self::H20 => "The app is still starting. Try again soon; its owner sees more with: dyno logs --tail",
            Self::H24 => "The router is shutting down. Try again.",
            Self::H26 => "The request was refused.",
            Self::H27 => "The request ended before it was complete.",
            Self::H80 => "The app is down for maintenance. Try again later; its owner ends it with: dyno maintenance:off",
            Self::H81 => "There is nothing here yet. Its owner deploys an app with: dyno deploy",
        }
    }
}
