//! A look at an image before a kernel mounts it: the superblock of squashfs 4.0, and whether it speaks of a file like this one.
//!
//! The kernel parses these images with all its rights, and a tenant has had a hand in them. This keeps out what is cut off, empty, made by
//! another program or plainly contradicts itself; what lies behind the tables' starts it does not read.

/// Bytes of it.
pub(super) const SIZE: usize = 96;

/// "hsqs", little endian.
const MAGIC: &[u8] = b"hsqs";
/// A table that the image does not have.
const NONE: u64 = u64::MAX;
/// Unpacked bytes of a block of metadata: no offset into one is beyond.
const METADATA: u64 = 8192;

/// Whether an image of `bytes` bytes that begins with `start` could be what it says.
///
/// # Errors
/// What it is instead, as the end of a sentence.
pub(super) fn check(start: &[u8], bytes: u64) -> Result<(), String> {
    let Some((block, _)) = start.split_first_chunk::<SIZE>().filter(|(block, _)| block.starts_with(MAGIC)) else {
        return Err("an image that is no squashfs".into());
    };
    let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let refuse = |what: String| Err(format!("a squashfs image {what}"));
    if (half(28), half(30)) != (4, 0) {
        return refuse(format!("of version {}.{}", half(28), half(30)));
    }
    let (size, log) = (word(12), half(22));
    if !(12..=20).contains(&log) || size != 1 << log {
        return refuse(format!("with blocks of {size} bytes"));
    }
    if !(1..=6).contains(&half(20)) {
        return refuse(format!("compressed in an unknown way ({})", half(20)));
    }
    if word(4) == 0 || half(26) == 0 {
        return refuse("without files or owners".into());
    }
    let used = long(40);
    if used > bytes {
        return refuse(format!("of {used} bytes, of which {bytes} are there"));
    }
    // In the order in which they are written, which the kernel relies on: inodes, directories, fragments, exports, ids, attributes.
    let tables = [64, 72, 80, 88, 48, 56].map(long);
    let [inodes, directories, .., ids, _] = tables;
    let there: Vec<u64> = tables.into_iter().filter(|at| *at != NONE).collect();
    let ordered = there.windows(2).all(|pair| pair[0] <= pair[1]) && there.iter().all(|at| (SIZE as u64..used).contains(at));
    if [inodes, directories, ids].contains(&NONE) || !ordered || inodes == directories {
        return refuse("whose tables lie where they cannot".into());
    }
    let root = long(32);
    if root >> 16 >= directories - inodes || root & 0xffff >= METADATA {
        return refuse("whose root is not among its files".into());
    }
    Ok(())
}

/// The least that passes, with something behind it.
#[cfg(test)]
pub(super) fn sample(behind: &[u8]) -> Vec<u8> {
    let mut image = MAGIC.to_vec();
    for word in [1u32, 0, 1 << 17, 0] {
        image.extend(word.to_le_bytes());
    }
    for half in [6u16, 17, 0xc0, 1, 4, 0] {
        image.extend(half.to_le_bytes());
    }
    for long in [0, 108, 106, NONE, 96, 100, NONE, NONE] {
        image.extend(u64::to_le_bytes(long));
    }
    image.extend([0; 12]);
    image.extend(behind);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As mksquashfs 4.5 wrote it for a folder with one file: zstd, no attributes; padded to 4 KiB.
    const REAL: &[u8] = include_bytes!("../../../fuzz/seeds/slug/zstd.sqsh");

    fn changed(at: usize, bytes: &[u8]) -> Result<(), String> {
        let mut image = REAL.to_vec();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        check(&image, image.len() as u64)
    }

    #[test]
    fn images_that_mksquashfs_writes_pass() {
        for name in ["zstd", "gzip", "lz4", "xz", "empty", "unfragmented"] {
            let path = format!("{}/../fuzz/seeds/slug/{name}.sqsh", env!("CARGO_MANIFEST_DIR"));
            let image = std::fs::read(path).unwrap();
            assert_eq!(check(&image, image.len() as u64), Ok(()), "{name}");
        }
        let sample = sample(b"");
        assert_eq!(check(&sample, sample.len() as u64), Ok(()));
    }

    #[test]
    fn what_contradicts_itself_does_not() {
        let whole = u64::from_le_bytes(REAL[40..48].try_into().unwrap());
        assert_eq!(check(REAL, whole), Ok(()));
        assert!(check(REAL, whole - 1).unwrap_err().contains("are there"));
        for length in 0..SIZE {
            assert!(check(&REAL[..length], length as u64).unwrap_err().contains("no squashfs"), "{length}");
        }
        for (at, bytes, part) in [
            (0, &b"sqsh"[..], "no squashfs"),
            (4, &[0; 4], "without files"),
            (12, &[0; 4], "blocks of 0 bytes"),
            (12, &3u32.to_le_bytes(), "blocks of 3 bytes"),
            (22, &[18, 0], "blocks of 131072 bytes"),
            (22, &[255, 255], "blocks of 131072 bytes"),
            (20, &[0, 0], "unknown way (0)"),
            (20, &[7, 0], "unknown way (7)"),
            (26, &[0, 0], "without files or owners"),
            (28, &[3, 0], "version 3.0"),
            (40, &[255; 8], "are there"),
            (40, &[0; 8], "tables"),
            (48, &[255; 8], "tables"),
            (64, &[0; 8], "tables"),
            (72, &[255; 8], "tables"),
            (80, &[1, 0, 0, 0, 0, 0, 0, 128], "tables"),
            (32, &[0, 32, 0, 0], "root"),
            (32, &[0, 0, 255, 255], "root"),
        ] {
            let error = changed(at, bytes).unwrap_err();
            assert!(error.contains(part), "{at}: {error:?} does not say {part:?}");
        }
    }
}
