//! For tests and fuzzers: a machine for classic BPF over `struct seccomp_data`, which shares nothing with the compilers.

use crate::sys::Filter;

/// What `program` returns for a call.
pub fn run(program: &[Filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(nr.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|a| data.extend(a.to_le_bytes()));
    let (mut pc, mut a) = (0, 0u32);
    loop {
        let i = program[pc];
        pc += 1;
        let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x20 => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()), // ld
            0x54 => a &= i.k,                                                              // and
            0x05 => pc += i.k as usize,                                                    // ja
            0x15 => pc += jump(a == i.k),                                                  // jeq
            0x25 => pc += jump(a > i.k),                                                   // jgt
            0x35 => pc += jump(a >= i.k),                                                  // jge
            0x06 => return i.k,                                                            // ret
            other => panic!("opcode {other:#x}"),
        }
    }
}
