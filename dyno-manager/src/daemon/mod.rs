//! dynod: the command line of the daemon, and how its two processes come to be.
//!
//! ```text
//!   dynod (root)  ── makes directories, starts the warden if none answers, then becomes ──▶  dynod serve
//!   dynod warden  ── root: the only process that starts dynos; outlives dynod
//!   dynod serve   ── an unprivileged user: API, router, logs, store, schedule, builds' bookkeeping
//!   dynod stop    ── ends the daemon, then every dyno, then the warden; the host is as before
//! ```
//! Under systemd the two are units of their own (`systemd/`); `dynod` alone starts both.

mod files;
mod images;
mod privileges;
mod serve;
mod start;
mod stop;
mod walls;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::warden;

pub use files::{ClientFile, Layout};

/// The Heroku-like platform of one host.
#[derive(Debug, Parser)]
#[command(
    name = "dynod",
    version,
    about,
    after_help = "\
Examples:
  dynod --stack /var/lib/dyno-images/stack.sqsh --buildpacks /var/lib/dyno-images/buildpacks.sqsh
  dynod --api 127.0.0.1:5080 --router 0.0.0.0:80 --domain apps.example.com …
  dynod stop"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the privileged half alone (root).
    Warden,
    /// Run the unprivileged half alone; it expects a warden.
    Serve,
    /// End the daemon, every dyno and the warden, and leave the host as it was.
    Stop,
}

/// What an operator decides. Every option can be given in the environment.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Apps, releases, slugs, build logs.
    #[arg(long, global = true, env = "DYNO_STATE_DIR", default_value = "/var/lib/dyno", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Sockets and the state of running dynos; on a file system that a reboot empties.
    #[arg(long, global = true, env = "DYNO_RUN_DIR", default_value = "/run/dyno", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// The stack image that `cargo xtask stack` makes.
    #[arg(long, global = true, env = "DYNO_STACK", default_value = "/var/lib/dyno-images/stack.sqsh", value_name = "FILE")]
    pub stack: PathBuf,
    /// The buildpacks image that `cargo xtask stack` makes.
    #[arg(long, global = true, env = "DYNO_BUILDPACKS", default_value = "/var/lib/dyno-images/buildpacks.sqsh", value_name = "FILE")]
    pub buildpacks: PathBuf,
    /// Where the API listens, beside its unix socket. Port 0 takes a free one.
    #[arg(long, global = true, env = "DYNO_API", default_value = "127.0.0.1:5080", value_name = "ADDRESS")]
    pub api: SocketAddr,
    /// Where the router listens. Port 0 takes a free one.
    #[arg(long, global = true, env = "DYNO_ROUTER", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub router: SocketAddr,
    /// Apps are reached at APP.DOMAIN.
    #[arg(long, global = true, env = "DYNO_DOMAIN", default_value = "localhost", value_name = "NAME")]
    pub domain: String,
    /// User id of the unprivileged half.
    #[arg(long, global = true, env = "DYNO_UID", default_value_t = 950, value_name = "UID", value_parser = clap::value_parser!(u32).range(1..))]
    pub uid: u32,
    /// Name of the cgroups of this instance.
    #[arg(long, global = true, env = "DYNO_CGROUP", default_value = "dyno", value_name = "NAME")]
    pub cgroup: String,
    /// Certificates that builds trust: the host's.
    #[arg(long, global = true, env = "DYNO_CA_BUNDLE", default_value = "/etc/ssl/certs/ca-certificates.crt", value_name = "FILE")]
    pub ca_bundle: PathBuf,
    /// Further hosts that builds reach under the `registries` policy.
    #[arg(long, global = true, env = "DYNO_REGISTRY", value_delimiter = ',', value_name = "HOST")]
    pub registry: Vec<String>,
    /// Let registries resolve to private addresses (a mirror inside the house).
    #[arg(long, global = true, env = "DYNO_PRIVATE_REGISTRIES")]
    pub private_registries: bool,
    /// Seconds that a web dyno has to bind its port.
    #[arg(long, global = true, env = "DYNO_BOOT_TIMEOUT", default_value_t = 60, value_name = "SECONDS")]
    pub boot_timeout: u64,
    /// Seconds between SIGTERM and SIGKILL.
    #[arg(long, global = true, env = "DYNO_STOP_TIMEOUT", default_value_t = 30, value_name = "SECONDS")]
    pub stop_timeout: u64,
    /// Seconds that a build may take.
    #[arg(long, global = true, env = "DYNO_BUILD_TIMEOUT", default_value_t = 900, value_name = "SECONDS")]
    pub build_timeout: u64,
    /// Seconds without a request after which an app's web dynos sleep until the next one; 0: never.
    #[arg(long, global = true, env = "DYNO_SLEEP_AFTER", default_value_t = 0, value_name = "SECONDS")]
    pub sleep_after: u64,
    /// Apps that sleep and keep a sandbox ready for their next request, the last ones to fall asleep.
    #[arg(long, global = true, env = "DYNO_PARKED", default_value_t = 16, value_name = "COUNT")]
    pub parked: usize,
    /// Networks and control groups that are kept ready for the next dynos.
    #[arg(long, global = true, env = "DYNO_SPARES", default_value_t = 4, value_name = "COUNT")]
    pub spares: usize,
    /// One JSON object per log line, for log collectors.
    #[arg(long, global = true, env = "DYNO_LOG_JSON")]
    pub log_json: bool,
}

/// The daemon's entry point: exit status 0, 1 for a failure (said in one line), 2 for usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.options.log_json);
    let result = match cli.command {
        None => start::start(&cli.options),
        Some(Command::Serve) => serve::Listeners::bind(&cli.options).and_then(|listeners| serve::serve(&cli.options, listeners)),
        Some(Command::Stop) => stop::stop(&cli.options),
        Some(Command::Warden) => run_warden(&cli.options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is::<start::Told>() => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("dynod: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DYNO_LOG").unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.with_ansi(false).init() }
}

fn run_warden(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(rustix::process::getuid().is_root(), "the warden needs root: it mounts images and makes namespaces and cgroups");
    privileges::become_warden().context("what the warden does not need is not given up")?;
    let layout = Layout::new(options);
    let missing = layout.missing();
    let served = serve_dynos(options, &layout);
    if served.is_err() {
        files::remove(&missing);
    }
    served
}

fn serve_dynos(options: &Options, layout: &Layout) -> anyhow::Result<()> {
    layout.make_warden_dir()?;
    warden::serve(warden::Settings {
        run_dir: layout.runtime(),
        name: options.cgroup.clone(),
        socket: layout.warden_socket(),
        client_uid: options.uid,
        spares: options.spares,
        volumes: vec![options.ca_bundle.clone()],
    })
}

impl Options {
    fn sleep_after(&self) -> Option<Duration> {
        (self.sleep_after > 0).then(|| Duration::from_secs(self.sleep_after))
    }

    fn timing(&self) -> crate::schedule::Timing {
        crate::schedule::Timing {
            boot: Duration::from_secs(self.boot_timeout),
            stop: Duration::from_secs(self.stop_timeout),
            ..crate::schedule::Timing::default()
        }
    }
}
