//! The life of a sample app, step by step; every step looks at what the app answers, what the command line says and what
//! the kernel shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    Platform, Process,
    confinement::{Confined, STANDARD_1X, apart},
    sample, until,
};
use serde_json::Value;

/// A sample app and what can be seen of it from outside.
pub struct Sample {
    /// Its folder, and the name under which it is deployed.
    pub name: &'static str,
    /// What `web` runs.
    pub command: &'static str,
    /// Part of what `/` answers.
    pub says: &'static str,
    /// The change that makes its second version: file, old text, new text.
    pub edit: (&'static str, &'static str, &'static str),
    /// Part of what `/` answers then.
    pub says_then: &'static str,
    /// Part of what it logs when it is ready.
    pub booted: &'static str,
    /// What it is scaled to: three web dynos among it.
    pub formation: &'static [&'static str],
    /// Whether its first build asks registries.
    pub downloads: bool,
    /// What only this app does; called when three web dynos are up.
    pub own: fn(&Platform, &str) -> Result<()>,
}

/// A launch as the API lists it, and its processes.
#[derive(Debug)]
struct Launch {
    id: String,
    created_at: String,
    confined: Confined,
}

impl Sample {
    /// From the first deploy to the end.
    pub fn live(&self, platform: &Platform) -> Result<()> {
        let source = sample(self.name)?;
        self.deployed(platform, source.path()).context("deploy")?;
        self.deployed_again(platform, source.path()).context("second deploy of the same tree")?;
        self.changed(platform, source.path()).context("deploy of a change")?;
        self.configured(platform).context("config:set")?;
        self.rolled_back(platform).context("rollback")?;
        let before = self.scaled(platform).context("scale")?;
        self.shared(platform).context("requests to three dynos")?;
        (self.own)(platform, self.name)?;
        let now = self.restarted(platform, &before).context("restart")?;
        self.destroyed(platform, &now).context("destroy")
    }

    fn deployed(&self, platform: &Platform, source: &Path) -> Result<()> {
        let output = platform.deploy(self.name, source)?;
        for part in ["-----> Compressing...", "       Released v1\n", &format!("       http://{}.localhost:", self.name)] {
            ensure!(output.contains(part), "no {part:?} in the output of the build:\n{output}");
        }
        self.answers(platform, self.says)?;
        // Its way to the log is through the dyno's init and a FIFO: later than the answer on a busy host.
        platform.await_log(self.name, self.booted, 20)?;
        let log = platform.ok(&["logs", "-n", "1500", "-a", self.name])?;
        for line in [
            &format!("heroku[web.1]: Starting process with command `{}`", self.command),
            "heroku[web.1]: State changed from starting to up",
            "heroku[api]: Build succeeded",
            "heroku[api]: Release v1 created by user operator",
        ] {
            ensure!(log.contains(line), "no {line:?} in the log:\n{log}");
        }
        self.recorded(platform)
    }

    /// The record of the build names every request that it made.
    fn recorded(&self, platform: &Platform) -> Result<()> {
        let builds = platform.json(&["builds", "-a", self.name])?;
        ensure!(builds[0]["status"] == "succeeded" && builds[0]["egress"] == "registries", "{builds}");
        let file = format!("builds/{}.requests.jsonl", builds[0]["id"].as_str().context("id")?);
        let text = fs::read_to_string(platform.state().join(&file)).context(file)?;
        let requests: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if !self.downloads {
            ensure!(requests.is_empty(), "a build that needs nothing asked for {text}");
            return Ok(());
        }
        let registries = format!("{}.registries", std::env::var("DYNO_STACK")?);
        let registries = fs::read_to_string(&registries).context(registries)?;
        let good = |r: &&Value| r["method"] == "CONNECT" && r["port"] == 443 && r["allowed"] == true && r["status"] == 200;
        let bytes: u64 = requests.iter().filter(good).filter_map(|r| r["bytes_down"].as_u64()).sum();
        let listed = |r: &Value| registries.lines().any(|host| r["host"] == host);
        ensure!(requests.iter().all(listed), "a host that no client of the stack calls its registry: {text}");
        ensure!(bytes > 100 << 10, "the packages were {bytes} bytes? {text}");
        Ok(())
    }

