//! Against a stand-in for systemd, and against bytes counted by hand.

use super::*;

const RETURN: u8 = 2;

/// By the rules of the specification (Message Protocol, Marshaling), counted by hand.
#[test]
fn bytes_of_a_call() {
    let mut body = Out::default();
    body.text("a.scope");
    body.text("replace");
    let bytes = encode(1, ["d.e", "/p", "i.f", "M"], "ss", &body.0);
    assert_eq!(&bytes[..4], b"l\x01\x00\x01");
    assert_eq!(&bytes[4..16], [24u32, 1, 72].map(u32::to_le_bytes).concat());
    // Field by field, each at a multiple of eight.
    assert_eq!(&bytes[16..27], b"\x01\x01o\x00\x02\x00\x00\x00/p\x00");
    assert_eq!(&bytes[32..44], b"\x02\x01s\x00\x03\x00\x00\x00i.f\x00");
    assert_eq!(&bytes[48..58], b"\x03\x01s\x00\x01\x00\x00\x00M\x00");
    assert_eq!(&bytes[64..76], b"\x06\x01s\x00\x03\x00\x00\x00d.e\x00");
    assert_eq!(&bytes[80..88], b"\x08\x01g\x00\x02ss\x00");
    assert_eq!(&bytes[88..], b"\x07\x00\x00\x00a.scope\x00\x07\x00\x00\x00replace\x00");
}

#[test]
fn properties_are_aligned() {
    let mut out = Out::default();
    out.properties(&[("PIDs", Value::Pids(vec![7])), ("Delegate", Value::Flag(true)), ("TasksMax", Value::Number(5))]);
    let bytes = out.0;
    assert_eq!(&bytes[8..17], b"\x04\x00\x00\x00PIDs\x00");
    assert_eq!(&bytes[17..32], b"\x02au\x00\x00\x00\x00\x04\x00\x00\x00\x07\x00\x00\x00");
    assert_eq!(&bytes[32..45], b"\x08\x00\x00\x00Delegate\x00");
    assert_eq!(&bytes[45..52], b"\x01b\x00\x01\x00\x00\x00"[..7].as_ref());
    assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 8);
    assert_eq!(bytes[bytes.len() - 8..], 5u64.to_le_bytes());
}

/// An answer or a signal, made by hand.
fn message(kind: u8, fields: &[(u8, &str, &str)], answers: u32, signature: &str, fill: impl FnOnce(&mut Out)) -> Vec<u8> {
    let mut body = Out::default();
    fill(&mut body);
    let mut out = Out::default();
    for byte in [b'l', kind, 0, 1] {
        out.byte(byte);
    }
    out.word(u32::try_from(body.0.len()).unwrap());
    out.word(99);
    out.array(8, |out| {
        for (code, kind, text) in fields {
            out.align(8);
            out.byte(*code);
            out.signature(kind);
            out.text(text);
        }
        if answers > 0 {
            out.align(8);
            out.byte(REPLY_SERIAL);
            out.signature("u");
            out.word(answers);
        }
        if !signature.is_empty() {
            out.align(8);
            out.byte(SIGNATURE);
            out.signature("g");
            out.signature(signature);
        }
    });
    out.align(8);
    out.0.extend(body.0);
    out.0
}

/// Answers the greeting, then writes `script` all at once.
fn stand_in(script: Vec<Vec<u8>>) -> (Bus, std::thread::JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut greeting = vec![0u8; "\0AUTH EXTERNAL 30\r\n".len()];
        theirs.read_exact(&mut greeting[..16]).unwrap();
        while !greeting.ends_with(b"\r\n") {
            let mut byte = [0];
            theirs.read_exact(&mut byte).unwrap();
            greeting.extend(byte);
        }
        theirs.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        script.iter().for_each(|bytes| theirs.write_all(bytes).unwrap());
        let mut all = Vec::new();
        // What the other side has not read when it closes is an error here.
        theirs.read_to_end(&mut all).unwrap_or_default();
        all
    });
    (Bus::greet(ours, false).unwrap(), thread)
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    message(SIGNAL, &[(MEMBER, "s", "JobRemoved")], 0, "uoss", |out| {
        out.word(7);
        out.text(job);
        out.text("a.scope");
        out.text(result);
    })
}

#[test]
fn a_job_may_end_before_it_is_known() {
    let script = vec![
        removed("/job/1", "failed"),
        removed("/job/2", "done"),
        message(RETURN, &[], 1, "o", |out| out.text("/job/2")),
        removed("/job/3", "done"),
    ];
    let (mut bus, thread) = stand_in(script);
    let answer = bus.manager("StartTransientUnit", "ss", |out| out.text("x")).unwrap();
    assert_eq!(answer, ["/job/2"]);
    assert_eq!(bus.wait("/job/2").unwrap(), "done");
    assert_eq!(bus.wait("/job/3").unwrap(), "done");
    drop(bus);
    let sent = thread.join().unwrap();
    assert!(sent.starts_with(b"BEGIN\r\nl\x01"), "{sent:?}");
}

#[test]
fn a_refusal_is_told_in_systemds_words() {
    let script =
        vec![message(ERROR, &[(ERROR_NAME, "s", "org.freedesktop.systemd1.UnitExists")], 1, "s", |out| out.text("Unit a.scope already exists."))];
    let (mut bus, thread) = stand_in(script);
    let e = bus.manager("StartTransientUnit", "", |_| {}).unwrap_err().to_string();
    assert!(e.contains("already exists") && e.contains("UnitExists"), "{e}");
    drop(bus);
    thread.join().unwrap();
}

#[test]
fn nonsense_is_no_answer() {
    for nonsense in
        [vec![b'B'; 16], vec![0xff; 64], b"l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00".to_vec()]
    {
        let (mut bus, thread) = stand_in(vec![nonsense]);
        assert!(bus.manager("StopUnit", "", |_| {}).is_err());
        drop(bus);
        thread.join().unwrap();
    }
}
