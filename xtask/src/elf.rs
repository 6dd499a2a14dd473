//! What a linker leaves open in a program, or does not: read from its ELF headers.
//!
//! Position-independent (its addresses are the kernel's choice), relocations read-only from the start (full RELRO), no stack and no other memory
//! that is both written and executed, no path for libraries of its own.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use object::{
    LittleEndian,
    elf::{
        DF_1_NOW, DF_1_PIE, DF_BIND_NOW, DF_TEXTREL, DT_BIND_NOW, DT_FLAGS, DT_FLAGS_1, DT_RPATH, DT_RUNPATH, DT_TEXTREL, ET_DYN, FileHeader64, PF_W,
        PF_X, PT_GNU_RELRO, PT_GNU_STACK, PT_INTERP, PT_LOAD, ProgramHeader64,
    },
    read::elf::{FileHeader, ProgramHeader},
};

const ENDIAN: LittleEndian = LittleEndian;

/// Which libraries a program brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// Needs a loader and the C library of the host.
    Dynamically,
    /// Needs nothing.
    Statically,
}

/// Refuses a program that lacks any of it, with all that it lacks.
pub fn check(program: &Path, linked: Linked) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let found = complaints(&bytes, linked).with_context(|| format!("{} as ELF", program.display()))?;
    ensure!(found.is_empty(), "{}: {}", program.display(), found.join("; "));
    Ok(())
}

fn complaints(bytes: &[u8], linked: Linked) -> Result<Vec<&'static str>> {
    let header = FileHeader64::<LittleEndian>::parse(bytes)?;
    let segments = header.program_headers(ENDIAN, bytes)?;
    let of_type = |kind| segments.iter().find(move |segment| segment.p_type(ENDIAN) == kind);
    let tags = dynamic(segments, bytes)?;
    let has = |tag: u32| tags.iter().any(|(is, _)| *is == u64::from(tag));
    let flag = |tag: u32, flag: u32| tags.iter().any(|(is, value)| *is == u64::from(tag) && value & u64::from(flag) != 0);
    let stack = of_type(PT_GNU_STACK).is_some_and(|stack| stack.p_flags(ENDIAN) & PF_X == 0);
    let both = segments.iter().any(|segment| segment.p_type(ENDIAN) == PT_LOAD && segment.p_flags(ENDIAN) & (PF_W | PF_X) == PF_W | PF_X);
    let now = has(DT_BIND_NOW) || flag(DT_FLAGS, DF_BIND_NOW) || flag(DT_FLAGS_1, DF_1_NOW);
    let rules = [
        (header.e_type(ENDIAN) == ET_DYN && flag(DT_FLAGS_1, DF_1_PIE), "not position-independent (PIE)"),
        (of_type(PT_GNU_RELRO).is_some(), "relocations stay writable (no RELRO)"),
        (now, "symbols are bound late (RELRO is not full)"),
        (stack, "the stack is executable (NX)"),
        (!both, "memory is writable and executable"),
        (!has(DT_TEXTREL) && !flag(DT_FLAGS, DF_TEXTREL), "its code is relocated (TEXTREL)"),
        (!has(DT_RPATH) && !has(DT_RUNPATH), "libraries are looked for at a path of its own (RPATH)"),
        (of_type(PT_INTERP).is_some() == (linked == Linked::Dynamically), "linked in another way than it should be (PT_INTERP)"),
    ];
    Ok(rules.into_iter().filter(|(kept, _)| !kept).map(|(_, complaint)| complaint).collect())
}