    fn deployed_again(&self, platform: &Platform, source: &Path) -> Result<()> {
        platform.redeploy(self.name, source)?;
        let (first, second) = (self.slug(platform, 1)?, self.slug(platform, 2)?);
        ensure!(first == second, "the slugs of one tree differ: {first} and {second}");
        self.answers(platform, self.says)
    }

    fn changed(&self, platform: &Platform, source: &Path) -> Result<()> {
        let (file, old, new) = self.edit;
        let text = fs::read_to_string(source.join(file))?;
        ensure!(text.contains(old), "no {old:?} in {file}");
        fs::write(source.join(file), text.replace(old, new))?;
        platform.redeploy(self.name, source)?;
        ensure!(self.slug(platform, 3)? != self.slug(platform, 1)?, "another tree, the same slug");
        self.answers(platform, self.says_then)
    }

    fn configured(&self, platform: &Platform) -> Result<()> {
        platform.ok(&["config:set", "GREETING=god dag", "-a", self.name])?;
        let release = &platform.json(&["releases:info", "-a", self.name])?;
        ensure!(release["version"] == 4 && release["current"] == true, "{release}");
        ensure!(release["description"] == "Set GREETING config vars", "{release}");
        self.answers(platform, self.says_then)?;
        ensure!(self.greeting(platform)?.as_deref() == Some("god dag"), "the dyno was started without the config var");
        let shown = platform.ok(&["run", "-a", self.name, "--no-tty", "echo \"$GREETING, $DYNO\""])?;
        ensure!(shown == "god dag, run.1\n", "{shown:?}");
        Ok(())
    }

    fn rolled_back(&self, platform: &Platform) -> Result<()> {
        let said = platform.try_dyno(&["rollback", "v1", "-a", self.name])?;
        let told = format!("Rolling back {} to v1... done, v5\n", self.name);
        ensure!(said.status == 0 && said.stderr.starts_with(&told), "{said:?}");
        self.answers(platform, self.says)?;
        ensure!(self.greeting(platform)?.is_none(), "the config var is still there");
        ensure!(platform.ok(&["config", "-a", self.name])?.lines().all(|l| !l.contains("GREETING")), "config still shows it");
        let release = &platform.json(&["releases:info", "-a", self.name])?;
        ensure!(release["version"] == 5 && release["description"] == "Rollback to v1", "{release}");
        Ok(())
    }

    fn scaled(&self, platform: &Platform) -> Result<Vec<Launch>> {
        let mut wish = vec!["ps:scale", "-a", self.name];
        wish.extend(self.formation);
        let said = platform.try_dyno(&wish)?;
        let told = "Scaling dynos... done, now running ";
        ensure!(said.status == 0 && said.stderr.starts_with(told) && said.stderr.contains("web at 3:Standard-1X"), "{said:?}");
        platform.wait_up(self.name)?;
        let text = platform.ok(&["ps", "web", "-a", self.name])?;
        let mut lines = text.lines();
        ensure!(lines.next() == Some(&format!("=== web (Standard-1X): {} (3)", self.command)), "{text}");
        for (number, line) in (1..=3).zip(lines.skip(1)) {
            ensure!(line.starts_with(&format!("web.{number}: up ")), "{text}");
        }
        self.launches(platform)
    }

    /// Three dynos share the requests, as the router's log lines and (where the app tells) its answers show.
    fn shared(&self, platform: &Platform) -> Result<()> {
        let all: BTreeSet<String> = ["web.1", "web.2", "web.3"].map(str::to_owned).into();
        let (mut told, mut logged) = (BTreeSet::new(), BTreeSet::new());
        let tells = self.says.ends_with("web.");
        // Drawn by lot: that one of three is left out of 100 happens once in 10^17 times.
        for _ in 0..100 {
            let body = platform.page(self.name, "/")?;
            told.extend(all.iter().filter(|name| body.contains(name.as_str())).cloned());
            if !tells || told == all {
                let lines = platform.ok(&["logs", "-n", "1500", "-s", "heroku", "-p", "router", "-a", self.name])?;
                let dynos = lines.lines().filter_map(|l| l.split_once(" dyno=")?.1.split(' ').next()).map(str::to_owned);
                logged.extend(dynos);
            }
            if logged == all {
                return Ok(());
            }
        }
        anyhow::bail!("100 requests were answered by {told:?}, logged {logged:?}")
    }

