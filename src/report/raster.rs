//! A drawing as PNG. Text is set in the font beside this file, never in the system's: the same plot has the same bytes on
//! every machine. The font is Inter, cut down to Latin, Greek, Cyrillic and the signs used here; letters of other scripts
//! come out as boxes, and the SVG file is the one to take.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

const REGULAR: &[u8] = include_bytes!("fonts/Inter-Regular.otf");
const SEMIBOLD: &[u8] = include_bytes!("fonts/Inter-SemiBold.otf");

/// A drawing that could not be painted.
#[derive(Debug, thiserror::Error)]
pub enum RasterError {
    /// It is no SVG; one of ours always is.
    #[error("reading the drawing: {0}")]
    Svg(#[from] resvg::usvg::Error),
    /// Too large to paint.
    #[error("a drawing of {0}×{1} is too large to paint")]
    Size(u32, u32),
    /// It could not be written as PNG.
    #[error("writing PNG: {0}")]
    Png(String),
}

/// Paints an SVG file, `scale` dots a unit.
///
/// # Errors
/// [`RasterError`].
pub fn png(svg: &str, scale: f32) -> Result<Vec<u8>, RasterError> {
    static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
        let mut fonts = Database::new();
        fonts.load_font_data(REGULAR.to_vec());
        fonts.load_font_data(SEMIBOLD.to_vec());
        Arc::new(fonts)
    });
    let options = Options { font_family: "Inter".to_owned(), fontdb: FONTS.clone(), ..Options::default() };
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size();
    let (width, height) = ((size.width() * scale).ceil() as u32, (size.height() * scale).ceil() as u32);
    let mut pixels = Pixmap::new(width, height).ok_or(RasterError::Size(width, height))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| RasterError::Png(error.to_string()))
}
