//! Our profile for Docker's programs against Docker's own, and against Podman's, where somebody has them.

use super::*;

#[derive(serde::Deserialize)]
struct Oci {
    #[serde(default, rename = "defaultErrnoRet")]
    errno: Option<u32>,
    syscalls: Vec<OciRule>,
}

#[derive(serde::Deserialize)]
struct OciRule {
    names: Vec<String>,
    action: String,
    #[serde(default, rename = "errnoRet")]
    errno: Option<u32>,
    #[serde(default)]
    args: Option<Vec<OciArg>>,
    #[serde(default)]
    includes: OciWhen,
    #[serde(default)]
    excludes: OciWhen,
}

#[derive(serde::Deserialize)]
struct OciArg {
    index: usize,
    value: u64,
    #[serde(default, rename = "valueTwo")]
    two: u64,
    op: String,
}

#[derive(Default, serde::Deserialize)]
struct OciWhen {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Option<Vec<String>>,
}

impl Oci {
    /// The rule with the most comparisons that holds, as libseccomp orders them; the default.
    fn answer(&self, call: &str, args: [u64; 6], capability: &str) -> u32 {
        let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let caps = |when: &OciWhen| when.caps.iter().any(|c| c == &format!("CAP_{capability}"));
        let arches = |when: &OciWhen| when.arches.as_ref().is_some_and(|a| a.iter().any(|a| a == arch));
        let applies = |r: &&OciRule| {
            let included = (r.includes.caps.is_empty() || caps(&r.includes)) && (r.includes.arches.is_none() || arches(&r.includes));
            included && !caps(&r.excludes) && !arches(&r.excludes) && r.names.iter().any(|n| n == call)
        };
        let holds = |a: &OciArg| match a.op.as_str() {
            "SCMP_CMP_EQ" => args[a.index] == a.value,
            "SCMP_CMP_NE" => args[a.index] != a.value,
            "SCMP_CMP_LT" => args[a.index] < a.value,
            "SCMP_CMP_GT" => args[a.index] > a.value,
            "SCMP_CMP_MASKED_EQ" => args[a.index] & a.value == a.two,
            other => panic!("{other}"),
        };
        let found = self.syscalls.iter().filter(applies).filter(|r| r.args.iter().flatten().all(holds));
        let found = found.max_by_key(|r| (r.action == "SCMP_ACT_ALLOW", r.args.iter().flatten().count()));
        match found {
            Some(rule) if rule.action == "SCMP_ACT_ALLOW" => RET_ALLOW,
            Some(rule) => RET_ERRNO | rule.errno.or(self.errno).unwrap_or(1),
            None => RET_ERRNO | self.errno.unwrap_or(1),
        }
    }
}

/// Against the profile itself, where somebody has it: DYNO_DOCKER_PROFILE is a copy of github.com/moby/profiles seccomp/default.json.
#[test]
fn the_docker_profile_against_dockers_own() {
    let Some(path) = std::env::var_os("DYNO_DOCKER_PROFILE") else {
        return println!("skipped: DYNO_DOCKER_PROFILE names no copy of Docker's default.json");
    };
    let theirs: Oci = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut asked, mut different) = (0, Vec::new());
    for capability in Capability::all() {
        let ours = filter(&Profile::Docker, &[capability.name()]);
        for (call, number) in table::calls() {
            for first in [0, 1, 8, 12, 16, 17, 38, 40, 45, 0x11, 0x2_0000, 0x2_0008, 0x4_0000, 0x1000_0011, 0xffff_ffff] {
                asked += 1;
                let args = [first, 0, 0, 0, 0, 0];
                if run(&ours, AUDIT_ARCH, number, args) != theirs.answer(call, args, capability.name()) {
                    different.push(format!("{call}({first:#x}) with {capability}"));
                }
            }
        }
    }
    assert!(different.is_empty(), "{} of {asked}: {:#?}", different.len(), &different[..different.len().min(40)]);
    println!("{asked} verdicts are the same");
}

/// Podman's profile is another one: it lets mount, clone3 and keyctl through to everybody and answers ENOSYS to the rest. But what it
/// opens for a capability must be open for it here, and shut without.
#[test]
fn what_podman_opens_for_a_capability_is_open_for_it_here() {
    const PODMANS: &str = "/usr/share/containers/seccomp.json";
    let path = std::env::var_os("DYNO_PODMAN_PROFILE").unwrap_or_else(|| PODMANS.into());
    let Ok(text) = std::fs::read(&path) else {
        return println!("skipped: {PODMANS} is not installed (golang-github-containers-common)");
    };
    let theirs: Oci = serde_json::from_slice(&text).unwrap();
    let mut asked = 0;
    let opened = theirs.syscalls.iter().filter(|rule| rule.action == "SCMP_ACT_ALLOW" && rule.args.iter().flatten().count() == 0);
    for (rule, capability) in opened.flat_map(|rule| rule.includes.caps.iter().map(move |c| (rule, c))) {
        // Of these theirs are about arguments, or about a call that no kernel has.
        for call in rule.names.iter().filter(|name| !["socket", "query_module"].contains(&name.as_str())) {
            let Some(number) = table::number(call) else { continue };
            let answer = |capabilities: &[&str]| run(&filter(&Profile::Docker, capabilities), AUDIT_ARCH, number, [0; 6]);
            assert_eq!((answer(&[capability]), answer(&[])), (RET_ALLOW, EPERM), "{call} with {capability}");
            asked += 1;
        }
    }
    assert!(asked > 15, "only {asked} calls");
    println!("{asked} calls are open for the same capabilities");
}
