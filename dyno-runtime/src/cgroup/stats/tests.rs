//! Texts of the kernel's, read.

use super::*;

const BOTH: Disk = Disk { read: 4096, written: 8192, reads: 1, writes: 2 };

#[test]
fn disks_of_v2() {
    let io = io_v2("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:0 \n");
    assert_eq!(io.disks["8:0"], BOTH);
    assert_eq!((io.total.read, io.total.reads, io.disks.len()), (4097, 2, 3));
}

#[test]
fn disks_of_v1() {
    let bytes = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 0\n254:0 Async 12288\n254:0 Discard 0\n254:0 Total 12288\nTotal 12288\n";
    let io = io_v1(bytes, "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n");
    assert_eq!((io.total, io.disks["254:0"], io.disks.len()), (BOTH, BOTH, 1));
    assert_eq!(io_v1("Total 0\n", "Total 0\n"), IoStats::default());
}

#[test]
fn processor_time_of_a_process() {
    let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 300 400 20 0 1 0 5 6 7";
    assert_eq!(ticks(stat), Some([310, 420]));
    assert_eq!(ticks("7 (a) S 1"), None);
}

#[test]
fn disk_traffic_of_a_process() {
    let me = processes_io(&[std::process::id()]);
    if std::path::Path::new("/proc/self/io").exists() {
        assert!(me.is_some());
    }
    assert_eq!(processes_io(&[]), None);
}

#[test]
fn statistics_are_plain_data() {
    let stats = Stats { frozen: true, io: Some(IoStats { total: BOTH, ..IoStats::default() }), ..Stats::default() };
    let text = serde_json::to_string(&stats).unwrap();
    assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), stats);
    assert!(text.contains(r#""memory":{"now":null"#), "{text}");
}
