use std::time::Instant;
use dyno_runtime::oci::{cgroup::*, spec::*};
fn main() {
    let idle: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut t: Vec<Vec<u128>> = vec![vec![]; 6];
    for i in 0..60 {
        std::thread::sleep(std::time::Duration::from_millis(idle));
        let a = Instant::now();
        let record = Record::plan(&format!("cgt{i}"), Some(&format!("/cgt/cgt{i}")), Manager::Files).unwrap();
        let b = Instant::now();
        let g = Cgroup::create(&record, &Resources::default(), None).unwrap();
        let c = Instant::now();
        let e = g.entrances().unwrap();
        let d = Instant::now();
        drop(e);
        let d2 = Instant::now();
        let g2 = Cgroup::open(&record).unwrap();
        let e = Instant::now();
        g2.kill(rustix::process::Signal::KILL).unwrap();
        let f = Instant::now();
        g2.remove().unwrap();
        let h = Instant::now();
        for (v, x) in t.iter_mut().zip([b - a, c - b, d - c, e - d2, f - e, h - f]) { v.push(x.as_micros()); }
    }
    for (name, v) in ["plan", "create", "entrances", "open", "kill", "remove"].iter().zip(&mut t) { v.sort(); println!("{name}: p50 {} p90 {}", v[30], v[54]); }
    let r = Record::plan("x", Some("/cgt/x"), Manager::Files).unwrap();
    for (d, _) in r.groups { std::fs::remove_dir(d.parent().unwrap()).unwrap(); }
}
