//! Where the platform is and who asks: `DYNO_URL` and `DYNO_TOKEN`, else the file that the daemon leaves at
//! `$DYNO_CLIENT` (default `/run/dyno/api/client.json`).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    ambient::Ambient,
    error::{CliError, Result},
};

/// Where the daemon writes the file.
const DEFAULT_FILE: &str = "/run/dyno/api/client.json";

/// Something that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Host and port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The platform as this command reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Tried in this order.
    pub(super) addresses: Vec<Address>,
    /// The bearer token.
    pub(super) token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ClientFile {
    url: Option<String>,
    socket: Option<PathBuf>,
    token: Option<String>,
}

impl Endpoint {
    /// From the environment or the daemon's file.
    pub(super) fn resolve(ambient: &Ambient) -> Result<Self> {
        let path = PathBuf::from(ambient.var("DYNO_CLIENT").unwrap_or(DEFAULT_FILE));
        let token = ambient.var("DYNO_TOKEN").map(str::to_owned);
        if let Some(url) = ambient.var("DYNO_URL") {
            let address = parse_url(url).map_err(|what| CliError::usage(format!("DYNO_URL {url:?} {what}")))?;
            // The file's token belongs to the file's platform; it is not shown to another one.
            let own = || {
                let file = read(&path).ok()?;
                file.addresses(&path).ok()?.contains(&address).then_some(file.token).flatten()
            };
            return Ok(Self { token: token.or_else(own), addresses: vec![address] });
        }
        let file = read(&path)?;
        Ok(Self { addresses: file.addresses(&path)?, token: token.or(file.token) })
    }
}

impl ClientFile {
    /// The socket first: it needs no free port and cannot be taken over by another user.
    fn addresses(&self, path: &Path) -> Result<Vec<Address>> {
        let fault = |what: String| CliError::new(format!("{}: {what}", path.display()));
        let mut addresses: Vec<_> = self.socket.clone().map(Address::Unix).into_iter().collect();
        if let Some(url) = &self.url {
            addresses.push(parse_url(url).map_err(|what| fault(format!("url {url:?} {what}")))?);
        }
        if addresses.is_empty() {
            return Err(fault("names neither a url nor a socket".to_owned()));
        }
        Ok(addresses)
    }
}

fn read(path: &Path) -> Result<ClientFile> {
    let text = fs::read_to_string(path).map_err(|e| {
        let error = CliError::new(format!("The platform is not known here: {}: {e}", path.display()));
        match e.kind() {
            io::ErrorKind::PermissionDenied => error.hint("Run this as root or as the daemon's user, or set DYNO_URL and DYNO_TOKEN."),
            _ => error.hint("dynod writes this file when it starts. Does it run? Or set DYNO_URL and DYNO_TOKEN."),
        }
    })?;
    serde_json::from_str(&text).map_err(|e| CliError::new(format!("{}: {e}", path.display())))
}

