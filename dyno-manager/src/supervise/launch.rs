//! A scheduled dyno as a sandbox: slug over stack, limits by size, environment, boot.

use std::collections::BTreeMap;

use dyno_runtime::{Layer, Limits, Sandbox, Upper};

use super::{PORT, Settings, boot};
use crate::{
    model::{App, DynoKind, DynoSize},
    schedule::{CurrentRelease, Dyno},
    warden::{Launch, Stdio},
};

/// The search path of dynos; buildpacks put their own in front.
pub(super) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

pub(super) fn launch(settings: &Settings, app: &App, release: &CurrentRelease, dyno: &Dyno) -> Result<Launch, String> {
    let slug = release.slug.as_ref().ok_or("the release has no slug; deploy first")?;
    let layers = vec![
        Layer::Image { path: settings.slugs.join(format!("{}.sqsh", slug.sha256)), sha256: slug.sha256.clone() },
        Layer::Image { path: settings.stack.path.clone(), sha256: settings.stack.sha256.clone() },
    ];
    let argv = if dyno.kind == DynoKind::Formation { boot::lean(&dyno.command) } else { boot::shell(&dyno.command) };
    let mut sandbox = Sandbox::new(layers, argv);
    sandbox.env = environment(app, release, dyno);
    sandbox.cwd = "/app".into();
    sandbox.hostname = dyno.id.to_string();
    sandbox.limits = limits(dyno.size);
    let size = dyno.size.spec();
    sandbox.root.upper = Upper::Tmpfs { bytes: size.disk, inodes: size.inodes };
    let stdio = match (dyno.attached, dyno.tty) {
        (false, _) => Stdio::Log,
        (true, None) => Stdio::Pipes,
        (true, Some((rows, cols))) => Stdio::Tty { rows, cols },
    };
    let meta = serde_json::to_value(dyno).map_err(|e| e.to_string())?;
    Ok(Launch { id: dyno.id, meta, sandbox, stdio, listen: Vec::new(), lease_of: None, socket: dyno.binds_port(), keep_upper: false })
}

/// The limits of a size.
pub(super) fn limits(size: DynoSize) -> Limits {
    let size = size.spec();
    Limits { memory: Some(size.memory), pids: Some(size.pids), cpu_weight: Some(size.cpu_weight), ..Limits::default() }
}

fn environment(app: &App, release: &CurrentRelease, dyno: &Dyno) -> BTreeMap<String, String> {
    let own = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
    let mut env: BTreeMap<String, String> = [("PATH", PATH), ("LANG", "C.UTF-8")].map(own).into();
    env.extend(release.config.iter().map(own));
    env.extend(dyno.env.clone());
    // Last, so that nothing above can pretend to be the platform.
    env.extend([("HOME", "/app"), ("DYNO", &dyno.name.to_string()), ("DYNO_APP_NAME", app.name.as_str())].map(own));
    env.insert("DYNO_RELEASE_VERSION".into(), format!("v{}", release.version));
    if dyno.binds_port() {
        env.insert("PORT".into(), PORT.to_string());
    }
    env
}
