//! What may be built into our programs: `deny.toml`, checked twice. Here by what cargo knows without the network, in a second, with every
//! `cargo xtask tidy`: licences, sources, packages that are not wanted. And by cargo-deny (`cargo xtask deny`), which has to be built for minutes
//! and knows of advisories as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cargo;

/// The packages whose programs are given to others.
const SHIPPED: [&str; 2] = ["dyno-runtime", "dyno-manager"];

/// The one registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// `cargo xtask deny`: cargo-deny, installed first if it is not there.
pub fn run() -> Result<()> {
    let deny = cargo_deny()?;
    let check = |what: &[&str]| {
        let mut command = Command::new(&deny);
        command.current_dir(cargo::root()).args(["check", "--hide-inclusion-graph"]).args(what);
        command
    };
    cargo::run(&mut check(&["licenses", "bans", "sources"]))?;
    let fetched = Command::new(&deny).current_dir(cargo::root()).args(["fetch", "db"]).output().context("run cargo-deny")?;
    if !fetched.status.success() {
        let said = String::from_utf8_lossy(&fetched.stderr);
        println!("skipped: advisories: the database cannot be fetched: {}", said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default());
        return Ok(());
    }
    cargo::run(&mut check(&["advisories"]))
}

/// In PATH, or in the target directory.
fn cargo_deny() -> Result<PathBuf> {
    let tools = cargo::target().join("tools");
    let ours = tools.join("bin/cargo-deny");
    for program in [PathBuf::from("cargo-deny"), ours.clone()] {
        if Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Ok(program);
        }
    }
    println!("-----> Installing cargo-deny (some minutes, once)");
    // Unoptimised: it is built for longer than it runs.
    cargo::run(Command::new("cargo").args(["install", "cargo-deny", "--locked", "--debug", "--root"]).arg(&tools))?;
    Ok(ours)
}

/// What is built in and may not be, for `cargo xtask tidy`.
pub fn complaints() -> Result<Vec<String>> {
    let text = fs::read_to_string(cargo::root().join("deny.toml")).context("read deny.toml")?;
    let rules = Rules::read(&text)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // What this host builds is there already: nothing is downloaded.
    command.args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &host]).current_dir(cargo::root());
    let output = command.output().context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    rules.complaints(&serde_json::from_slice(&output.stdout).context("the output of cargo metadata")?)
}

/// As far as both checks have them: licences that are allowed, packages that are not.
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
}

impl Rules {
    /// One list per line, as the file has it.
    fn read(text: &str) -> Result<Self> {
        let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let (mut section, mut licences, mut banned) = (String::new(), BTreeSet::new(), BTreeSet::new());
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if section == "licenses" && line.starts_with("allow = [") {
                licences.extend(quoted(line));
            } else if section == "bans" && line.starts_with("{ crate = ") {
                banned.extend(quoted(line).into_iter().next());
            }
        }
        ensure!(!licences.is_empty() && !banned.is_empty(), "deny.toml has no licences, or bans nothing");
        Ok(Self { licences, banned })
    }

    fn complaints(&self, metadata: &Value) -> Result<Vec<String>> {
        let packages = metadata["packages"].as_array().context("no packages")?;
        let names: BTreeMap<&str, &str> = packages.iter().filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
        let mut found = Vec::new();
        for package in packages {
            let (name, version) = (package["name"].as_str().unwrap_or_default(), package["version"].as_str().unwrap_or_default());
            match package["source"].as_str() {
                None | Some(REGISTRY) => {}
                Some(source) => found.push(format!("{name} {version}: comes from {source}")),
            }
            let licence = package["license"].as_str().unwrap_or_default();
            if !self.allows(licence) {
                found.push(format!("{name} {version}: licence {licence:?} is not among those of deny.toml"));
            }
        }
        let shipped = shipped(metadata, &names)?;
        let banned = shipped.iter().filter_map(|id| names.get(id)).filter(|name| self.banned.contains(**name));
        found.extend(banned.map(|name| format!("{name}: is built into our programs and banned by deny.toml")));
        Ok(found)
    }

    /// SPDX: `OR`, `AND`, `WITH`, parentheses, and the old `/` for `OR`.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "\u{a0}WITH\u{a0}");
        let words: Vec<&str> = spaced.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let mut rest = &words[..];
        self.any(&mut rest) && rest.is_empty()
    }

    /// Reads on to the end of the expression, whatever is decided before.
    fn any(&self, words: &mut &[&str]) -> bool {
        let mut holds = self.all(words);
        while let ["OR", rest @ ..] = words {
            *words = rest;
            holds |= self.all(words);
        }
        holds
    }

    fn all(&self, words: &mut &[&str]) -> bool {
        let mut holds = self.one(words);
        while let ["AND", rest @ ..] = words {
            *words = rest;
            holds &= self.one(words);
        }
        holds
    }

    fn one(&self, words: &mut &[&str]) -> bool {
        match words {
            ["(", rest @ ..] => {
                *words = rest;
                let holds = self.any(words);
                let closed = words.first() == Some(&")");
                *words = words.get(1..).unwrap_or_default();
                holds && closed
            }
            [name, rest @ ..] => {
                *words = rest;
                self.licences.contains(&name.replace('\u{a0}', " "))
            }
            [] => false,
        }
    }
}

