//! Takes in what a pack dyno writes: texts into memory, images onto disk.

use std::{collections::BTreeMap, io::Read, path::Path};

use super::{
    Limits,
    failure::Failure,
    frames::{FrameError, Frames, Name},
    images::{Draft, Written},
    release_file::default_process_types,
    superblock,
};
use crate::{
    model::{ProcessType, procfile},
    printable::printable,
};

/// Bytes of a Procfile or a release.
const MAX_TEXT: u64 = 1 << 20;
/// Characters of what was detected.
const MAX_DETECTED: usize = 80;

/// A packed app.
#[derive(Debug)]
pub(super) struct Packed {
    /// The buildpack's defaults overlaid by the Procfile.
    pub process_types: BTreeMap<ProcessType, String>,
    pub detected: String,
    pub slug: Written,
    pub cache: Cached,
}

/// What came for the next build.
#[derive(Debug)]
pub(super) enum Cached {
    /// Nothing: what was there is gone.
    Empty,
    Image(Written),
    TooLarge {
        bytes: u64,
    },
}

/// Reads a whole stream of frames. Blocks; nothing stays on disk if it fails.
pub(super) fn receive(from: impl Read, limits: &Limits, slugs: &Path, caches: &Path) -> Result<Packed, Failure> {
    let mut frames = Frames::new(from);
    let (mut process_types, mut declared) = (None, BTreeMap::new());
    let (mut detected, mut slug, mut cache) = (None, None, Cached::Empty);
    while let Some((name, bytes)) = frames.next()? {
        match name {
            Name::Procfile => declared = procfile::parse(&frames.whole(MAX_TEXT)?)?,
            Name::Release => {
                let defaults = default_process_types(&frames.whole(MAX_TEXT)?).map_err(Failure::Release)?;
                process_types = Some(defaults);
            }
            Name::Detected => detected = Some(shown(&frames.whole(MAX_TEXT)?)),
            Name::Slug if bytes > limits.slug_bytes => {
                return Err(Failure::SlugTooLarge { bytes, max: limits.slug_bytes });
            }
            Name::Slug => slug = Some(image(&mut frames, slugs)?),
            Name::Cache if bytes > limits.cache_bytes => cache = Cached::TooLarge { bytes },
            Name::Cache => cache = Cached::Image(image(&mut frames, caches)?),
            Name::End => {}
        }
    }
    let mut process_types = process_types.ok_or(Failure::Missing("release"))?;
    process_types.extend(declared);
    if process_types.is_empty() {
        return Err(Failure::NoTypes);
    }
    let detected = detected.ok_or(Failure::Missing("detected language"))?;
    Ok(Packed { process_types, detected, slug: slug.ok_or(Failure::Missing("slug"))?, cache })
}

fn image(frames: &mut Frames<impl Read>, folder: &Path) -> Result<Written, Failure> {
    let mut draft = Draft::create(folder).map_err(Failure::Store)?;
    let mut start: Vec<u8> = Vec::new();
    loop {
        let piece = frames.piece(|piece| {
            start.extend(piece.iter().take(superblock::SIZE.saturating_sub(start.len())));
            draft.write(piece)
        })?;
        // The outer error is the stream's, the inner one the disk's.
        let Some(written) = piece else { break };
        written.map_err(Failure::Store)?;
    }
    superblock::check(&start, draft.size()).map_err(FrameError::Malformed)?;
    draft.finish().map_err(Failure::Store)
}

/// Its first line, as far as it may be shown.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    printable(text.lines().next().unwrap_or_default().trim(), MAX_DETECTED)
}

#[cfg(test)]
mod tests {
    use super::{superblock::sample, *};

    fn frame(name: &str, bytes: &[u8]) -> Vec<u8> {
        [format!("{name} {}\n", bytes.len()).as_bytes(), bytes].concat()
    }

    fn receive_all(frames: &[Vec<u8>], folder: &Path) -> Result<Packed, String> {
        let limits = Limits { slug_bytes: 150, cache_bytes: 150, ..Limits::default() };
        receive(&*frames.concat(), &limits, folder, folder).map_err(|error| error.to_string())
    }

    #[test]
    fn a_packed_app_is_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let frames = [
            frame("PROCFILE", b"web: mine\nworker: w\n"),
            frame("RELEASE", b"default_process_types:\n  web: theirs\n  rake: r\n"),
            frame("DETECTED", b" Py\x1b[31mthon\nx"),
            frame("SLUG", &sample(b"slug")),
            frame("CACHE", &sample(b"cache")),
            frame("END", b""),
        ];
        let packed = receive_all(&frames, dir.path()).unwrap();
        let types: Vec<_> = packed.process_types.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect();
        assert_eq!(types, [("rake", "r"), ("web", "mine"), ("worker", "w")]);
        assert_eq!((packed.detected.as_str(), packed.slug.size), ("Py\u{fffd}[31mthon", sample(b"slug").len() as u64));
        assert!(matches!(&packed.cache, Cached::Image(image) if image.size == sample(b"cache").len() as u64));
    }

    #[test]
    fn what_is_wrong_is_named_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let release = frame("RELEASE", b"default_process_types:\n  web: w\n");
        let detected = frame("DETECTED", b"x");
        let (slug, end) = (frame("SLUG", &sample(b"")), frame("END", b""));
        let refused = |frames: &[&Vec<u8>], want: &str| {
            let frames: Vec<_> = frames.iter().map(|frame| (*frame).clone()).collect();
            let error = receive_all(&frames, dir.path()).expect_err(want);
            assert!(error.contains(want), "{error:?} does not say {want:?}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{want}");
        };
        refused(&[&frame("PROCFILE", b"web: a\nnonsense\n")], "Procfile line 2:");
        refused(&[&frame("RELEASE", b"default_process_types: [a]")], "line 1 of the buildpack's release");
        refused(&[&frame("RELEASE", b"--- {}\n"), &detected, &slug, &end], "no process types");
        refused(&[&release, &detected, &end], "has no slug");
        refused(&[&release, &slug, &end], "has no detected language");
        refused(&[&detected, &slug, &end], "has no release");
        refused(&[&release, &detected, &slug], "ended in the middle");
        refused(&[&release, &detected, &b"SLUG 151\nhsqs".to_vec()], "your compiled slug is 0K (max is 0K)");
        refused(&[&release, &detected, &frame("SLUG", b"\x7fELF")], "no squashfs");
        refused(&[&release, &detected, &frame("SLUG", b"hs")], "no squashfs");
        refused(&[&release, &detected, &slug, &frame("CACHE", b"x"), &end], "no squashfs");
        refused(&[&release, &detected, &frame("SLUG", &sample(b"")[..107])], "of which 107 are there");
        refused(&[&format!("PROCFILE {}\n", (1 << 20) + 1).into_bytes()], "at most 1048576");
    }

    #[test]
    fn a_cache_over_its_bound_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let release = frame("RELEASE", b"default_process_types:\n  web: w\n");
        let frames = [release, frame("DETECTED", b"x"), frame("SLUG", &sample(b"")), frame("CACHE", &[0; 151]), frame("END", b"")];
        let packed = receive_all(&frames, dir.path()).unwrap();
        assert!(matches!(packed.cache, Cached::TooLarge { bytes: 151 }));
    }
}