/// Tags and values of the dynamic section.
fn dynamic(segments: &[ProgramHeader64<LittleEndian>], bytes: &[u8]) -> Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for segment in segments {
        let entries = segment.dynamic(ENDIAN, bytes)?.unwrap_or_default();
        found.extend(entries.iter().map(|entry| (entry.d_tag.get(ENDIAN), entry.d_val.get(ENDIAN))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offset and size of a program header of this type.
    fn header_of(bytes: &[u8], kind: u32) -> usize {
        let header = FileHeader64::<LittleEndian>::parse(bytes).unwrap();
        let at = header.program_headers(ENDIAN, bytes).unwrap().iter().position(|segment| segment.p_type(ENDIAN) == kind).unwrap();
        header.e_phoff.get(ENDIAN) as usize + at * size_of::<ProgramHeader64<LittleEndian>>()
    }

    /// Where the value of a dynamic tag stands.
    fn tag_at(bytes: &[u8], tag: u32) -> usize {
        let entry = u64::from(tag).to_le_bytes();
        let header = FileHeader64::<LittleEndian>::parse(bytes).unwrap();
        let dynamic =
            header.program_headers(ENDIAN, bytes).unwrap().iter().find(|segment| segment.p_type(ENDIAN) == object::elf::PT_DYNAMIC).unwrap();
        let (from, size) = dynamic.file_range(ENDIAN);
        let at = bytes[from as usize..][..size as usize].chunks_exact(16).position(|chunk| chunk[..8] == entry).unwrap();
        from as usize + at * 16
    }

    #[test]
    fn every_rule_bites() {
        // This test itself is built like the programs.
        let good = fs::read(std::env::current_exe().unwrap()).unwrap();
        let check = |change: fn(&mut Vec<u8>), linked, want: &str| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(complaints(&bytes, linked).unwrap().join("; "), want);
        };
        check(|_| {}, Linked::Dynamically, "");
        check(|_| {}, Linked::Statically, "linked in another way than it should be (PT_INTERP)");
        check(|b| b[16] = 2, Linked::Dynamically, "not position-independent (PIE)");
        check(
            |b| {
                let at = header_of(b, PT_GNU_STACK);
                b[at + 4] |= 1;
            },
            Linked::Dynamically,
            "the stack is executable (NX)",
        );
        check(
            |b| {
                let at = header_of(b, PT_GNU_STACK);
                b[at] = 0;
                b[at + 1..at + 4].fill(0);
            },
            Linked::Dynamically,
            "the stack is executable (NX)",
        );
        check(
            |b| {
                let at = header_of(b, PT_LOAD);
                b[at + 4] |= 3;
            },
            Linked::Dynamically,
            "memory is writable and executable",
        );
        check(
            |b| {
                let at = header_of(b, PT_GNU_RELRO);
                b[at..at + 4].fill(0);
            },
            Linked::Dynamically,
            "relocations stay writable (no RELRO)",
        );
        let late = |b: &mut Vec<u8>| {
            let (flags, flags_1) = (tag_at(b, DT_FLAGS), tag_at(b, DT_FLAGS_1));
            b[flags + 8] &= !(DF_BIND_NOW as u8);
            b[flags_1 + 8] &= !(DF_1_NOW as u8);
        };
        check(late, Linked::Dynamically, "symbols are bound late (RELRO is not full)");
        let with_path = |b: &mut Vec<u8>| {
            let at = tag_at(b, object::elf::DT_DEBUG);
            b[at..at + 8].copy_from_slice(&u64::from(DT_RUNPATH).to_le_bytes());
        };
        check(with_path, Linked::Dynamically, "libraries are looked for at a path of its own (RPATH)");
    }

    /// Whatever of ours is built already, by whichever profile.
    #[test]
    fn the_programs_that_are_here() {
        let target = crate::cargo::target();
        let of = |profile: &str, linked| ["dynod", "dyno", "dyno-runtime"].map(|name| (target.join(profile).join(name), linked));
        let dist = format!("{}-unknown-linux-musl/dist", std::env::consts::ARCH);
        for (program, linked) in [of("debug", Linked::Dynamically), of("release", Linked::Dynamically), of(&dist, Linked::Statically)].concat() {
            if program.is_file() {
                check(&program, linked).unwrap();
            } else {
                println!("skipped: {}: it is not built", program.display());
            }
        }
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        assert!(complaints(b"#!/bin/sh\n", Linked::Statically).is_err());
        assert!(check(Path::new("/nonexistent"), Linked::Statically).is_err());
    }
}
