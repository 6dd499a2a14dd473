//! Archives as attackers and honest clients write them, made from raw headers.

use std::io::{Read, Write};

use flate2::{Compression, write::GzEncoder};

use super::*;

/// One raw member: the header fields that matter, and the bytes after it.
fn member(kind: u8, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    sized(kind, name, link, data, data.len() as u64)
}

fn sized(kind: u8, name: &str, link: &str, data: &[u8], size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o6755);
    header.set_mtime(7);
    header.set_size(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    member(b'0', name, "", b"x")
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    member(b'2', name, target, b"")
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let length = (body + 1..).find(|n| n.to_string().len() + body == *n).unwrap();
    format!("{length} {key}={value}\n").into_bytes()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    member(b'x', "PaxHeaders/x", "", &data)
}

fn ended(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// The members of a clean archive as `kind mode name -> link = contents`.
fn listed(clean: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(clean);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = char::from(entry.header().entry_type().as_byte());
        let mode = entry.header().mode().unwrap();
        let link = entry.link_name_bytes().map(|link| format!(" -> {}", String::from_utf8_lossy(&link)));
        // A file may hold anything; only names and kinds are the reader's business.
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let contents = String::from_utf8_lossy(&bytes).into_owned();
        let contents = if contents.is_empty() { contents } else { format!(" = {contents}") };
        format!("{kind} {mode:o} {name}{}{contents}", link.unwrap_or_default())
    });
    entries.collect()
}

fn accept(bytes: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    sanitize(bytes, &ConfigVars::default(), &mut out).unwrap_or_else(|error| panic!("{error}"));
    let mut names = listed(&out);
    assert_eq!(names.pop().as_deref(), Some("5 755 tmp/env/"));
    names
}

/// The error of members followed by an end mark must hold `want`.
fn refused(members: &[Vec<u8>], want: &str) {
    refused_bytes(&ended(members), want);
}

fn refused_bytes(bytes: &[u8], want: &str) {
    let error = sanitize(bytes, &ConfigVars::default(), std::io::sink()).expect_err(want).to_string();
    assert!(error.contains(want), "{error:?} does not say {want:?}");
}

#[test]
fn honest_archives_come_out_below_app() {
    let members = [
        member(b'g', "pax_global_header", "", &record("comment", "0123abc")),
        member(b'5', "./", "", b""),
        member(b'5', "./bin/", "", b""),
        member(b'0', "./bin/run", "", b"#!x"),
        member(b'\0', "old/", "", b""),
        symlink("bin/up", "../bin/run"),
        symlink("loop", "loop"),
        member(b'1', "hard", "./bin/run", b""),
        pax(&[("path", "Ω/µ"), ("mtime", "-1.5"), ("SCHILY.xattr.user.x", "a\nb"), ("size", "1")]),
        file("short"),
    ];
    let want = [
        "5 755 app/bin",
        "0 755 app/bin/run = #!x",
        "5 755 app/old",
        "2 777 app/bin/up -> ../bin/run",
        "2 777 app/loop -> loop",
        "1 777 app/hard -> app/bin/run",
        "0 755 app/Ω/µ = x",
    ];
    assert_eq!(accept(&ended(&members)), want);
    assert_eq!(accept(&gzip(&ended(&members))), want);
}

#[test]
fn modes_and_times_are_reduced() {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    // Base 256, all ones: a time before 1970.
    header.as_mut_bytes()[136..148].fill(0xff);
    header.as_mut_bytes()[..1].copy_from_slice(b"a");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut out = Vec::new();
    sanitize(&*ended(&[header.as_bytes().to_vec()]), &ConfigVars::default(), &mut out).unwrap();
    let mut archive = tar::Archive::new(&*out);
    let first = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((first.header().mode().unwrap(), first.header().mtime().unwrap()), (0o644, 0));
    assert_eq!(first.header().uid().unwrap(), 1000);
}

#[test]
fn config_vars_follow_as_private_files() {
    let vars = [("A".to_owned(), Some("1\n2".to_owned())), ("EMPTY".to_owned(), Some(String::new()))];
    let vars = ConfigVars::default().with(vars).unwrap();
    let mut out = Vec::new();
    let summary = sanitize(&*ended(&[file("a")]), &vars, &mut out).unwrap();
    assert_eq!(summary, Summary { files: 1, bytes: 1 });
    let want = ["0 755 app/a = x", "5 755 tmp/env/", "0 600 tmp/env/A = 1\n2", "0 600 tmp/env/EMPTY"];
    assert_eq!(listed(&out), want);
}

#[test]
fn long_names_survive() {
    let deep = format!("{}end", "folder/".repeat(100));
    let mut long = deep.clone().into_bytes();
    long.push(0);
    let target = format!("{}x", "y/".repeat(200));
    let members = [member(b'L', "././@LongLink", "", &long), member(b'K', "././@LongLink", "", target.as_bytes()), symlink("short", "short")];
    assert_eq!(accept(&ended(&members)), [format!("2 777 app/{deep} -> {target}")]);
}

