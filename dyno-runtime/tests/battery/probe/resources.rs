//! Taking a stated amount of something that all share.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
};

use crate::{Outcome, call, did, number};

pub(crate) fn attack(args: &[&str]) -> Option<Outcome> {
    Some(match args {
        ["fill", path, bytes] => fill(path, number(bytes)),
        ["files", directory, count] => files(directory, number(count)),
        ["allocate", path, bytes] => allocate(path, number(bytes)),
        ["processes", count] => processes(number(count)),
        ["threads", count] => threads(number(count)),
        ["memory", bytes] => memory(number(bytes) as usize),
        ["open-files", count] => open_many("/dev/null", number(count)),
        ["terminals", path, count] => open_many(path, number(count)),
        _ => return None,
    })
}

/// Takes its file away again, whatever came of it.
fn fill(path: &str, bytes: u64) -> Outcome {
    let mut file = File::create(path)?;
    let chunk = [7u8; 65536];
    let written = (0..bytes / 65536).try_for_each(|_| file.write_all(&chunk));
    fs::remove_file(path)?;
    written.and_then(|()| did(format!("{bytes} bytes")))
}

fn files(directory: &str, count: u64) -> Outcome {
    let name = |n: u64| format!("{directory}/file{n}");
    let mut made = Ok(());
    let mut last = 0;
    for n in 0..count {
        made = File::create(name(n)).map(drop);
        if made.is_err() {
            break;
        }
        last = n + 1;
    }
    (0..last).try_for_each(|n| fs::remove_file(name(n)))?;
    made.and_then(|()| did(format!("{count} files")))
}

/// Reserved, not written.
fn allocate(path: &str, bytes: u64) -> Outcome {
    use std::os::fd::AsRawFd;
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
    let reserved = call(285, &[file.as_raw_fd() as u64, 0, 0, bytes]);
    fs::remove_file(path)?;
    reserved.and_then(|_| did(format!("{bytes} bytes reserved")))
}

/// Children that wait; ended here, one by one.
fn processes(count: u64) -> Outcome {
    let mut children = Vec::new();
    let mut failed = None;
    for _ in 0..count {
        match call(57, &[]) {
            Ok(0) => loop {
                std::thread::park();
            },
            Ok(pid) => children.push(pid as u64),
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    for pid in &children {
        call(62, &[*pid, 9])?;
        call(61, &[*pid, 0, 0, 0])?;
    }
    failed.map_or_else(|| did(format!("{count} processes")), Err)
}

fn threads(count: u64) -> Outcome {
    for _ in 0..count {
        std::thread::Builder::new().stack_size(65536).spawn(std::thread::park)?;
    }
    did(format!("{count} threads"))
}

fn memory(bytes: usize) -> Outcome {
    let mut all = vec![0u8; bytes];
    all.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    did(format!("{} pages", all.iter().map(|b| usize::from(*b)).sum::<usize>()))
}

fn open_many(path: &str, count: u64) -> Outcome {
    let open = |_| OpenOptions::new().read(true).write(true).open(path);
    let held = (0..count).map(open).collect::<io::Result<Vec<_>>>()?;
    did(format!("{} open", held.len()))
}