    fn restarted(&self, platform: &Platform, before: &[Launch]) -> Result<Vec<Launch>> {
        platform.ok(&["ps:restart", "-a", self.name])?;
        platform.wait_up(self.name)?;
        let now = self.launches(platform)?;
        for (old, new) in before.iter().flat_map(|old| now.iter().map(move |new| (old, new))) {
            ensure!(old.id != new.id && old.created_at < new.created_at, "{} was not replaced: {}", old.id, new.id);
            ensure!(new.confined.pids.iter().all(|pid| !old.confined.pids.contains(pid)), "{old:?} and {new:?} share a process");
        }
        for old in before {
            self.left(platform, old)?;
        }
        self.answers(platform, self.says)?;
        Ok(now)
    }

    fn destroyed(&self, platform: &Platform, last: &[Launch]) -> Result<()> {
        platform.ok(&["apps:destroy", self.name, "--confirm", self.name])?;
        let answer = platform.fetch(self.name, "/")?;
        ensure!(answer.status == 404 && answer.body.starts_with("No such app\n"), "{answer:?}");
        let said = platform.try_dyno(&["ps", "-a", self.name])?;
        ensure!(said.status == 1 && said.stderr.contains(self.name), "{said:?}");
        for launch in last {
            self.left(platform, launch)?;
        }
        Ok(())
    }

    /// Nothing is left of a launch that was told to end: no process, no control group.
    fn left(&self, platform: &Platform, launch: &Launch) -> Result<()> {
        until(20, &format!("the control groups of dyno {} are gone", launch.id), || {
            let held = ["memory.limit_in_bytes", "memory.max", "pids.max", "cpu.shares", "cpu.weight"];
            Ok(held.iter().all(|file| platform.group_file(&launch.id, file).is_err()).then_some(()))
        })?;
        let alive: Vec<_> = launch.confined.pids.iter().filter(|pid| Process::find(**pid).is_some()).collect();
        ensure!(alive.is_empty(), "processes {alive:?} of dyno {} outlived it", launch.id);
        Ok(())
    }

    /// The launches of the formation; each has its size's limits and is confined, apart from all others.
    fn launches(&self, platform: &Platform) -> Result<Vec<Launch>> {
        let list = platform.json(&["ps", "-a", self.name])?;
        let mut launches = BTreeMap::new();
        for dyno in list.as_array().context("list")? {
            let text = |key: &str| dyno[key].as_str().map(str::to_owned).with_context(|| format!("{key} of {dyno}"));
            let (id, name) = (text("id")?, text("name")?);
            ensure!(text("state")? == "up" && text("size")? == "Standard-1X", "{dyno}");
            ensure!(platform.limits(&id)? == STANDARD_1X, "{name} has {:?}", platform.limits(&id)?);
            let confined = platform.confined(&id).with_context(|| name.clone())?;
            launches.insert(name, Launch { id, created_at: text("created_at")?, confined });
        }
        let wanted: usize = self.formation.iter().filter_map(|f| f.rsplit('=').next()?.parse::<usize>().ok()).sum();
        ensure!(launches.len() == wanted, "{:?} are there, wanted is {:?}", launches.keys(), self.formation);
        let launches: Vec<_> = launches.into_values().collect();
        for (i, one) in launches.iter().enumerate() {
            for other in &launches[i + 1..] {
                apart(&one.confined, &other.confined)?;
            }
        }
        Ok(launches)
    }

    fn answers(&self, platform: &Platform, part: &str) -> Result<()> {
        let body = platform.page(self.name, "/")?;
        ensure!(body.contains(part), "no {part:?} in the answer: {body}");
        Ok(())
    }

    /// The config var, as the process of `web.1` has it.
    fn greeting(&self, platform: &Platform) -> Result<Option<String>> {
        let dynos = platform.json(&["ps", "web", "-a", self.name])?;
        platform.variable(dynos[0]["id"].as_str().context("id")?, "GREETING")
    }

    /// The checksum of the slug of a release.
    fn slug(&self, platform: &Platform, version: u32) -> Result<String> {
        let release = platform.json(&["releases:info", &format!("v{version}"), "-a", self.name])?;
        let slug = release["slug"]["id"].as_str().context("slug of the release")?;
        let slug = platform.call("GET", &format!("/apps/{}/slugs/{slug}", self.name), &Value::Null)?.json();
        let checksum = slug["checksum"].as_str().unwrap_or_default().to_owned();
        ensure!(checksum.len() == "SHA256:".len() + 64, "{slug}");
        Ok(checksum)
    }
}
