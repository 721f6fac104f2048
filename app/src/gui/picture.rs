//! A picture of the window, for documents and tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use eframe::egui;

/// Takes a picture of the window when all work is done, then closes it.
pub struct Finish {
    path: PathBuf,
    result: Sender<Result<(), String>>,
    /// Frames since the work was done: layout and animations need a few to settle.
    settled: u32,
}

/// Frames before the picture is taken.
const SETTLE: u32 = 20;

impl Finish {
    pub fn new(path: PathBuf, result: Sender<Result<(), String>>) -> Self {
        Self { path, result, settled: 0 }
    }

    pub fn step(&mut self, ctx: &egui::Context, busy: bool) {
        if busy {
            self.settled = 0;
            return;
        }
        self.settled += 1;
        if self.settled < SETTLE {
            ctx.request_repaint();
        } else if self.settled == SETTLE {
            let (path, result, window) = (self.path.clone(), self.result.clone(), ctx.clone());
            ctx.request_screenshot(move |image: Arc<egui::ColorImage>| {
                let _ = result.send(write(&path, &image)); // the receiver waits for it
                window.send_viewport_cmd(egui::ViewportCommand::Close);
            });
        }
    }
}

/// Writes a picture.
fn write(path: &Path, image: &egui::ColorImage) -> Result<(), String> {
    let [width, height] = image.size.map(|n| n as u32);
    let file = std::fs::File::create(path).map_err(|error| error.to_string())?;
    let mut encoder = png::Encoder::new(std::io::BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let pixels: Vec<u8> = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(|error| error.to_string())
}