fn parse_url(url: &str) -> Result<Address, String> {
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') {
            Ok(Address::Unix(path.into()))
        } else {
            Err("must name an absolute path, as unix:///run/dyno/api.sock".to_owned())
        };
    }
    let uri: http::Uri = url.parse().map_err(|e| format!("is not a url: {e}"))?;
    match (uri.scheme_str(), uri.host(), uri.path()) {
        (Some("http"), Some(host), "/" | "") if !uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
            Ok(Address::Tcp(host.to_owned(), uri.port_u16().unwrap_or(80)))
        }
        _ => Err("must look like http://127.0.0.1:5080 or unix:///run/dyno/api.sock".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::ambient, *};

    #[test]
    fn urls() {
        let tcp = |host: &str, port| Ok(Address::Tcp(host.to_owned(), port));
        let check = |url: &str, want: Result<Address, &str>| match (parse_url(url), want) {
            (Err(got), Err(part)) => assert!(got.contains(part), "{url}: {got}"),
            (got, want) => assert_eq!(got.ok(), want.ok(), "{url}"),
        };
        check("http://127.0.0.1:5080", tcp("127.0.0.1", 5080));
        check("http://dyno.example/", tcp("dyno.example", 80));
        check("http://[::1]:5080", tcp("[::1]", 5080));
        check("unix:///run/dyno/api.sock", Ok(Address::Unix("/run/dyno/api.sock".into())));
        check("unix:/run/a", Ok(Address::Unix("/run/a".into())));
        check("unix:a", Err("absolute"));
        check("https://a", Err("must look like"));
        check("http://user:secret@a", Err("must look like"));
        check("http://a/v1", Err("must look like"));
        check("127.0.0.1:5080", Err("must look like"));
        check("", Err("not a url"));
    }

    #[test]
    fn the_environment_comes_before_the_file_and_tokens_stay_with_their_platform() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.json");
        let file = r#"{"url": "http://127.0.0.1:5080", "socket": "/run/a.sock", "token": "of-file"}"#;
        fs::write(&path, file).unwrap();
        let client = path.to_str().unwrap();
        let tcp = |port| Address::Tcp("127.0.0.1".to_owned(), port);
        let check = |vars: &[(&str, &str)], addresses: Vec<Address>, token: Option<&str>| {
            let vars = [vars, &[("DYNO_CLIENT", client)]].concat();
            let want = Endpoint { addresses, token: token.map(str::to_owned) };
            assert_eq!(Endpoint::resolve(&ambient(directory.path(), &vars)).unwrap(), want, "{vars:?}");
        };
        check(&[], vec![Address::Unix("/run/a.sock".into()), tcp(5080)], Some("of-file"));
        check(&[("DYNO_URL", "http://127.0.0.1:1")], vec![tcp(1)], None);
        check(&[("DYNO_URL", "http://127.0.0.1:5080")], vec![tcp(5080)], Some("of-file"));
        check(&[("DYNO_URL", "http://127.0.0.1:1"), ("DYNO_TOKEN", "t")], vec![tcp(1)], Some("t"));
        check(&[("DYNO_TOKEN", "t")], vec![Address::Unix("/run/a.sock".into()), tcp(5080)], Some("t"));
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.json");
        let told = || {
            let ambient = ambient(directory.path(), &[("DYNO_CLIENT", path.to_str().unwrap())]);
            Endpoint::resolve(&ambient).unwrap_err().to_string()
        };
        assert!(told().contains("Hint: dynod writes this file"));
        fs::write(&path, "{").unwrap();
        assert!(told().contains("client.json: EOF"));
        fs::write(&path, "{}").unwrap();
        assert!(told().contains("neither a url nor a socket"));
    }

    /// The daemon's own layout and file, read as the command line reads them.
    #[test]
    fn the_daemon_leaves_the_file_where_it_is_looked_for() {
        use clap::{Args, FromArgMatches};

        let grammar = crate::daemon::Options::augment_args(clap::Command::new("dynod"));
        let run_dir = grammar.get_arguments().find(|arg| arg.get_id() == "run_dir").unwrap();
        let default = run_dir.get_default_values()[0].to_owned();
        let line = ["dynod".into(), "--run-dir".into(), default];
        let options = crate::daemon::Options::from_arg_matches(&grammar.get_matches_from(line)).unwrap();
        assert_eq!(crate::daemon::Layout::new(&options).client_file(), Path::new(DEFAULT_FILE));
        let left = crate::daemon::ClientFile {
            url: "http://127.0.0.1:5080".to_owned(),
            socket: "/run/dyno/api/api.sock".into(),
            token: "t".to_owned(),
            router: "http://127.0.0.1:8080".to_owned(),
            pid: 1,
        };
        let file: ClientFile = serde_json::from_value(serde_json::to_value(left).unwrap()).unwrap();
        assert_eq!(file.addresses(Path::new(DEFAULT_FILE)).unwrap().len(), 2);
        assert_eq!(file.token.as_deref(), Some("t"));
    }
}
