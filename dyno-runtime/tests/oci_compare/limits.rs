//! The dimension of control groups: limits that the host's hierarchies have files for.

use serde_json::json;

use super::draw::{Draft, Draw, Host};

/// A name, and what draws it.
type Part = (&'static str, fn(&mut Draw, &mut Draft, &Host));

/// Chance in percent is drawn inside.
pub const PARTS: &[Part] = &[("memory", memory), ("cpu", cpu), ("pids", pids), ("devices", devices), ("blockIO", disks), ("hugepages", hugepages)];

fn memory(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    const MIB: i64 = 1 << 20;
    if draw.percent(50) {
        let limit = MIB * draw.one(&[64, 100, 256, 1024]);
        draft.at("/linux/resources/memory/limit", json!(limit));
        if draw.percent(40) {
            let reservation = limit / draw.one(&[1, 2, 3]);
            draft.at("/linux/resources/memory/reservation", json!(reservation));
        }
        if draw.percent(40) {
            let swap = draw.one(&[limit, limit + 64 * MIB, -1]);
            draft.at("/linux/resources/memory/swap", json!(swap));
        }
    }
    if draw.percent(20) {
        let swappiness = draw.one(&[0, 10, 60, 100]);
        draft.at("/linux/resources/memory/swappiness", json!(swappiness));
    }
    if draw.percent(20) {
        let disable = draw.percent(50);
        draft.at("/linux/resources/memory/disableOOMKiller", json!(disable));
    }
    if draw.percent(10) {
        draft.at("/linux/resources/memory/kernelTCP", json!(64 * MIB));
    }
}

fn cpu(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    if draw.percent(40) {
        let shares = draw.one(&[2, 10, 1024, 2000, 262_144]);
        draft.at("/linux/resources/cpu/shares", json!(shares));
    }
    if draw.percent(40) {
        let period = draw.one(&[10_000, 50_000, 100_000]);
        let quota = draw.one(&[period / 2, period, period * 2, -1]);
        draft.at("/linux/resources/cpu/quota", json!(quota));
        if draw.percent(70) || quota == period / 2 {
            draft.at("/linux/resources/cpu/period", json!(period));
        }
    }
    if draw.percent(30) {
        let cpus = draw.one(&["0", "0-1", "1", "0,1"]);
        draft.at("/linux/resources/cpu/cpus", json!(cpus));
    }
    if draw.percent(20) {
        draft.at("/linux/resources/cpu/mems", json!("0"));
    }
}

fn pids(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    if draw.percent(50) {
        let odd = draw.one(&[-1, 0, 5, 5, 5]);
        let limit = draw.one(&[20, 100, 4000, odd]);
        draft.at("/linux/resources/pids/limit", json!(limit));
    }
}

fn devices(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    if draw.percent(60) {
        let allow = draw.percent(30);
        draft.push("/linux/resources/devices", json!({ "allow": allow, "access": "rwm" }));
        let rules = [
            json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }),
            json!({ "allow": true, "type": "b", "major": 7, "access": "rwm" }),
            json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }),
            json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" }),
            json!({ "allow": true, "type": "c", "major": 4, "access": "m" }),
            json!({ "allow": false, "type": "b", "major": 8, "minor": 0, "access": "rwm" }),
        ];
        for n in draw.some(&[0, 1, 2, 3, 4, 5], 4) {
            draft.push("/linux/resources/devices", rules[n].clone());
        }
    }
}

fn disks(draw: &mut Draw, draft: &mut Draft, host: &Host) {
    let Some((major, minor)) = host.disk else { return };
    for kind in ["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"] {
        if draw.percent(10) {
            let rate = 1_000_000 + draw.below(1000);
            draft.push(&format!("/linux/resources/blockIO/{kind}"), json!({ "major": major, "minor": minor, "rate": rate }));
        }
    }
}

fn hugepages(draw: &mut Draw, draft: &mut Draft, _: &Host) {
    if draw.percent(2) {
        draft.push("/linux/resources/hugepageLimits", json!({ "pageSize": "2MB", "limit": (2 << 20) * draw.below(8) }));
    }
}
