//! Traffic of disks.

use serde_json::{Value, json};

use super::Object;
use crate::{
    cgroup::{Version, file::field},
    oci::cgroup::group::Group,
};

/// Members, and the names of their files after `blkio.bfq.` or `blkio.`.
const FILES: [(&str, &str); 8] = [
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
];

pub(super) fn used(group: &Group) -> Value {
    if group.version == Version::V2 {
        let (bytes, operations) = v2(&group.text("io.stat"));
        let object = Object::default().value("ioServiceBytesRecursive", bytes).value("ioServicedRecursive", operations);
        return object.value("psi", group.pressure("io.pressure")).end();
    }
    // The scheduler that counts anything: BFQ, then whoever throttles.
    for prefix in ["blkio.bfq", "blkio"] {
        if !entries(&group.text(&format!("{prefix}.io_serviced_recursive"))).is_empty() {
            let text = |file| Value::from(entries(&group.text(&format!("{prefix}.{file}"))));
            return FILES.iter().fold(Object::default(), |object, (member, file)| object.value(member, text(file))).end();
        }
    }
    let throttled = FILES[..2]
        .iter()
        .fold(Object::default(), |object, (member, file)| object.value(member, Value::from(entries(&group.text(&format!("blkio.throttle.{file}"))))));
    throttled.end()
}

/// `8:0 Read N`, or `8:0 N`; a last line `Total N` is no device's.
fn entries(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, operation, value) = match words[..] {
            [device, operation, value] => (device, operation, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        entry(major.parse().ok()?, minor.parse().ok()?, operation, value.parse().ok()?)
    };
    text.lines().filter_map(entry).collect()
}

/// Zero members are left out.
fn entry(major: u64, minor: u64, operation: &str, value: u64) -> Option<Value> {
    let operation = if operation.is_empty() { Value::Null } else { json!(operation) };
    Some(Object::default().number("major", major).number("minor", minor).value("op", operation).number("value", value).end())
}

/// io.stat: `8:0 rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`.
fn v2(text: &str) -> (Value, Value) {
    let of = |names: [(&str, &str); 2]| -> Value {
        let lines = text.lines().filter_map(|line| Some((line, line.split_whitespace().next()?.split_once(':')?)));
        let all = lines.flat_map(|(line, (major, minor))| {
            names
                .into_iter()
                .filter_map(move |(key, operation)| entry(major.parse().ok()?, minor.parse().ok()?, operation, field(line, key)?.parse().ok()?))
        });
        all.collect()
    };
    (of([("rbytes", "Read"), ("wbytes", "Write")]), of([("rios", "Read"), ("wios", "Write")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_v1() {
        let text = "254:0 Read 4096\n254:0 Write 0\n8:16 7\n254:0 Total 4096\nTotal 4096\nx\n";
        let want = [
            json!({"major": 254, "op": "Read", "value": 4096}),
            json!({"major": 254, "op": "Write"}),
            json!({"major": 8, "minor": 16, "value": 7}),
            json!({"major": 254, "op": "Total", "value": 4096}),
        ];
        assert_eq!(entries(text), want);
    }

    #[test]
    fn lines_of_v2() {
        let (bytes, operations) = v2("8:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n");
        let of = |operation, value| json!({"major": 8, "minor": 1, "op": operation, "value": value});
        assert_eq!((bytes, operations), (json!([of("Read", 1), of("Write", 2)]), json!([of("Read", 3), of("Write", 4)])));
    }
}
