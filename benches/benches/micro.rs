//! What a start is made of, piece by piece, where a piece can be called alone: the plan, the filter, the description as it is written down,
//! and, as root, an image that is already mounted and a socket inside another network namespace.
//!
//! `cargo bench -p dyno-bench`. Whole starts are measured by `cargo xtask bench`.

use std::{collections::BTreeMap, fs::File, hint::black_box, os::fd::AsFd};

use criterion::{Criterion, criterion_group, criterion_main};
use dyno_runtime::{Capability, Layer, Plan, Profile, Sandbox, Upper, net, seccomp};

/// As large as an app's: two layers, limits, fifty variables.
fn sandbox() -> Sandbox {
    let image = |name: &str| Layer::Image { path: format!("/var/lib/{name}.sqsh").into(), sha256: "0".repeat(64) };
    let mut sandbox = Sandbox::new(vec![image("slug"), image("stack")], ["/bin/sh", "-c", "exec gunicorn app:app"]);
    sandbox.root.upper = Upper::Tmpfs { bytes: 64 << 20, inodes: 10_000 };
    sandbox.env = (0..50).map(|n| (format!("CONFIG_VAR_{n}"), "a value of a usual length".to_owned())).collect::<BTreeMap<_, _>>();
    sandbox.limits.memory = Some(512 << 20);
    sandbox.limits.pids = Some(256);
    sandbox.limits.cpu_millis = Some(1000);
    sandbox
}

fn plan(c: &mut Criterion) {
    let sandbox = sandbox();
    c.bench_function("plan", |b| b.iter(|| Plan::new(black_box(&sandbox))));
    let written = serde_json::to_string(&sandbox).unwrap_or_default();
    c.bench_function("description to JSON", |b| b.iter(|| serde_json::to_vec(black_box(&sandbox))));
    c.bench_function("description from JSON", |b| b.iter(|| serde_json::from_str::<Sandbox>(black_box(&written))));
}

fn filters(c: &mut Criterion) {
    for (name, profile) in [("dyno", Profile::Dyno), ("build", Profile::Build), ("docker", Profile::Docker)] {
        c.bench_function(&format!("filter {name}, compiled"), |b| b.iter(|| seccomp::check(black_box(&profile), &[])));
    }
    c.bench_function("filter docker with a capability, compiled", |b| {
        b.iter(|| seccomp::check(black_box(&Profile::Docker), &[Capability::SYS_ADMIN]))
    });
    c.bench_function("one call explained", |b| b.iter(|| seccomp::explain(black_box(&Profile::Dyno), &[], "socket", [1, 0, 0, 0, 0, 0])));
}

/// Entering one's own network namespace costs what entering a dyno's does.
fn network(c: &mut Criterion) {
    let here = File::open("/proc/thread-self/ns/net");
    match here.map_err(|e| e.to_string()).and_then(|netns| net::socket_in(netns.as_fd()).map(|_| netns).map_err(|e| e.to_string())) {
        Ok(netns) => {
            c.bench_function("socket in a network namespace", |b| b.iter(|| net::socket_in(netns.as_fd())));
        }
        Err(e) => println!("socket in a network namespace: skipped: {e}"),
    }
}

criterion_group!(benches, plan, filters, network);
criterion_main!(benches);
