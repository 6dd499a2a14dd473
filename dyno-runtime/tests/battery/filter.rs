//! SC-1 and SC-13: every call that the filter denies, as the kernel tells of it, against `calls.txt`; and the profile with one thing
//! taken out of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use dyno_runtime::{Layer, Profile, Sandbox, StartOptions, Stdio, Streams, seccomp::ProfileData};

use super::{
    row::{Answer, name_of},
    run::Mutant,
    scene::{Scene, parse},
};
use crate::support;

/// `NUMBER NAME ANSWER` of each call that the profile of apps denies whatever its arguments, or with all bits of them set.
const GOLDEN: &str = include_str!("calls.txt");

/// The last number that any kernel of today has on x86-64, and some beyond.
const LAST: u64 = 480;
/// Those that end, fork or stop their caller whatever their arguments, or write out all disks of the host: allowed, all of them.
/// The last two are uretprobe(2) and uprobe(2), the kernel's own trampolines, which newer kernels let past every filter (6.18, not 6.1).
const LEFT_OUT: [u64; 9] = [15, 34, 57, 58, 60, 162, 231, 335, 336];

/// The profile of apps, as it is shipped.
pub fn shipped() -> ProfileData {
    ProfileData::parse(include_str!("../../src/seccomp/dyno.json")).unwrap_or_else(|e| panic!("dyno.json: {e}"))
}

/// One call more that goes through with any arguments.
pub fn let_through(data: &mut ProfileData, call: &str) {
    data.answers.remove(call);
    data.rules.retain(|rule| rule.call != call);
    data.allow.push(call.to_owned());
}

/// Number, name and answer, in order of the numbers.
fn golden() -> Result<Vec<(u64, &'static str, &'static str)>> {
    let line = |line: &'static str| match line.split(' ').collect::<Vec<_>>()[..] {
        [number, name, answer] => Ok((number.parse()?, name, answer)),
        _ => bail!("calls.txt: {line:?}"),
    };
    GOLDEN.lines().filter(|l| !l.starts_with('#')).map(line).collect()
}

/// Every number's answer; and, in the order in which the calls were made, what the kernel told of those denied: name and answer.
type Seen = (BTreeMap<u64, i32>, Vec<(String, String)>);

fn look(scene: &Scene, profile: &Profile) -> Result<Seen> {
    let numbers = (0..=LAST).filter(|n| !LEFT_OUT.contains(n));
    let mut argv = vec!["/bin/probe".to_owned(), "calls".to_owned()];
    argv.extend(numbers.map(|number| number.to_string()));
    let mut sandbox = Sandbox::new(vec![Layer::Directory(scene.stage.rootfs())], argv);
    sandbox.seccomp = profile.clone();
    let Answer::Did(said) = parse(&scene.stage.output(&sandbox)?.1)? else { bail!("no answers") };
    let pair = |word: &str| word.split_once(':').and_then(|(number, answer)| Some((number.parse().ok()?, answer.parse().ok()?))).context("a pair");
    let answers = said.split(' ').map(pair).collect::<Result<BTreeMap<u64, i32>>>()?;
    // Once more with a filter that tells what it denies, because some calls would answer the same by themselves.
    let options = StartOptions { stdio: Stdio::Pipes, log_denied: true, ..Default::default() };
    let mut dyno = scene.stage.host.start(&scene.stage.id(), &sandbox, options)?;
    let denials = dyno.take_denials().context("no denials")?;
    let Streams::Pipes { stdout, .. } = dyno.take_streams() else { bail!("no pipes") };
    let told = denials.map(|denial| Ok(denial?.explanation)).map(|e| e.map(|e| (e.call, e.action))).collect::<Result<Vec<_>>>()?;
    parse(&support::read_all(stdout)?)?;
    dyno.free()?;
    Ok((answers, told))
}

/// The first thing that differs from the golden list under `mutant`.
pub fn difference(scene: &Scene, mutant: &Mutant) -> Result<Option<String>> {
    let profile = mutant.profile.clone().map_or(Profile::Dyno, |data| Profile::Custom(Box::new(data)));
    let golden = golden()?;
    let (answers, told) = look(scene, &profile)?;
    let left = golden.iter().map(|(_, name, answer)| ((*name).to_owned(), (*answer).to_owned()));
    // In order: where they part, one of them has a call more.
    if let Some((want, is)) = left.clone().zip(&told).find(|(want, is)| want != *is) {
        return Ok(Some(format!("wanted {want:?}, told of {is:?}")));
    }
    if golden.len() != told.len() {
        return Ok(Some(format!("{} calls denied, {} wanted", told.len(), golden.len())));
    }
    let other = |(number, _, answer): &&(u64, &str, &str)| answers.get(number).map(|errno| name_of(*errno)).as_deref() != Some(*answer);
    Ok(golden.iter().find(other).map(|(number, name, answer)| format!("{name}: wanted {answer}, answered {:?}", answers.get(number))))
}

/// `calls.txt` as this build would have it, for whoever changes the profile; to be read before it is committed.
pub fn written(scene: &Scene) -> Result<String> {
    let (answers, told) = look(scene, &Profile::Dyno)?;
    let mut text = String::from("# NUMBER NAME ANSWER on x86-64: what the profile of apps denies where all arguments are all ones.\n");
    let mut told = told.into_iter().peekable();
    for number in answers.keys() {
        let call = dyno_runtime::seccomp::explain(&Profile::Dyno, &[], &number.to_string(), [u64::MAX; 6])?.call;
        if let Some((_, action)) = told.next_if(|(name, _)| *name == call) {
            text.push_str(&format!("{number} {call} {action}\n"));
        }
    }
    ensure!(told.peek().is_none(), "told of in another order: {:?}", told.peek());
    Ok(text)
}

/// The profile with one thing taken out: its name, and what is left.
pub fn mutants() -> Result<Vec<(String, ProfileData)>> {
    let base = shipped();
    let mut all = Vec::new();
    let denied = golden()?.into_iter().map(|(_, name, _)| name).filter(|name| name.parse::<u32>().is_err());
    let ruled = base.rules.iter().map(|rule| rule.call.as_str());
    let mut calls: Vec<String> = denied.chain(ruled).map(str::to_owned).collect();
    calls.sort();
    calls.dedup();
    for call in calls {
        let mut data = base.clone();
        let_through(&mut data, &call);
        all.push((format!("filter: {call} goes through"), data));
    }
    for (n, rule) in base.rules.iter().enumerate() {
        let mut data = base.clone();
        data.rules.remove(n);
        if data.rules.iter().any(|r| r.call == rule.call) {
            all.push((format!("filter: rule {n} ({}) is gone", rule.call), data));
        }
        for (condition, _) in rule.when.iter().enumerate() {
            let mut data = base.clone();
            data.rules[n].when.remove(condition);
            if !data.rules[n].when.is_empty() {
                all.push((format!("filter: rule {n} ({}) without condition {condition}", rule.call), data));
            }
        }
    }
    for call in base.answers.keys() {
        let mut data = base.clone();
        data.answers.remove(call);
        all.push((format!("filter: {call} answers EPERM"), data));
    }
    Ok(all)
}
