//! The unprivileged half: puts the parts together and runs them until it is told to end.

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{ClientFile, Layout, Options, images, privileges, walls};
use crate::{
    api::{self, ApiSettings},
    build::{self, Builder},
    logs::{LogHub, Source},
    model::Egress,
    platform::{self, Platform},
    ready, router,
    store::Store,
    supervise::{self, Supervisor},
    warden::Client,
};

/// The two TCP ports, taken before anything else: a port below 1024 needs the root that is given up later, and a
/// taken one must be said before a warden is started.
pub(super) struct Listeners {
    api: std::net::TcpListener,
    router: std::net::TcpListener,
}

impl Listeners {
    /// Binds both.
    pub(super) fn bind(options: &Options) -> Result<Self> {
        Ok(Self { api: listen(options.api, "--api")?, router: listen(options.router, "--router")? })
    }
}

/// Runs until SIGTERM or SIGINT; dynos go on without it, and its next start takes them up.
pub(super) fn serve(options: &Options, listeners: Listeners) -> Result<()> {
    // Images may lie where only root reads.
    let stack = images::image(&options.stack)?;
    let buildpacks = images::image(&options.buildpacks)?;
    let mut registries = images::registries(&options.stack)?;
    registries.extend(options.registry.iter().cloned());
    let layout = Layout::new(options);
    if rustix::process::getuid().is_root() {
        layout.make_daemon_dirs()?;
    }
    crate::warden::raise_open_files()?;
    // Asked here, because a quota of the daemon's own group cannot be read from behind the walls.
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    privileges::become_user(options.uid)?;
    let ready = ready::Notifier::connect();
    walls::raise(&walls::confinement(layout.state(), &layout.api(), &registries))?;
    let build = build::Settings {
        state: options.state_dir.clone(),
        stack,
        stack_name: "dyno-1".to_owned(),
        buildpacks,
        registries,
        allow_private: options.private_registries,
        ca_bundle: options.ca_bundle.is_file().then(|| options.ca_bundle.clone()),
        limits: build::Limits { build_time: std::time::Duration::from_secs(options.build_timeout), ..build::Limits::default() },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().context("start tokio")?;
    runtime.block_on(run(options, listeners, &layout, build, ready))
}

async fn run(options: &Options, listeners: Listeners, layout: &Layout, build: build::Settings, ready: ready::Notifier) -> Result<()> {
    let store = Store::open(layout.state())?;
    let token = token(&layout.state().join("token"))?;
    let (api_listener, router_listener) = (TcpListener::from_std(listeners.api)?, TcpListener::from_std(listeners.router)?);
    let (api_address, router_address) = (api_listener.local_addr()?, router_listener.local_addr()?);

    let (logs, table, warden) = (LogHub::default(), Arc::new(router::Table::new()), Client::new(layout.warden_socket()));
    let slugs = layout.state().join("slugs");
    let running = supervise::Settings {
        stack: build.stack.clone(),
        slugs,
        timing: options.timing(),
        sleep_after: options.sleep_after(),
        parked: options.parked,
    };
    let supervisor = Supervisor::new(running, warden.clone(), logs.clone(), table.clone());
    let builder = Builder::new(build, warden).context("prepare builds")?;
    let settings = platform::Settings {
        state: layout.state().to_owned(),
        user: "operator".to_owned(),
        domain: domain(&options.domain, router_address.port()),
        stack: "dyno-1".to_owned(),
        egress: Egress::default(),
    };
    let platform = Platform::new(settings, store, Arc::new(supervisor.clone()), logs.clone(), Arc::new(builder.clone()))?;
    platform.load().await.context("read the desired state")?;
    builder.recover().await.context("end interrupted builds")?;
    supervisor.adopt().await.context("take up what runs")?;

    let shutdown = CancellationToken::new();
    let base_url = format!("http://{api_address}");
    let api = api::router(platform, ApiSettings { base_url: base_url.clone(), token: token.clone() });
    let unix = bind_unix(&layout.api_socket())?;
    let file = ClientFile { url: base_url, socket: layout.api_socket(), token, router: format!("http://{router_address}"), pid: std::process::id() };
    write_client_file(&layout.client_file(), &file)?;
    tracing::info!(api = %api_address, router = %router_address, "dynod is ready");
    ready.say();

    let log = move |app, line: String| logs.publish(app, Source::Platform, "router", &line, jiff::Timestamp::now());
    let served = tokio::spawn(router::serve(router_listener, table, Arc::new(supervisor), log, router::Settings::default(), shutdown.clone()));
    let on_unix = tokio::spawn(api::serve(unix, api.clone(), shutdown.clone()));
    let on_tcp = tokio::spawn(api::serve(api_listener, api, shutdown.clone()));
    wait_for_signal().await?;
    tracing::info!("ending; dynos go on");
    builder.shutdown().await;
    shutdown.cancel();
    served.await?;
    on_unix.await??;
    on_tcp.await??;
    for path in [layout.client_file(), layout.api_socket()] {
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// SO_REUSEADDR is set by the standard library, so connections of a former daemon in TIME_WAIT are not in the way.
fn listen(address: SocketAddr, option: &str) -> Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address);
    let listener = listener.with_context(|| format!("listen on {address}; give {option} another address if it is taken"))?;
    listener.set_nonblocking(true).with_context(|| format!("fcntl({address}, O_NONBLOCK)"))?;
    Ok(listener)
}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(format!("remove the old {}", path.display())),
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))
}

fn domain(name: &str, port: u16) -> String {
    if port == 80 { name.to_owned() } else { format!("{name}:{port}") }
}

/// The operator's token, made at the first start: 32 random bytes, readable by the daemon's user alone.
fn token(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        // Never one that anybody could guess, such as none at all.
        Ok(_) => bail!("{} does not hold a token of at least 32 characters; remove it to have one made", path.display()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
    }
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    replace_private(path, token.as_bytes())?;
    Ok(token)
}

fn write_client_file(path: &Path, file: &ClientFile) -> Result<()> {
    replace_private(path, &serde_json::to_vec_pretty(file)?)
}

/// The file is there whole or as it was before.
fn replace_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    write_private(&new, bytes)?;
    std::fs::rename(&new, path).with_context(|| format!("rename {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).with_context(|| format!("open {}", path.display()))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).with_context(|| format!("chmod {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))
}

async fn wait_for_signal() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_and_never_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let first = token(&path).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(token(&path).unwrap(), first);
        // What a kill between the making of the file and the writing of it would have left.
        std::fs::write(&path, "").unwrap();
        let error = token(&path).unwrap_err().to_string();
        assert!(error.contains("does not hold a token"), "{error}");
    }
}
