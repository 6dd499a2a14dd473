//! The two dynos of a build, as the warden is asked for them.
//!
//! ```text
//!           build dyno                      pack dyno
//!   layers  buildpacks, cache, stack        what the build wrote, buildpacks, cache, stack
//!   runs    /buildpacks/bin/build           /buildpacks/bin/pack
//!   stdin   the clean source                nothing
//!   stdout  the log                         frames
//!   network the proxy, if anything          nothing
//! ```
//!
//! The pack dyno exists because the build's own processes must be gone before its result is read.

use std::{collections::BTreeMap, path::PathBuf};

use dyno_runtime::{Layer, Limits, Profile, Sandbox, Upper, Volume};
use serde_json::json;
use uuid::Uuid;

use super::{BuildRequest, Image, Settings};
use crate::{
    model::{DynoSize, Egress},
    warden::{Launch, Stdio},
};

/// Where the proxy listens inside the build dyno.
const PROXY_PORT: u16 = 3128;
/// Where the stack keeps its certificates, and the host's are mounted.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What clients of many kinds call the file of certificates to trust.
const CA_NAMES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "BUNDLE_SSL_CA_CERT",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// In [`Launch::meta`] of every dyno of a build: the build's id.
const META: &str = "build";

/// The dyno that unpacks and compiles.
pub(super) fn build(id: Uuid, request: &BuildRequest, settings: &Settings, cache: Option<&Image>) -> Launch {
    let mut env = common(settings);
    env.insert("HOME".into(), "/app".into());
    env.insert("SOURCE_VERSION".into(), request.build.commit.clone().unwrap_or_default());
    env.insert("REQUEST_ID".into(), request.build.id.to_string());
    env.extend(CA_NAMES.map(|name| (name.to_owned(), CA_BUNDLE.to_owned())));
    // The one config var that is for the driver; the others are files that packs may read.
    if let Some(packs) = request.config.get("BUILDPACK") {
        env.insert("BUILDPACK".into(), packs.to_owned());
    }
    let networked = request.build.egress != Egress::None;
    if networked {
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        for (name, value) in [("http_proxy", proxy.as_str()), ("https_proxy", &proxy), ("no_proxy", "localhost,127.0.0.1")] {
            env.insert(name.to_owned(), value.to_owned());
            env.insert(name.to_uppercase(), value.to_owned());
        }
    }
    let mut sandbox = sandbox(layers(None, settings, cache), "/buildpacks/bin/build", env);
    sandbox.volumes.extend(settings.ca_bundle.iter().map(|bundle| Volume::Bind {
        source: bundle.clone(),
        target: PathBuf::from(CA_BUNDLE),
        writable: false,
    }));
    let listen = if networked { vec![PROXY_PORT] } else { Vec::new() };
    Launch { id, meta: meta(request), sandbox, stdio: Stdio::Pipes, listen, lease_of: None, socket: false, keep_upper: true }
}

/// The dyno that reads what `built`, which has ended, left behind.
pub(super) fn pack(id: Uuid, built: Uuid, request: &BuildRequest, settings: &Settings, cache: Option<&Image>) -> Launch {
    let mut env = common(settings);
    // Not /app: nothing of the app may steer the packing.
    env.insert("HOME".into(), "/".into());
    let sandbox = sandbox(layers(Some(built), settings, cache), "/buildpacks/bin/pack", env);
    let meta = meta(request);
    Launch { id, meta, sandbox, stdio: Stdio::Pipes, listen: Vec::new(), lease_of: Some(built), socket: false, keep_upper: false }
}

/// The build that a held dyno belongs to, if any.
pub(super) fn build_of(meta: &serde_json::Value) -> Option<Uuid> {
    meta.get(META)?.as_str()?.parse().ok()
}

fn meta(request: &BuildRequest) -> serde_json::Value {
    json!({ META: request.build.id, "app": request.app.id })
}

fn layers(built: Option<Uuid>, settings: &Settings, cache: Option<&Image>) -> Vec<Layer> {
    let upper = built.map(|id| Layer::UpperOf(id.to_string()));
    let images = [Some(&settings.buildpacks), cache, Some(&settings.stack)];
    upper.into_iter().chain(images.into_iter().flatten().map(Layer::from)).collect()
}

fn common(settings: &Settings) -> BTreeMap<String, String> {
    [("PATH", PATH), ("STACK", &settings.stack_name), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn sandbox(layers: Vec<Layer>, program: &str, env: BTreeMap<String, String>) -> Sandbox {
    let size = DynoSize::BUILD.spec();
    let mut sandbox = Sandbox::new(layers, [program]);
    sandbox.env = env;
    sandbox.hostname = "build".into();
    sandbox.seccomp = Profile::Build;
    sandbox.root.upper = Upper::Tmpfs { bytes: size.disk, inodes: size.inodes };
    sandbox.limits = Limits { memory: Some(size.memory), pids: Some(size.pids), cpu_weight: Some(size.cpu_weight), ..Limits::default() };
    sandbox
}
