//! `linux.intelRdt`: shares of the processor's cache and of memory bandwidth, by directories of the resctrl file system
//! (Documentation/filesystems/resctrl.rst).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::spec::IntelRdt;
use crate::error::{Context, Error, ErrorKind, Result};

const ROOT: &str = "/sys/fs/resctrl";

/// Puts process `pid` into its class of service, made and limited as asked for. Returns the directory if this call has made it: it
/// is then the container's to remove.
///
/// # Errors
/// [`ErrorKind::Wall`] where resctrl is not mounted; what the kernel refuses; a class that exists with other limits.
pub fn join(rdt: &IntelRdt, id: &str, pid: u32) -> Result<Option<PathBuf>> {
    if !Path::new(ROOT).join("schemata").exists() {
        return Err(Error::refused(ErrorKind::Wall, format!("linux.intelRdt: resctrl is not mounted at {ROOT}, or the processor has none")));
    }
    let name = rdt.clos_id.as_deref().unwrap_or(id);
    let dir = if name == "/" { PathBuf::from(ROOT) } else { Path::new(ROOT).join(name) };
    if name != "/" && (name.is_empty() || name.contains('/') || name == "." || name == "..") {
        return Err(Error::refused(ErrorKind::Invalid, format!("linux.intelRdt.closID {name:?} is no name of a directory")));
    }
    let made = match fs::create_dir(&dir) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && rdt.clos_id.is_some() => false,
        Err(e) => return Err(e).wall(|| format!("linux.intelRdt: mkdir({})", dir.display())),
    };
    let done = fill(rdt, &dir, made)
        .and_then(|()| fs::write(dir.join("tasks"), pid.to_string()).wall(|| format!("linux.intelRdt: write {pid} to {}/tasks", dir.display())));
    match (done, made) {
        (Ok(()), made) => Ok(made.then_some(dir)),
        (Err(e), true) => {
            fs::remove_dir(&dir).wall(|| format!("linux.intelRdt: rmdir({})", dir.display()))?;
            Err(e)
        }
        (Err(e), false) => Err(e),
    }
}

fn fill(rdt: &IntelRdt, dir: &Path, made: bool) -> Result<()> {
    let lines = rdt.schemata.iter().chain(&rdt.l3_cache_schema).chain(&rdt.mem_bw_schema);
    let lines: Vec<&str> = lines.flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty()).collect();
    let file = dir.join("schemata");
    if !made && rdt.clos_id.is_some() && !lines.is_empty() {
        // A class that others share is joined as it is, or not at all.
        let is = fs::read_to_string(&file).wall(|| format!("linux.intelRdt: read {}", file.display()))?;
        return match lines.iter().find(|line| !is.lines().any(|l| l.trim() == **line)) {
            None => Ok(()),
            Some(line) => Err(Error::refused(ErrorKind::Invalid, format!("linux.intelRdt: class {} exists without {line:?}", dir.display()))),
        };
    }
    for line in lines {
        fs::write(&file, format!("{line}\n")).wall(|| format!("linux.intelRdt: write {line:?} to {}", file.display()))?;
    }
    Ok(())
}
