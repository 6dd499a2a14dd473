//! File systems: images of the host, id ranges, the root of one sandbox, and its small mounts.
//!
//! Everything is assembled as detached mounts and handed on as file descriptors; nothing of a dyno ever
//! shows in the host's mount table. Only images (one mount per image and host) and one /dev are attached there.

mod by_path;
mod dev;
mod disk;
mod empty;
mod image;
mod lease;
mod ownership;
mod root;

pub use by_path::detach;
pub use dev::{LINKS, NODES, new_dev, new_pts, new_shm, open_terminal, resize_terminal};
pub use disk::Disks;
pub use empty::empty_namespace;
pub use image::Images;
pub(crate) use lease::HostIds;
pub(crate) use lease::host_id;
pub use lease::{Claim, Lease, Leases};
pub use root::{LayerTree, Root, WritableLayer, assemble, clone_tree, read_only_file, volume};