/// Ids of all that [`SHIPPED`] are built from and with; tests' own packages are not among it.
fn shipped<'a>(metadata: &'a Value, names: &BTreeMap<&str, &str>) -> Result<BTreeSet<&'a str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("no graph of packages")?;
    let by_id: BTreeMap<&str, &Value> = nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let mut open: Vec<&str> = by_id.keys().copied().filter(|id| names.get(id).is_some_and(|name| SHIPPED.contains(name))).collect();
    ensure!(open.len() == SHIPPED.len(), "the graph lacks one of {SHIPPED:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for needs in by_id.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten() {
            let kinds = needs["dep_kinds"].as_array().into_iter().flatten();
            if kinds.into_iter().any(|kind| kind["kind"] != "dev") {
                open.extend(needs["pkg"].as_str());
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Rules {
        Rules::read("[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Apache-2.0 WITH LLVM-exception\", \"Unicode-3.0\"]\n[bans]\ndeny = [\n    { crate = \"bad\", reason = \"x\" },\n]\n").unwrap()
    }

    #[test]
    fn expressions() {
        let rules = rules();
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-2.0 OR (MIT AND (Apache-2.0))",
        ] {
            assert!(rules.allows(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "OR MIT",
            "GPL-2.0 WITH Classpath-exception-2.0",
            "(MIT OR X) AND GPL-3.0",
            "mit",
        ] {
            assert!(!rules.allows(bad), "{bad}");
        }
    }

    #[test]
    fn every_rule_bites() {
        let package =
            |name: &str, source: Value, license: &str| json!({ "id": name, "name": name, "version": "1.0.0", "source": source, "license": license });
        let node = |id: &str, deps: &[(&str, Value)]| json!({ "id": id, "deps": deps.iter().map(|(pkg, kind)| json!({ "pkg": pkg, "dep_kinds": [{ "kind": kind }] })).collect::<Vec<_>>() });
        let check = |extra: Value, needs: &[(&str, Value)], want: &str| {
            let packages = vec![package("dyno-runtime", Value::Null, "MIT"), package("dyno-manager", Value::Null, "MIT"), extra.clone()];
            let nodes = vec![node("dyno-runtime", needs), node("dyno-manager", &[]), node(extra["id"].as_str().unwrap(), &[])];
            let found = rules().complaints(&json!({ "packages": packages, "resolve": { "nodes": nodes } })).unwrap().join("; ");
            assert_eq!(found, want);
        };
        let crates_io = json!(REGISTRY);
        check(package("good", crates_io.clone(), "MIT"), &[("good", Value::Null)], "");
        check(package("far", json!("git+https://example.com/x"), "MIT"), &[], "far 1.0.0: comes from git+https://example.com/x");
        check(package("gpl", crates_io.clone(), "GPL-3.0"), &[], "gpl 1.0.0: licence \"GPL-3.0\" is not among those of deny.toml");
        check(package("bad", crates_io.clone(), "MIT"), &[("bad", Value::Null)], "bad: is built into our programs and banned by deny.toml");
        check(package("bad", crates_io.clone(), "MIT"), &[("bad", json!("build"))], "bad: is built into our programs and banned by deny.toml");
        // For tests only.
        check(package("bad", crates_io, "MIT"), &[("bad", json!("dev"))], "");
    }
}
