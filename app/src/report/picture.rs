//! Plots as pictures, for programs that show no drawings.
//!
//! In: a plot that stands by itself ([`super::plot::standalone`]). Out: the bytes of a PNG. The letters are those of the app's own font,
//! so that a picture is the same on every machine, also on one without fonts. In a browser the page draws the plot itself.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// Dots for each unit of the drawing.
const SCALE: f32 = 2.0;

/// Draws a plot.
///
/// # Errors
/// A drawing that cannot be read, or is too large to be drawn.
pub fn png(svg: &str) -> Result<Vec<u8>, String> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|face| Some(face.families.first()?.0.clone()));
    fonts.set_sans_serif_family(family.ok_or("the app's font cannot be read")?);
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let [width, height] = [tree.size().width(), tree.size().height()].map(|length| (SCALE * length).round() as u32);
    let mut pixels = Pixmap::new(width, height).ok_or("it is too large")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::{Better, Mark, Point, Scale, scatter, standalone};

    /// Width, height, and the pixels' red, green, blue, alpha.
    fn decode(png: &[u8]) -> (u32, u32, Vec<[u8; 4]>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgba);
        let (pixels, _) = bytes[..info.buffer_size()].as_chunks();
        (info.width, info.height, pixels.to_vec())
    }

    #[test]
    fn a_plot_becomes_a_picture_with_letters() {
        let point = |label: &str, mark| Point { label: label.into(), x: 5.0, y: 0.1, error: 0.02, mark };
        let points = [point("q4_k", Mark::Circle), Point { x: 9.0, ..point("q8_0 (theirs)", Mark::Diamond) }];
        let plot = scatter("Size", ("MB", Scale::FromZero), ("KLD", Scale::Log), Better::Left, &points).unwrap();
        let svg = standalone(&plot);
        let (width, height, pixels) = decode(&png(&svg).unwrap());
        assert_eq!((width, height), (960, 620));
        assert!(pixels.iter().all(|pixel| pixel[3] == 255), "it has a ground");
        assert_eq!(pixels[0], [255; 4]);
        for colour in [[0x3b, 0x3f, 0x45], [0x1f, 0x6f, 0xd6]] {
            assert!(pixels.iter().filter(|pixel| pixel[..3] == colour).count() > 100, "no point is {colour:x?}");
        }
        // The title is the only thing in its place, and its letters are in the app's own font: there is no other.
        let dark = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, pixels: &[[u8; 4]]| {
            let at = |row: usize| columns.clone().map(move |column| row * 960 + column);
            rows.flat_map(at).filter(|at| pixels[*at][0] < 128).count()
        };
        assert!(dark(12..44, 124..190, &pixels) > 60, "no title: {}", dark(12..44, 124..190, &pixels));
        let (_, _, without) = decode(&png(&svg.replace(">Size</text>", "></text>")).unwrap());
        assert_eq!(dark(12..44, 124..190, &without), 0);
    }

    #[test]
    fn what_is_no_drawing_is_refused() {
        for text in ["", "<svg", "<p>text</p>", "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1e9 1e9\"/>"] {
            assert!(png(text).is_err(), "{text}");
        }
    }
}
