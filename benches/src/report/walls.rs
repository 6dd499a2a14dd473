//! Which walls each peer raised, read from inside by the probe: who raises fewer may be quicker.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;

use crate::{figures::Figures, peers::ALL};

/// Namespaces, by the names that the kernel gives them and that the table does.
const NAMESPACES: [(&str, &str); 7] =
    [("user", "user"), ("mnt", "mount"), ("pid", "pid"), ("net", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")];

/// File systems, by their magic numbers (statfs(2)).
const TYPES: [(&str, &str); 5] = [("794c7630", "overlay"), ("73717368", "squashfs"), ("ef53", "ext4"), ("1021994", "tmpfs"), ("9123683e", "btrfs")];

/// Lines of the probe by their first word; of those that repeat, the first.
fn seen(text: &str) -> BTreeMap<&str, &str> {
    let mut seen = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|l| l.split_once(' ')) {
        seen.entry(name).or_insert(value.trim());
    }
    seen
}

/// Writes the section.
pub fn write(figures: &Figures, page: &mut String) -> Result<()> {
    let outside = seen(&figures.outside);
    writeln!(page, "## Walls\n")?;
    writeln!(
        page,
        "Told by a probe that each ran in place of the payload. \"own\" namespaces are others than the host's; limits are those that were asked for.\n"
    )?;
    writeln!(
        page,
        "| | own namespaces | not | ids mapped | capabilities | no new privileges | filter | loopback | mounts seen | root | inherited descriptors | limits |"
    )?;
    writeln!(page, "|---|---|---|--:|---|---|---|---|--:|---|--:|---|")?;
    for entry in &ALL {
        if let Some((name, text)) = figures.probes.iter().find(|(name, _)| name == entry.name) {
            writeln!(page, "| {name} | {} | {} |", row(&seen(text), &outside).join(" | "), entry.limits)?;
        }
    }
    Ok(writeln!(page)?)
}

fn row(seen: &BTreeMap<&str, &str>, outside: &BTreeMap<&str, &str>) -> [String; 10] {
    let get = |name: &str| seen.get(name).copied().unwrap_or("?");
    let own = |kind: &str| {
        let (inside, outside) = (seen.get(format!("ns.{kind}").as_str()), outside.get(format!("ns.{kind}").as_str()));
        inside.is_some() && inside != outside
    };
    let names = |own_ones: bool| NAMESPACES.iter().filter(|(kind, _)| own(kind) == own_ones).map(|(_, name)| *name).collect::<Vec<_>>();
    let listed = |all: Vec<&str>| {
        if all.len() == NAMESPACES.len() {
            "all 7".to_owned()
        } else if all.is_empty() {
            "-".to_owned()
        } else {
            all.join(", ")
        }
    };
    let yes = |value: &str, yes: &str| if get(value) == yes { "yes" } else { "no" }.to_owned();
    let mapped = get("uid_map").split_whitespace().nth(2).unwrap_or("?");
    let kind = TYPES.iter().find(|(magic, _)| *magic == get("root.type")).map_or(get("root.type"), |(_, name)| name);
    [
        listed(names(true)),
        listed(names(false)),
        if mapped == "4294967295" { "all".to_owned() } else { mapped.to_owned() },
        capabilities(seen),
        yes("status.NoNewPrivs", "1"),
        yes("status.Seccomp", "2"),
        if own("net") { format!("own, {}", get("lo")) } else { "host's".to_owned() },
        get("mounts").to_owned(),
        format!("{kind}, {}", if get("root.writable") == "yes" { "writable" } else { "read-only" }),
        get("descriptors").to_owned(),
    ]
}

/// How many there are in the effective and in the bounding set.
fn capabilities(seen: &BTreeMap<&str, &str>) -> String {
    let count = |set: &str| seen.get(set).and_then(|hex| u64::from_str_radix(hex, 16).ok()).map(u64::count_ones);
    let sets = ["status.CapInh", "status.CapPrm", "status.CapEff", "status.CapBnd", "status.CapAmb"].map(count);
    match sets {
        [Some(0), Some(0), Some(0), Some(0), Some(0)] => "none".to_owned(),
        [_, _, Some(effective), Some(bounding), _] => format!("{effective} (bounding {bounding})"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_says_becomes_a_row() {
        let outside = "ns.user user:[1]\nns.mnt mnt:[1]\nns.pid pid:[1]\nns.net net:[1]\nns.ipc ipc:[1]\nns.uts uts:[1]\nns.cgroup cgroup:[1]\n";
        let inside = format!(
            "{}lo up\nmounts 3\nroot.type 794c7630\nroot.writable yes\ndescriptors 0\nuid_map          0    1048576      65536\nstatus.NoNewPrivs 1\nstatus.Seccomp 2\n",
            outside.replace("[1]", "[2]").replace("uts:[2]", "uts:[1]")
        );
        let row = row(&seen(&inside), &seen(outside));
        assert_eq!(row[..3], ["user, mount, pid, net, ipc, cgroup", "uts", "65536"]);
        assert_eq!(row[3..], ["?", "yes", "yes", "own, up", "3", "overlay, writable", "0"]);
    }
}
