//! What an archive has created so far, as far as it matters: which names are folders, files, links.
//!
//! Two facts make the clean archive safe to unpack in order. A name never changes its kind, so a
//! folder that a later member is written into is a real folder. And a symlink climbs only at its
//! start, from a real folder, so where it leads does not depend on other links on its way.

use std::collections::HashMap;

use super::{
    SourceError,
    member::{Member, refuse},
};

/// Longest single name: the kernel's NAME_MAX.
pub(super) const MAX_COMPONENT: usize = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File,
    Symlink,
}

/// Names by parent and component: one step per component however deep a name is.
pub(super) struct Tree {
    index: HashMap<(u32, Box<[u8]>), u32>,
    nodes: Vec<Node>,
    max: usize,
}

impl Tree {
    pub(super) fn new(max: usize) -> Self {
        Self { index: HashMap::new(), nodes: vec![Node::Dir], max }
    }

    /// Adds `member` and the folders above it.
    pub(super) fn place(&mut self, member: &Member, node: Node) -> Result<(), SourceError> {
        let mut at = 0;
        for (depth, part) in member.path.iter().enumerate() {
            let last = depth + 1 == member.path.len();
            let want = if last { node } else { Node::Dir };
            let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            at = *self.index.entry((at, part.as_slice().into())).or_insert(next);
            if at == next {
                self.nodes.push(want);
            }
            match self.nodes[at as usize] {
                found if found == want => {}
                Node::Symlink if !last => return Err(refuse(&member.name, "would be written through a symlink")),
                Node::File if !last => return Err(refuse(&member.name, "would be written into a file")),
                _ => return Err(refuse(&member.name, "is there already as another kind of file")),
            }
        }
        // The first node is the top folder.
        if self.nodes.len() - 1 > self.max {
            return Err(SourceError::Archive(format!("has more than {} entries", self.max)));
        }
        Ok(())
    }

    /// A hard link needs a file of this archive, and not one that another link leads to.
    pub(super) fn require_file(&self, member: &Member, target: &[Vec<u8>]) -> Result<(), SourceError> {
        let mut at = 0;
        for part in target {
            match self.index.get(&(at, part.as_slice().into())) {
                Some(next) => at = *next,
                None => return Err(refuse(&member.name, "is a hard link to a file that the source does not hold")),
            }
        }
        if self.nodes[at as usize] != Node::File {
            return Err(refuse(&member.name, "is a hard link to something that is no file"));
        }
        Ok(())
    }
}

/// Follows a symlink's target from the folder that the link is in.
pub(super) fn stays_inside(member: &Member, target: &[u8]) -> Result<(), SourceError> {
    let outside = || refuse(&member.name, format!("is a symlink that leads outside the source ({:?})", String::from_utf8_lossy(target)));
    if target.starts_with(b"/") {
        return Err(outside());
    }
    let mut above = member.path.len() - 1;
    let mut named = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return Err(refuse(&member.name, "is a symlink with `..` after a name")),
            b".." => above = above.checked_sub(1).ok_or_else(outside)?,
            _ => named = true,
        }
    }
    Ok(())
}

/// The name in the clean archive.
pub(super) fn joined(path: &[Vec<u8>]) -> Vec<u8> {
    let mut name = b"app".to_vec();
    for part in path {
        name.push(b'/');
        name.extend_from_slice(part);
    }
    name
}
