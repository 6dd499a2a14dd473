//! What is run inside a machine: scripts of `rootfs/vm/run` and the test programs of dyno-runtime.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::{battery, cargo};

/// A group of items; a line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// What the machine is, and whether the programs start on it.
    Host,
    /// The runtime's examples.
    Examples,
    /// A platform from start to stop.
    Platform,
    /// The runtime's own tests.
    Runtime,
    /// The attacks, and those runs of them that belong nowhere else.
    Battery,
}

/// One thing to run.
#[derive(Debug)]
pub struct Item {
    /// The line of the table that its results count for.
    pub suite: Suite,
    /// Its name, without spaces.
    pub name: String,
    /// Seconds that it may take, emulated: some ten times what it takes on real hardware.
    pub seconds: u64,
    /// For bash.
    pub command: String,
    /// Programs that it needs, below the target directory.
    pub programs: Vec<PathBuf>,
}

impl Suite {
    /// Its name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Examples => "examples",
            Self::Platform => "platform",
            Self::Runtime => "runtime",
            Self::Battery => "battery",
        }
    }
}

/// Everything to run, in order; builds the runtime's test programs when they are wanted.
pub fn gather(suites: &[Suite]) -> Result<Vec<Item>> {
    let wanted = |suite: Suite| suites.is_empty() || suites.contains(&suite);
    let mut items = Vec::new();
    if wanted(Suite::Host) {
        items.push(script(Suite::Host, "host.sh", 120, Vec::new()));
    }
    if wanted(Suite::Examples) || wanted(Suite::Runtime) {
        let built = build(&["test", "-p", "dyno-runtime"])?;
        let hello = built.iter().find(|b| b.kind == "example" && b.name == "hello").context("cargo built no example `hello`")?;
        if wanted(Suite::Examples) {
            items.push(script(Suite::Examples, "hello.sh", 180, vec![hello.program.clone()]));
        }
        if wanted(Suite::Runtime) {
            items.extend(tests(&built, &program("support/program", "vm/test-program")?));
        }
    }
    if wanted(Suite::Battery) {
        items.push(attacks()?);
    }
    if wanted(Suite::Platform) {
        items.push(script(Suite::Platform, "platform.sh", 900, Vec::new()));
    }
    Ok(items)
}

fn script(suite: Suite, file: &str, seconds: u64, programs: Vec<PathBuf>) -> Item {
    let name = file.trim_end_matches(".sh").to_owned();
    Item { suite, name, seconds, command: format!("bash /payload/run/{file}"), programs }
}

/// One item per test program. Programs that a test starts by its path go along with each.
fn tests(built: &[Built], inner: &Path) -> Vec<Item> {
    let helpers: Vec<PathBuf> = built.iter().filter(|b| !b.is_test).map(|b| b.program.clone()).chain([inner.to_owned()]).collect();
    let item = |test: &Built| {
        let path = test.program.display();
        let command = format!("DYNO_TEST_PROGRAM=$VM_TARGET/{} bash /payload/run/suite.sh \"$VM_TARGET/{path}\"", inner.display());
        let programs = helpers.iter().chain([&test.program]).cloned().collect();
        Item { suite: Suite::Runtime, name: test.name.clone(), seconds: 600, command, programs }
    };
    built.iter().filter(|b| b.is_test).map(item).collect()
}

/// The battery, with the mutations that may be nowhere else. Two signs tell it where it is: this variable, and the payload's plan.
fn attacks() -> Result<Item> {
    let built = build(&battery::BUILD)?;
    let test = built.into_iter().find(|b| b.is_test && b.name == "battery").context("cargo built no battery")?.program;
    let (inner, probe) = (program("support/program", "vm/test-program")?, program("battery/probe", "vm/probe")?);
    let environment = "DYNO_TEST_THROWAWAY=1 DYNO_BATTERY_MUTATE=walls DYNO_BATTERY_PAGE=/dev/stdout";
    let helpers = format!("DYNO_TEST_PROGRAM=$VM_TARGET/{} DYNO_TEST_PROBE=$VM_TARGET/{}", inner.display(), probe.display());
    let command = format!("{environment} {helpers} bash /payload/run/suite.sh \"$VM_TARGET/{}\"", test.display());
    Ok(Item { suite: Suite::Battery, name: "rows".into(), seconds: 900, command, programs: vec![test, inner, probe] })
}

/// Compiles a program that tests run inside sandboxes, because the machine has no compiler; its path below the target directory.
fn program(source: &str, program: &str) -> Result<PathBuf> {
    let program = PathBuf::from(program);
    let output = cargo::target().join(&program);
    fs::create_dir_all(cargo::target().join("vm")).context("mkdir vm")?;
    let mut command = Command::new("rustc");
    command.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=1", "-C", "strip=symbols", "-o"]).arg(output);
    cargo::run(command.arg(format!("dyno-runtime/tests/{source}.rs")))?;
    Ok(program)
}

/// A program that cargo made.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    name: String,
    kind: String,
    is_test: bool,
    /// Below the target directory.
    program: PathBuf,
}

fn build(what: &[&str]) -> Result<Vec<Built>> {
    println!("-----> Building the runtime's test programs");
    let mut command = Command::new("cargo");
    command.args(what).args(["--no-run", "--message-format=json-render-diagnostics"]).current_dir(cargo::root());
    let output = command.stderr(std::process::Stdio::inherit()).output().context("run cargo")?;
    ensure!(output.status.success(), "{command:?} failed ({})", output.status);
    let mut built = artifacts(&String::from_utf8(output.stdout)?, &cargo::target())?;
    ensure!(built.iter().any(|b| b.is_test), "cargo built no test program of dyno-runtime");
    // Cargo names them as they get ready.
    built.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

/// The programs among cargo's messages (one JSON object per line).
fn artifacts(messages: &str, target: &Path) -> Result<Vec<Built>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|l| l.starts_with('{')) {
        let message: Value = serde_json::from_str(line).with_context(|| format!("cargo's message {line}"))?;
        let Some(program) = message["executable"].as_str() else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        found.push(Built {
            name: text(&message["target"]["name"]),
            kind: text(&message["target"]["kind"][0]),
            is_test: message["profile"]["test"] == true,
            program: PathBuf::from(program).strip_prefix(target).with_context(|| format!("{program} is outside {}", target.display()))?.to_owned(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let line = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"n","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [line("lib", false, "null"), line("example", false, "\"/t/debug/examples/n\""), line("lib", true, "\"/t/debug/deps/n-1\"")];
        let found = artifacts(&messages.join("\n"), "/t".as_ref()).unwrap();
        let short: Vec<_> = found.iter().map(|b| (b.kind.as_str(), b.is_test, b.program.to_str().unwrap())).collect();
        assert_eq!(short, [("example", false, "debug/examples/n"), ("lib", true, "debug/deps/n-1")]);
        assert!(artifacts(&line("lib", true, "\"/elsewhere/n\""), "/t".as_ref()).is_err());
    }
}