#[test]
fn names_that_lead_elsewhere() {
    refused(&[file("../x")], "\"../x\", which has `..`");
    refused(&[file("a/../../x")], "`..`");
    refused(&[file("a/..")], "`..`");
    refused(&[file("/abs")], "absolute");
    refused(&[file("")], "no name");
    refused(&[file(".")], "top folder");
    refused(&[pax(&[("path", "../x")]), file("a")], "`..`");
    refused(&[pax(&[("path", "a\0b")]), file("a")], "NUL");
    refused(&[member(b'L', "l", "", b"a\0../x\0"), file("a")], "NUL");
    refused(&[member(b'L', "l", "", b"/etc/passwd\0"), file("a")], "absolute");
    refused(&[member(b'L', "l", "", b"\0"), file("a")], "no name");
    refused(&[member(b'L', "l", "", &[b'a'; 5000]), file("a")], "more than 4097 bytes");
    refused(&[pax(&[("path", &"a/".repeat(2100))]), file("a")], "more than 4096 bytes");
    refused(&[pax(&[("path", &"a".repeat(256))]), file("a")], "more than 255 bytes");
}

#[test]
fn links_that_lead_elsewhere() {
    for target in ["/etc/passwd", "/app/x", "..", "../x", "./../x", "../../x"] {
        refused(&[symlink("l", target)], "leads outside");
    }
    refused(&[symlink("a/b/l", "../../../x")], "leads outside");
    refused(&[symlink("l", "a/../../x")], "`..` after a name");
    refused(&[symlink("l", "")], "link to nothing");
    refused(&[pax(&[("linkpath", "../../x")]), symlink("l", "a")], "leads outside");
    refused(&[member(b'K', "l", "", b"/etc/shadow\0"), symlink("l", "a")], "leads outside");
    for target in ["/etc/passwd", "../x"] {
        refused(&[member(b'1', "l", target, b"")], "hard link that leads outside");
    }
    refused(&[member(b'1', "l", "missing", b"")], "does not hold");
    refused(&[symlink("s", "t"), member(b'1', "l", "s", b"")], "no file");
    refused(&[member(b'5', "d", "", b""), member(b'1', "l", "d", b"")], "no file");
    assert_eq!(accept(&ended(&[symlink("a/b/l", "../../x")])), ["2 777 app/a/b/l -> ../../x"]);
}

#[test]
fn writing_through_what_came_before() {
    refused(&[symlink("d", "e"), file("d/x")], "through a symlink");
    refused(&[symlink("d", "e"), symlink("d/x", "y")], "through a symlink");
    // CVE-2026-33056: a folder member that lands on a symlink changes the mode of its target.
    refused(&[symlink("d", "e"), member(b'5', "d/.", "", b"")], "another kind");
    refused(&[symlink("d", "e"), member(b'5', "d", "", b"")], "another kind");
    refused(&[file("f"), file("f/x")], "into a file");
    refused(&[file("d/x"), symlink("d", "e")], "another kind");
    refused(&[file("f"), symlink("f", "e")], "another kind");
    assert_eq!(accept(&ended(&[file("f"), file("f"), file("F")])).len(), 3);
}

#[test]
fn kinds_that_are_no_source() {
    refused(&[member(b'3', "null", "", b"")], "device");
    refused(&[member(b'4', "sda", "", b"")], "device");
    refused(&[member(b'6', "pipe", "", b"")], "named pipe");
    refused(&[member(b'S', "sparse", "", b"")], "sparse");
    refused(&[pax(&[("GNU.sparse.major", "1")]), file("a")], "sparse");
    refused(&[member(b'V', "label", "", b"")], "unknown kind 'V'");
    refused(&[member(b'5', "d", "", b"data")], "has contents");
    refused(&[member(b'2', "l", "t", b"data")], "has contents");
}

#[test]
fn members_that_two_programs_read_differently() {
    // CVE-2026-33055: the size of a pax record hides members from one program or the other.
    refused(&[pax(&[("size", "0")]), file("a")], "two different sizes");
    refused(&[pax(&[("size", "1024")]), file("a"), file("hidden")], "two different sizes");
    refused(&[pax(&[("size", "0x1")]), file("a")], "unreadable size");
    refused(&[pax(&[("size", "99999999999999999999")]), file("a")], "unreadable size");
    refused(&[pax(&[("path", "b")]), pax(&[("path", "c")]), file("a")], "two headers");
    refused(&[pax(&[("path", "b"), ("path", "c")]), file("a")], "two headers");
    refused(&[member(b'L', "l", "", b"b\0"), member(b'L', "l", "", b"c\0"), file("a")], "two headers");
    refused(&[member(b'L', "l", "", b"b\0"), pax(&[("path", "c")]), file("a")], "two headers");
    refused(&[member(b'L', "l", "", b"b\0")], "describes no member");
    refused(&[pax(&[("mtime", "1")])], "describes no member");
    refused(&[member(b'g', "g", "", &record("path", "x")), file("a")], "every member");
    for bad in [&b"5 a=b\n"[..], b"99 a=b\n", b"0 a=b\n", b"x a=b\n", b"6 a=b", b"6 =ab\n", b"+6 a=b\n", b"3 \n", b"1"] {
        refused(&[member(b'x', "x", "", bad), file("a")], "malformed pax");
    }
}

