//! The sample apps of `rootfs/apps`, each through its whole life: deployed, changed, configured, rolled back, scaled,
//! restarted, destroyed.

use std::process::ExitCode;

use anyhow::Result;
use dyno_tests::{Platform, run};

#[path = "apps/life.rs"]
mod life;
#[path = "apps/own.rs"]
mod own;

use life::Sample;

/// What is common to the samples that say `Hello from web.1`.
const HELLO: Sample = Sample {
    name: "",
    command: "",
    says: "Hello from web.",
    edit: ("", "Hello from", "Hej from"),
    says_then: "Hej from web.",
    booted: "listening on 5000",
    formation: &["web=3"],
    downloads: false,
    own: |_, _| Ok(()),
};

fn flask(platform: &Platform) -> Result<()> {
    let sample = Sample {
        name: "flask",
        command: "gunicorn -b 0.0.0.0:$PORT app:app",
        edit: ("app.py", "Hello from", "Hej from"),
        booted: "Listening at: http://0.0.0.0:5000",
        downloads: true,
        own: own::flask,
        ..HELLO
    };
    sample.live(platform)
}

fn express(platform: &Platform) -> Result<()> {
    let edit = ("server.js", "Hello from", "Hej from");
    let sample = Sample { name: "express", command: "npm start", edit, downloads: true, own: own::express, ..HELLO };
    sample.live(platform)
}

fn sinatra(platform: &Platform) -> Result<()> {
    let sample = Sample {
        name: "sinatra",
        command: "bundle exec puma -b tcp://0.0.0.0:$PORT",
        edit: ("app.rb", "Hello from", "Hej from"),
        booted: "Listening on http://0.0.0.0:5000",
        own: own::sinatra,
        ..HELLO
    };
    sample.live(platform)
}

fn static_site(platform: &Platform) -> Result<()> {
    let sample = Sample {
        name: "static",
        command: "python3 .dyno/static/server.py '.'",
        says: "It is served.",
        edit: ("index.html", "It is served.", "It is served anew."),
        says_then: "It is served anew.",
        booted: "serving /app on port 5000",
        own: own::static_site,
        ..HELLO
    };
    sample.live(platform)
}

fn multi(platform: &Platform) -> Result<()> {
    let sample = Sample {
        name: "multi",
        command: "python web.py",
        edit: ("web.py", "Hello from", "Hej from"),
        formation: &["web=3", "worker=1", "clock=1"],
        own: own::multi,
        ..HELLO
    };
    sample.live(platform)
}

fn compiler(platform: &Platform) -> Result<()> {
    let sample = Sample {
        name: "compiler",
        command: "python3 web.py",
        says: "-----> The compiler compiled itself\n-----> Compiled slug is ",
        edit: ("bin/compile", "The compiler compiled itself", "The compiler compiled itself anew"),
        says_then: "-----> The compiler compiled itself anew\n-----> Compiled slug is ",
        own: own::compiler,
        ..HELLO
    };
    sample.live(platform)
}

fn main() -> ExitCode {
    run(&[], &[("flask", flask), ("express", express), ("sinatra", sinatra), ("static", static_site), ("multi", multi), ("compiler", compiler)])
}
