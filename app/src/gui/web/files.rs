//! Files as a browser has them: handles that are read when bytes are asked for, and bodies of responses, piece by piece.

use std::io;

use tersor_engine::format::ByteSource;
use tersor_engine::progress::Cancel;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, Blob, FileReaderSync, ReadableStreamDefaultReader, RequestInit, Response};

use super::{describe, scope};

/// Bytes read at once; what is larger is read in several pieces, so that the browser needs no copy of a whole tensor.
const PIECE: usize = 4 << 20;

/// A file that a person chose or that lies in the browser's storage.
pub struct BlobSource(pub Blob);

impl ByteSource for BlobSource {
    fn size(&self) -> u64 {
        self.0.size() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let wrong = |error: JsValue| {
            io::Error::other(format!("{}; has it been changed or deleted? Open it again", describe(&error)))
        };
        let reader = FileReaderSync::new().map_err(wrong)?;
        let mut at = offset;
        for piece in out.chunks_mut(PIECE) {
            let end = at + piece.len() as u64;
            let slice = self.0.slice_with_f64_and_f64(at as f64, end as f64).map_err(wrong)?;
            let bytes = js_sys::Uint8Array::new(&reader.read_as_array_buffer(&slice).map_err(wrong)?.into());
            if bytes.length() as usize != piece.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.copy_to(piece);
            at = end;
        }
        Ok(())
    }
}

/// Why work of the worker's own did not end well.
pub enum Stop {
    /// It was asked to.
    Cancelled,
    /// For people.
    Failed(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// What ends a download: the flag for what is between two pieces, the controller for what waits for one.
#[derive(Clone)]
pub struct Switch {
    cancel: Cancel,
    abort: AbortController,
}

impl Switch {
    pub fn new() -> Result<Self, String> {
        let abort = AbortController::new().map_err(|error| describe(&error))?;
        Ok(Self { cancel: Cancel::new(), abort })
    }

    pub fn cancel(&self) {
        self.cancel.cancel();
        self.abort.abort();
    }

    pub fn check(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() { Err(Stop::Cancelled) } else { Ok(()) }
    }
}

/// Asks for `address`, from byte `first` on.
pub async fn get(address: &str, first: u64, switch: &Switch) -> Result<Response, Stop> {
    let init = RequestInit::new();
    init.set_signal(Some(&switch.abort.signal()));
    if first > 0 {
        let headers = web_sys::Headers::new().map_err(|error| describe(&error))?;
        headers.set("Range", &format!("bytes={first}-")).map_err(|error| describe(&error))?;
        init.set_headers(&headers);
    }
    let answer = JsFuture::from(scope().fetch_with_str_and_init(address, &init)).await;
    switch.check()?;
    answer.map(JsCast::unchecked_into).map_err(|error| {
        format!("{address} cannot be reached ({}): check the connection and try again", describe(&error)).into()
    })
}

/// The text of an answer.
pub async fn text(answer: &Response) -> Result<String, String> {
    let text = JsFuture::from(answer.text().map_err(|error| describe(&error))?).await;
    Ok(text.map_err(|error| describe(&error))?.as_string().unwrap_or_default())
}

/// Hands the body of an answer to `take`, piece by piece.
pub async fn pieces(
    answer: &Response,
    switch: &Switch,
    mut take: impl FnMut(&js_sys::Uint8Array) -> Result<(), String>,
) -> Result<(), Stop> {
    let Some(body) = answer.body() else { return Ok(()) };
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    loop {
        let read = JsFuture::from(reader.read()).await;
        switch.check()?;
        let read = read.map_err(|error| format!("the connection broke off ({}): try again", describe(&error)))?;
        let field = |name: &str| js_sys::Reflect::get(&read, &name.into()).unwrap_or(JsValue::UNDEFINED);
        if field("done").is_truthy() {
            return Ok(());
        }
        take(&field("value").unchecked_into())?;
    }
}