#[test]
fn sizes_beyond_all_bounds() {
    let whole = |size| ended(&[sized(b'0', "a", "", b"", size)]);
    refused_bytes(&whole(1 << 63), "more than 1024 MB");
    refused_bytes(&whole(u64::MAX), "overflow");
    refused_bytes(&whole((1 << 63) - 1024), "more than 1024 MB");
    refused_bytes(&whole((1 << 30) + 1), "more than 1024 MB");
    refused(&[sized(b'x', "x", "", b"", 1 << 40)], "header of more than");
    refused(&[sized(b'K', "k", "", b"", 1 << 40)], "header of more than");
    let bounds = Bounds { entries: 3, bytes: 2, ..Bounds::default() };
    let within = |members: &[Vec<u8>]| sanitize_within(bounds, &*ended(members), &ConfigVars::default(), std::io::sink()).map_err(|e| e.to_string());
    assert_eq!(within(&[file("a/b/c")]), Ok(Summary { files: 1, bytes: 1 }));
    assert!(within(&[file("a/b/c/d")]).unwrap_err().contains("more than 3 entries"));
    assert!(within(&[file("a"), file("a"), file("a")]).unwrap_err().contains("more than 0 MB"));
}

#[test]
fn bombs_stop_early() {
    let bounds = Bounds { ratio_from: 1 << 20, ..Bounds::default() };
    let bomb = gzip(&ended(&[member(b'0', "zeros", "", &vec![0; 8 << 20])]));
    assert!(bomb.len() < 20_000);
    let error = sanitize_within(bounds, &*bomb, &ConfigVars::default(), std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("200 times"), "{error}");
    // Zeros behind the end mark count as well.
    let mut tail = ended(&[file("a")]);
    tail.resize(8 << 20, 0);
    let error = sanitize_within(bounds, &*gzip(&tail), &ConfigVars::default(), std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("200 times"), "{error}");
}

#[test]
fn cut_and_broken_archives() {
    let whole = ended(&[member(b'0', "a", "", &[7; 3000]), file("b")]);
    // Up to the last byte before the first zero block is complete, every cut is noticed.
    for cut in (1..whole.len() - 1024 + 1).step_by(97).chain([512, 3584, whole.len() - 1024]) {
        let error = sanitize(&whole[..cut], &ConfigVars::default(), std::io::sink());
        assert!(error.is_err(), "cut at {cut} was accepted");
    }
    let packed = gzip(&whole);
    for cut in (1..packed.len()).step_by(7) {
        let error = sanitize(&packed[..cut], &ConfigVars::default(), std::io::sink());
        assert!(error.is_err(), "gzip cut at {cut} was accepted");
    }
    let mut flipped = packed.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    refused_bytes(&flipped, "cannot be read");
    let mut broken = whole.clone();
    broken[0] ^= 1;
    refused_bytes(&broken, "checksum");
    refused_bytes(&[&whole[..], &whole[..]].concat(), "after its end mark");
    refused_bytes(b"", "is empty");
    refused_bytes(b"PK\x03\x04....", "zip");
    refused_bytes(b"BZh9....", "bzip2");
    refused_bytes(b"\xfd7zXZ\0..", "xz");
    refused_bytes(b"\x28\xb5\x2f\xfd..", "zstd");
    refused_bytes(&[0xaa; 4096], "cannot be read");
    refused_bytes(b"hello", "cannot be read");
}

#[test]
fn a_reader_that_goes_away_is_not_the_archives_fault() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = sanitize(&*ended(&[file("a")]), &ConfigVars::default(), Gone).unwrap_err();
    assert!(matches!(error, SourceError::Write(_)), "{error}");
}

proptest::proptest! {
    /// No bytes make it panic, and what it accepts an independent reader accepts.
    #[test]
    fn damaged_archives_never_panic(flips in proptest::collection::vec((0usize..5120, proptest::num::u8::ANY), 1..6)) {
        let mut bytes = ended(&[pax(&[("path", "b/c")]), file("a"), symlink("l", "b/c"), member(b'1', "h", "b/c", b"")]);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        // Headers are made valid again so that the fields are reached.
        for block in bytes.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let mut out = Vec::new();
        if sanitize(&*bytes, &ConfigVars::default(), &mut out).is_ok() {
            for name in listed(&out) {
                proptest::prop_assert!(!name.contains("/../"), "{}", name);
            }
        }
    }
}

/// Found by a fuzzer: the tar library quotes fields that it cannot read as they stand.
#[test]
fn refusals_carry_no_escape_sequences() {
    let mut block = [0; 512];
    block[..8].copy_from_slice(b"a\x1b[31m\nb");
    block[148..155].copy_from_slice(b"\x1b]0;x\x07\n");
    let archive = [&block[..], &[0; 1024]].concat();
    let error = sanitize(&*archive, &ConfigVars::default(), io::sink()).unwrap_err().to_string();
    assert!(error.contains("cannot be read") && !error.contains(char::is_control), "{error:?}");
}
