//! A plan and a filter take as many instructions as were written down, give or take 5 %: no clock is noisy enough to hide more.
//!
//! Counted by valgrind's callgrind, the difference between one time and eleven, so that the program's start is not in it. The figures in
//! `instructions.json` hold for one compiler; `DYNO_BLESS=1 cargo test -p dyno-bench --test instructions` writes new ones.

use std::{fs, path::Path, process::Command};

use serde_json::{Map, Value, json};

/// More or less of it is a change that somebody should have meant.
const TOLERANCE: f64 = 0.05;

/// Times that the work is done beside the once that is taken off.
const TIMES: u64 = 10;

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("run rustc");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Instructions of the program when it does `what` so many times.
fn counted(what: &str, times: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", out.display()));
    let output = valgrind.arg(env!("CARGO_BIN_EXE_dyno-plan-cost")).arg(what).arg(times.to_string()).output().expect("run valgrind");
    assert!(output.status.success(), "valgrind: {}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&out).expect("what callgrind wrote");
    let total = text.lines().find_map(|l| l.strip_prefix("summary:").or_else(|| l.strip_prefix("totals:")));
    total.and_then(|n| n.trim().parse().ok()).expect("callgrind's sum")
}

fn each(what: &str) -> u64 {
    (counted(what, 1 + TIMES) - counted(what, 1)) / TIMES
}

#[test]
fn as_many_as_were_written_down() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    if !cfg!(debug_assertions) {
        println!("skipped: the figures are of an unoptimised build");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let measured: Map<String, Value> = ["plan", "filter"].map(|what| (what.to_owned(), json!(each(what)))).into_iter().collect();
    if std::env::var_os("DYNO_BLESS").is_some() {
        let text = json!({ "compiler": compiler(), "each": measured });
        fs::write(&path, format!("{text:#}\n")).expect("write the figures");
        return;
    }
    let written: Value = serde_json::from_str(&fs::read_to_string(&path).expect("instructions.json")).expect("JSON");
    if written["compiler"] != json!(compiler()) {
        println!("skipped: the figures are of {}, this is {}", written["compiler"], compiler());
        return;
    }
    for (what, now) in &measured {
        let (now, then) = (now.as_f64().expect("a count"), written["each"][what].as_f64().expect("a count in instructions.json"));
        println!("{what}: {now} instructions, {then} written down");
        assert!((now / then - 1.0).abs() <= TOLERANCE, "{what}: {now} instructions instead of {then}; if that is meant, see the head of this test");
    }
}
