//! A reader of HTTP/1.1 that takes no liberties (RFC 9112): what it takes, every reader takes for the same.

/// What a message came to.
#[derive(Debug)]
pub(super) enum Read {
    /// Its end has not come.
    Incomplete,
    /// It ends here. Names in lower case.
    Whole { length: usize, fields: Vec<(String, String)> },
    /// A response that ends with the connection.
    UntilClose,
}

/// Reads the message that `bytes` begin with; `no_body` if it answers a HEAD.
///
/// # Errors
/// What a reader could take in two ways.
pub(super) fn message(bytes: &[u8], no_body: bool) -> Result<Read, String> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(Read::Incomplete) };
    let head = std::str::from_utf8(&bytes[..end]).map_or_else(|_| bytes[..end].iter().map(|b| char::from(*b)).collect(), str::to_owned);
    if head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a line that is broken otherwise".into());
    }
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let bodiless = no_body | start(first)?;
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    let body = &bytes[end + 4..];
    let length = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        _ if bodiless => Some(0),
        (["chunked"], []) => chunks(body)?,
        ([], [digits]) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let length: usize = digits.parse().map_err(|_| "a length beyond reason")?;
            (body.len() >= length).then_some(length)
        }
        ([], []) if first.starts_with("HTTP/") => return Ok(Read::UntilClose),
        ([], []) => Some(0),
        framing => return Err(format!("two readers may differ on {framing:?}")),
    };
    Ok(length.map_or(Read::Incomplete, |length| Read::Whole { length: end + 4 + length, fields }))
}

/// Whether the first line is that of a response without a body.
fn start(line: &str) -> Result<bool, String> {
    let parts: Vec<&str> = line.splitn(3, ' ').collect();
    match parts[..] {
        ["HTTP/1.1" | "HTTP/1.0", status, ..] if status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(status.starts_with('1') || matches!(status, "204" | "304"))
        }
        [method, target, "HTTP/1.1"] if token(method) && target.starts_with(['/', '*']) && target.bytes().all(|b| b.is_ascii_graphic()) => Ok(false),
        _ => Err(format!("no first line: {line:?}")),
    }
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').filter(|(name, _)| token(name)).ok_or_else(|| format!("no field: {line:?}"))?;
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Length of a chunked body; None if its end has not come.
fn chunks(body: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(line) = body[at..].windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&body[at..at + line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| format!("no size of a chunk: {}", body[at..at + line].escape_ascii()))?;
        at += line + 2;
        if size == 0 {
            return trailer(body, at);
        }
        match body.get(at + size..at + size + 2) {
            Some(b"\r\n") => at += size + 2,
            Some(other) => return Err(format!("a chunk ends with {}", other.escape_ascii())),
            None => return Ok(None),
        }
    }
}

fn trailer(body: &[u8], mut at: usize) -> Result<Option<usize>, String> {
    loop {
        let Some(line) = body[at..].windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        at += line + 2;
        if line == 0 {
            return Ok(Some(at));
        }
        let text: String = body[at - line - 2..at - 2].iter().map(|b| char::from(*b)).collect();
        let (name, _) = field(&text)?;
        if matches!(name.as_str(), "content-length" | "transfer-encoding" | "host") {
            return Err(format!("{name} behind the body"));
        }
    }
}
