//! The router's log line: one per exchange of a known app, in Heroku's format.
//!
//! A [`Ticket`] travels with its exchange: from the handler into the response body or the spliced connection. Whoever
//! ends the exchange finishes the ticket. A ticket that is dropped open means that the server connection was torn down
//! under the exchange, so the client went away: that is how H27 is seen.

use std::{fmt::Write, sync::Arc};

use http::{Method, StatusCode};
use tokio::time::Instant;
use uuid::Uuid;

use crate::model::DynoName;

use super::{client::Client, code::Code};

/// Receives the finished lines.
pub(super) type Log = Arc<dyn Fn(Uuid, String) + Send + Sync>;

/// Longest path, host or forwarded chain in a line, bytes: a line must not exceed what the log stream takes whole.
const LONGEST_FIELD: usize = 2048;

/// What is known of one exchange so far.
pub(super) struct Ticket {
    pub(super) app_id: Uuid,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) request_id: String,
    pub(super) fwd: String,
    pub(super) dyno: Option<DynoName>,
    /// Milliseconds that it took to get a connection, once one was tried.
    pub(super) connect_ms: Option<u128>,
    /// When the dyno got the request.
    pub(super) service_from: Option<Instant>,
    /// The dyno's own answer.
    pub(super) status: StatusCode,
    /// Body bytes from the dyno.
    pub(super) bytes: u64,
    pub(super) client: Arc<Client>,
    pub(super) log: Log,
    pub(super) open: bool,
}

impl Ticket {
    /// The exchange ended well.
    pub(super) fn finish(&mut self) {
        let status = self.status.as_u16();
        self.write("at=info".into(), status);
    }

    /// The router ended the exchange, or found it broken.
    pub(super) fn fault(&mut self, code: Code) {
        let head = format!("{} code={code:?} desc=\"{}\"", code.level(), code.desc());
        self.write(head, code.status().as_u16());
    }

    /// The router refused the request: H26 with its cause in words.
    pub(super) fn refuse(&mut self, status: StatusCode, cause: &str) {
        let code = Code::H26;
        let head = format!("{} code={code:?} desc=\"{}\" cause=\"{cause}\"", code.level(), code.desc());
        self.write(head, status.as_u16());
    }

    fn write(&mut self, head: String, status: u16) {
        if std::mem::take(&mut self.open) {
            (self.log)(self.app_id, self.line(head, status));
        }
    }

    fn line(&self, mut line: String, status: u16) -> String {
        let dyno = self.dyno.as_ref().map(ToString::to_string).unwrap_or_default();
        let ms = |n: Option<u128>| n.map(|n| format!("{n}ms")).unwrap_or_default();
        let bytes = self.service_from.map(|_| self.bytes.to_string()).unwrap_or_default();
        let written = write!(
            line,
            " method={} path=\"{}\" host={} request_id={} fwd=\"{}\" dyno={dyno} connect={} service={} status={status} \
             bytes={bytes} protocol=http",
            self.method,
            plain(&self.path),
            plain(&self.host),
            self.request_id,
            plain(&self.fwd),
            ms(self.connect_ms),
            ms(self.service_from.map(|t| t.elapsed().as_millis())),
        );
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        line
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.fault(self.client.parting());
        }
    }
}

/// Text from a request that cannot break out of its field: quotes, control and non-ASCII bytes are percent-encoded.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if out.len() >= LONGEST_FIELD {
            out.push_str("...");
            break;
        }
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::tests::shape;
    use super::*;

    fn ticket(lines: &Arc<Mutex<Vec<String>>>) -> Ticket {
        let lines = lines.clone();
        Ticket {
            app_id: Uuid::nil(),
            method: Method::GET,
            path: "/".into(),
            host: "h".into(),
            request_id: Uuid::nil().to_string(),
            fwd: "1.2.3.4".into(),
            dyno: None,
            connect_ms: None,
            service_from: None,
            status: StatusCode::OK,
            bytes: 13,
            client: Arc::default(),
            log: Arc::new(move |_, line| lines.lock().unwrap().push(line)),
            open: true,
        }
    }

    fn check(end: impl FnOnce(&mut Ticket), want: &str) {
        let lines = Arc::default();
        let mut ticket = ticket(&lines);
        end(&mut ticket);
        drop(ticket);
        let lines = lines.lock().unwrap();
        assert_eq!(lines.iter().map(|line| shape(line)).collect::<Vec<_>>(), [want]);
    }

    #[test]
    fn lines_have_herokus_format() {
        let served = |t: &mut Ticket| {
            t.dyno = "web.1".parse().ok();
            t.connect_ms = Some(1);
            t.service_from = Some(Instant::now());
        };
        let middle = "method=GET path=\"/\" host=h request_id=ID fwd=\"1.2.3.4\"";
        check(
            |t| {
                served(t);
                t.finish();
            },
            &format!("at=info {middle} dyno=web.1 connect=Nms service=Nms status=200 bytes=13 protocol=http"),
        );
        check(
            |t| {
                served(t);
                t.bytes = 0;
                t.fault(Code::H18);
            },
            &format!(
                "sock=backend at=error code=H18 desc=\"Server Request Interrupted\" {middle} \
                 dyno=web.1 connect=Nms service=Nms status=503 bytes=0 protocol=http"
            ),
        );
        check(
            |t| t.fault(Code::H14),
            &format!(
                "at=error code=H14 desc=\"No web processes running\" {middle} \
                 dyno= connect= service= status=503 bytes= protocol=http"
            ),
        );
        check(
            |_| (),
            &format!(
                "sock=client at=warning code=H27 desc=\"Client Request Interrupted\" {middle} \
                 dyno= connect= service= status=499 bytes= protocol=http"
            ),
        );
    }

    #[test]
    fn fields_cannot_forge_other_fields() {
        assert_eq!(plain("/a\" code=H10 \"\n\u{e4}"), "/a%22 code=H10 %22%0A%C3%A4");
        assert!(plain(&"x".repeat(10_000)).len() < 2100);
    }
}
