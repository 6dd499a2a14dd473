//! The harness itself: a quick look at the floor, at no wall at all and at a cold start, with its page and its figures.

use std::{fs, process::Command};

/// One after the other: each looks whether it has left something on the host.
#[test]
fn short_runs() {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    if !status.lines().any(|l| l.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))) {
        println!("skipped: this needs root");
        return;
    }
    for (program, words) in [("cc", &["--version"]), ("mksquashfs", &["-version"])] {
        if Command::new(program).args(words).output().is_err() {
            println!("skipped: {program} is not installed");
            return;
        }
    }
    a_quick_look_at_three_peers();
    a_short_soak();
}

fn a_short_soak() {
    let out = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dyno-bench"));
    let output = command.args(["soak", "--seconds", "2", "--tier", "cold,recycled", "--out"]).arg(out.path()).output().expect("run dyno-bench");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
    for row in ["## Cold", "## Recycled", "| descriptors of the process |", "| `net_namespace` |", "| SUnreclaim, KB |"] {
        assert!(page.contains(row), "{row}: {page}");
    }
    assert_eq!(fs::read_to_string(out.path().join("soak.md")).expect("its page"), page.trim_end().to_owned() + "\n");
}

fn a_quick_look_at_three_peers() {
    let out = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dyno-bench"));
    command.args(["all", "--quick", "--only", "latency,stop", "--peers", "vfork,floor,cold,parked", "--out"]).arg(out.path());
    let output = command.output().expect("run dyno-bench");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
    assert!(page.contains("Nothing failed."), "{page}");
    for name in ["vfork + exec", "floor", "dyno, cold", "dyno, parked"] {
        let rows = page.lines().filter(|l| l.starts_with(&format!("| {name} |")));
        // Twice in latencies, once among walls.
        assert_eq!(rows.count(), 3, "{name}: {page}");
    }
    assert!(page.lines().any(|l| l.starts_with("| dyno, parked | all 7 | - | 65536 | none | yes | yes | own, up |")), "{page}");
    for file in ["benchmarks.md", "benchmarks/figures.json", "benchmarks/latency-burst.svg", "benchmarks/phases.svg"] {
        assert!(fs::metadata(out.path().join(file)).is_ok_and(|m| m.len() > 0), "{file}");
    }
}
