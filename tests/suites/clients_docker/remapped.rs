//! `userns-remap`: an engine all of whose containers are in a user namespace.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use dyno_tests::{
    clients::{Outcome, Sayings, field, private, started, status},
    until,
};
use serde_json::json;

use super::{Docker, IMAGE, Told, config, engine};

/// A second engine, which sees ranges of ids that this host's `/etc/subuid` need not have.
pub fn remapped(docker: &Docker) -> Result<Outcome> {
    let desk = &docker.desk;
    let ranges = desk.write("subid", "nobody:700000:65536\nnogroup:700000:65536\n", 0o644)?;
    let mut settings = config(desk, "mapped");
    settings["userns-remap"] = json!("nobody:nogroup");
    let over: [(&Path, &str); 2] = [(&ranges, "/etc/subuid"), (&ranges, "/etc/subgid")];
    let client = Told(desk, "mapped.sock");
    let mut daemon = started(&mut private(&over, &engine(desk, "mapped", &settings)?), &desk.path("mapped.log"), || client.ok(&["version"]).is_ok())?;
    let result = look(docker, &client).with_context(|| dyno_tests::clients::tail(&desk.path("mapped.log")));
    let removed = client.say(&["rm", "--force", "mapped"]);
    daemon.stop()?;
    result?;
    removed?;
    Ok(Outcome::Seen)
}

fn look(docker: &Docker, client: &Told) -> Result<()> {
    client.ok(&["load", "--input", &docker.desk.text("bench.tar")])?;
    let told = client.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        IMAGE,
        "sh",
        "-c",
        "cat /proc/self/uid_map; stat -c %u /data/words; echo x > /data/new && cat /data/new; id -u",
    ])?;
    ensure!(told.split_whitespace().collect::<Vec<_>>() == ["0", "700000", "65536", "0", "x", "0"], "{told}");
    client.ok(&["run", "--detach", "--name", "mapped", "--network", "none", "--user", "app", "--memory", "64m", IMAGE, "sleep", "1000"])?;
    let pid: u32 = client.ok(&["inspect", "--format", "{{.State.Pid}}", "mapped"])?.parse()?;
    let uid = until(10, "the program runs", || Ok(Some(field(&status(pid)?, "Uid")?.to_owned())))?;
    ensure!(uid.starts_with("701000\t"), "{uid}");
    let told = client.ok(&["exec", "mapped", "sh", "-c", "id -u; readlink /proc/self/ns/user"])?;
    ensure!(told == format!("1000\n{}", fs::read_link(format!("/proc/{pid}/ns/user"))?.display()), "{told}");
    client.ok(&["stop", "--time", "0", "mapped"])?;
    Ok(())
}
