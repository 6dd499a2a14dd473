//! Who is asking: capabilities, and for ordinary users the ranges of ids that were given to them.

use super::{Finding, Severity, ground::Ground};
use crate::spec::Capability;

/// Capability, whether root can do without it, what its absence costs.
const CAPABILITIES: &[(&str, bool, &str)] = &[
    ("SYS_ADMIN", false, "no mounts, no namespaces"),
    ("SETUID", false, "sandboxes cannot be given ids of their own"),
    ("SETGID", false, "sandboxes cannot be given ids of their own"),
    ("SETPCAP", false, "capabilities cannot be taken away"),
    ("CHOWN", false, "what belongs to a sandbox cannot be given to it"),
    ("DAC_OVERRIDE", false, "state and control groups cannot be written"),
    ("FOWNER", false, "modes of what belongs to a sandbox cannot be set"),
    ("KILL", false, "sandboxes cannot be ended"),
    ("MKNOD", false, "/dev cannot be made"),
    ("NET_ADMIN", false, "the loopback of a private network cannot be brought up"),
    ("SYS_PTRACE", true, "descriptors and namespaces of running sandboxes cannot be reached"),
    ("SYS_RESOURCE", true, "limits cannot be raised above the caller's own hard ones (open files), nor oom_score_adj lowered again"),
];

pub(super) fn user(ground: &Ground) -> Vec<Finding> {
    let mut findings = Vec::new();
    if ground.root_user {
        findings.push(capabilities(ground));
    }
    findings.extend(rootless(ground));
    findings
}

fn capabilities(ground: &Ground) -> Finding {
    let status = ground.text("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok()).unwrap_or(0);
    let lacks = |name: &str| name.parse::<Capability>().is_ok_and(|c| held & c.bit() == 0);
    let lacking: Vec<&(&str, bool, &str)> = CAPABILITIES.iter().filter(|(name, ..)| lacks(name)).collect();
    let names: Vec<&str> = lacking.iter().map(|(name, ..)| *name).collect();
    let costs: Vec<String> = lacking.iter().map(|(name, _, costs)| format!("{name}: {costs}")).collect();
    let found = if names.is_empty() { "all that sandboxes take".to_owned() } else { format!("without {}", names.join(", ")) };
    let fix = "run with them: CapabilityBoundingSet= in the unit, --cap-add in a container";
    let needed = lacking.iter().any(|(_, optional, _)| !optional);
    let finding = Finding::new("user", "capabilities", found).weighs(if needed { Severity::Needed } else { Severity::Wanted });
    finding.missing_unless(!needed, costs.join("; "), fix).limited_unless(names.is_empty(), costs.join("; "), fix)
}

/// For root these only tell what others could do.
fn rootless(ground: &Ground) -> Vec<Finding> {
    let severity = if ground.root_user { Severity::Note } else { Severity::Wanted };
    let costs = if ground.root_user { "ordinary users have one id in their sandboxes" } else { "this user has one id in its sandboxes" };
    let mut findings: Vec<Finding> = ["newuidmap", "newgidmap"]
        .map(|name| {
            let found = ground.program(name);
            let text = found.as_ref().map_or_else(|| "not installed".to_owned(), |path| path.display().to_string());
            Finding::new("user", name, text).weighs(severity).missing_unless(found.is_some(), costs, "apt install uidmap")
        })
        .into();
    for file in ["subuid", "subgid"] {
        let path = format!("/etc/{file}");
        let name = if ground.root_user { None } else { Some(names(ground)) };
        let most = ranges(&ground.text(&path).unwrap_or_default(), name.as_deref());
        let found = if most == 0 { "no range".to_owned() } else { format!("{most} ids") };
        let fix = format!("usermod --add-{file}s 100000-165535 USER");
        findings.push(Finding::new("user", path, found).weighs(severity).missing_unless(most > 0, costs, fix.clone()).limited_unless(
            most >= 65536,
            "ids above are not there inside",
            fix,
        ));
    }
    findings
}

/// Under which an ordinary user stands in these files: the number, and the name.
fn names(ground: &Ground) -> Vec<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = ground.text("/etc/passwd").unwrap_or_default();
    let name = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))
        .map(|fields| fields[0].to_owned());
    std::iter::once(uid).chain(name).collect()
}

/// The longest range of one of `names`, or of anybody.
fn ranges(text: &str, names: Option<&[String]>) -> u64 {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let count: u64 = fields.nth(1)?.trim().parse().ok()?;
        names.is_none_or(|names| names.iter().any(|n| n == owner)).then_some(count)
    };
    text.lines().filter_map(parse).max().unwrap_or(0)
}
