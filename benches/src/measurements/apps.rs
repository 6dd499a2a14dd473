//! A real app: from the request to the first byte of its first answer, Flask and Express from the repository's samples.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    agent::{Agent, App, Request, Run, Setup, Tier},
    peers::{name, setup},
    whole::Bench,
};

/// Name of the table: the condition is the app's name.
pub const TABLE: &str = "apps";

/// Runs of each.
const RUNS: usize = 10;

/// Runs in one turn.
const TURN: usize = 2;

/// Where they listen, each in its own network.
const PORT: u16 = 5000;

/// Apps, and how their programs are called.
const APPS: [(&str, &[&str]); 2] =
    [("flask", &["/usr/bin/python3", "-m", "gunicorn", "-b", "0.0.0.0:5000", "app:app"]), ("express", &["/usr/bin/node", "server.js"])];

/// Measures both, each tier in turns.
pub fn measure(bench: &mut Bench) -> Result<()> {
    let stack = bench.options.stack.clone().context("no stack image was given (--stack)")?;
    let slugs = bench.options.slugs.clone().context("no slugs were given (--slugs)")?;
    let sha256 = fs::read_to_string(format!("{}.sha256", stack.display())).context("the stack's hash")?.trim().to_owned();
    for (title, argv) in APPS {
        let slug = slugs.join(title);
        let app = App {
            stack: (stack.clone(), sha256.clone()),
            argv: argv.iter().map(|w| (*w).to_owned()).collect(),
            env: environment(),
            port: PORT,
            slug,
        };
        if let Err(e) = one(bench, title, &app) {
            bench.failed(&format!("apps: {title}"), &e);
        }
    }
    Ok(())
}

fn environment() -> Vec<(String, String)> {
    let all = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/app"),
        ("PORT", "5000"),
        ("DYNO", "web.1"),
        ("PYTHONPATH", "/app/.packages"),
        ("NODE_ENV", "production"),
    ];
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn one(bench: &mut Bench, title: &str, app: &App) -> Result<()> {
    ensure!(Path::new(&app.slug).is_dir(), "{}: not there", app.slug.display());
    let mut agents = Vec::new();
    for (subject, tier) in [(name::COLD, Tier::Cold), (name::PARTS, Tier::Parts), (name::PARKED, Tier::Parked)] {
        // A whole app's sandbox is parked one at a time.
        let setup = Setup { ready: 2, ..setup(&bench.stage, tier, &format!("app-{tier:?}").to_lowercase()) };
        match Agent::start(&setup, 0) {
            Ok(agent) => agents.push((subject, agent, Vec::<Run>::new())),
            Err(e) => bench.failed(&format!("apps: {subject}"), &e),
        }
    }
    // The first reads files.
    for turn in 0..=bench.runs(RUNS).div_ceil(TURN) {
        bench.tell(&format!("apps: {title}, turn {turn}"));
        for (_, agent, runs) in &mut agents {
            let taken = agent.samples(&Request::App { app: app.clone(), runs: TURN })?;
            if turn > 0 {
                runs.extend(taken);
            }
        }
    }
    for (subject, agent, runs) in agents {
        bench.figures.add_runs(TABLE, subject, title, &runs);
        agent.finish()?;
    }
    Ok(())
}
