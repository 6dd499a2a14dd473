//! Works out a plan, or compiles a filter, as many times as it is told, and does nothing else: a program whose instructions can be counted.
//!
//! `dyno-plan-cost plan|filter COUNT`

use std::{hint::black_box, process::ExitCode};

use dyno_runtime::{Layer, Plan, Profile, Result, Sandbox, seccomp};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let count = words.get(2).and_then(|n| n.parse().ok());
    let (Some(what), Some(count)) = (words.get(1), count) else {
        eprintln!("usage: dyno-plan-cost plan|filter COUNT");
        return ExitCode::from(2);
    };
    match work(what, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dyno-plan-cost: {e}");
            ExitCode::FAILURE
        }
    }
}

fn work(what: &str, count: usize) -> Result<()> {
    let image = Layer::Image { path: "/var/lib/slug.sqsh".into(), sha256: "0".repeat(64) };
    let mut sandbox = Sandbox::new(vec![image], ["/bin/sh", "-c", "exec web"]);
    sandbox.env = (0..50).map(|n| (format!("CONFIG_VAR_{n}"), "a value of a usual length".to_owned())).collect();
    for _ in 0..count {
        match what {
            "plan" => drop(black_box(Plan::new(black_box(&sandbox))?)),
            _ => black_box(seccomp::check(black_box(&Profile::Dyno), &[])?),
        }
    }
    Ok(())
}
