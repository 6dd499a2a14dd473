//! What filters cost: `cargo test --lib oci::filter::tests::timing -- --ignored --nocapture`, with DYNO_DOCKER_PROFILE for Docker's own.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use super::{oracle, *};
use crate::{
    seccomp::{Compiled, Denied},
    spec::Profile,
};

fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..301).map(|_| measure()).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// Of seccomp(2), each time on a new thread.
fn install_cost(program: &[sys::Filter]) -> Duration {
    let once = || {
        sys::no_new_privileges().unwrap();
        let start = Instant::now();
        sys::notify::install(program, 4).unwrap();
        start.elapsed()
    };
    median(|| thread::scope(|scope| scope.spawn(once).join().unwrap()))
}

#[test]
#[ignore = "measures"]
fn costs() {
    let path = std::env::var_os("DYNO_DOCKER_PROFILE").unwrap_or_else(|| "/usr/share/containers/seccomp.json".into());
    let Ok(text) = std::fs::read(&path) else { return println!("skipped: there is no {}", path.display()) };
    let mut config = oracle::resolved(&serde_json::from_slice(&text).unwrap(), &[]);
    let wire = seccomp(&config);
    println!("{}", path.display());
    println!(
        "compile: {:?}",
        median(|| {
            let start = Instant::now();
            black_box(compile(black_box(&wire), &mut Vec::new()).unwrap());
            start.elapsed()
        })
    );
    let report = |name: &str, program: &[sys::Filter]| println!("{name}: {} instructions, installed in {:?}", program.len(), install_cost(program));
    report("this profile, here", &compile(&wire, &mut Vec::new()).unwrap().program);
    report("our own for Docker's programs", &Compiled::new(&Profile::Docker, 0, Denied::Answer).unwrap().program);
    for (name, tree) in [("this profile, libseccomp (crun)", false), ("this profile, libseccomp's tree (runc)", true)] {
        config["tree"] = tree.into();
        if let Some(theirs) = oracle::libseccomp(std::slice::from_ref(&config)) {
            report(name, &theirs[0].program);
        }
    }
}
