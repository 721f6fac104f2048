//! Models in the browser's storage of this origin (OPFS): a folder each, which counts once its list of files is written.
//!
//! ```text
//! models/<name, as in a form>/<file>…
//! models/<name, as in a form>/tersor.json    {"name", "files": [[file, bytes], …]}
//! ```

use serde::{Deserialize, Serialize};
use tersor_engine::format::ByteSource;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions, FileSystemGetFileOptions,
    FileSystemReadWriteOptions, FileSystemRemoveOptions, FileSystemSyncAccessHandle, FileSystemWritableFileStream,
};

use super::files::BlobSource;
use super::{describe, scope};
use crate::gui::client::Kept;

/// A model's files, which are read when bytes are asked for.
pub type Sources = Vec<(String, Box<dyn ByteSource>)>;

/// The list of a model's files.
const LIST: &str = "tersor.json";

#[derive(Serialize, Deserialize)]
struct List {
    name: String,
    files: Vec<(String, u64)>,
}

/// All models.
pub struct Storage(FileSystemDirectoryHandle);

/// One model's folder.
pub struct Folder(FileSystemDirectoryHandle);

async fn wait<T: JsCast>(promise: js_sys::Promise) -> Result<T, String> {
    JsFuture::from(promise).await.map(JsCast::unchecked_into).map_err(|error| describe(&error))
}

fn encoded(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

async fn folder(of: &FileSystemDirectoryHandle, name: &str, create: bool) -> Result<FileSystemDirectoryHandle, String> {
    let options = FileSystemGetDirectoryOptions::new();
    options.set_create(create);
    wait(of.get_directory_handle_with_options(name, &options)).await
}

impl Storage {
    /// # Errors
    /// Where the browser has no such storage, e.g. in a private window.
    pub async fn open() -> Result<Self, String> {
        let root = wait(scope().navigator().storage().get_directory()).await?;
        folder(&root, "models", true).await.map(Self)
    }

    /// The models that are whole.
    pub async fn list(&self) -> Result<Vec<Kept>, String> {
        let keys = self.0.keys();
        let mut found = Vec::new();
        loop {
            let next: JsValue = wait(keys.next().map_err(|error| describe(&error))?.unchecked_into()).await?;
            let field = |name: &str| js_sys::Reflect::get(&next, &name.into()).unwrap_or(JsValue::UNDEFINED);
            if field("done").is_truthy() {
                break;
            }
            let Some(key) = field("value").as_string() else { continue };
            if let Ok(model) = folder(&self.0, &key, false).await
                && let Some(List { name, files }) = Folder(model).read_list().await
            {
                found.push(Kept { name, bytes: files.iter().map(|(_, bytes)| bytes).sum() });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The files of a model, if it is there and whole.
    pub async fn find(&self, name: &str) -> Option<Sources> {
        let model = Folder(folder(&self.0, &encoded(name), false).await.ok()?);
        let mut sources = Sources::new();
        for (file, bytes) in model.read_list().await?.files {
            let found = model.file(&file).await.ok().filter(|found| found.size() as u64 == bytes)?;
            sources.push((file, Box::new(BlobSource(found.into()))));
        }
        Some(sources)
    }

    /// The folder of a model that is to be written, or written on. It does not count until [`Folder::finish`].
    pub async fn begin(&self, name: &str) -> Result<Folder, String> {
        let model = Folder(folder(&self.0, &encoded(name), true).await?);
        // It may never have been whole.
        let _ = JsFuture::from(model.0.remove_entry(LIST)).await;
        Ok(model)
    }

    /// Deletes a model, whole or not.
    pub async fn delete(&self, name: &str) -> Result<(), String> {
        let options = FileSystemRemoveOptions::new();
        options.set_recursive(true);
        wait::<JsValue>(self.0.remove_entry_with_options(&encoded(name), &options)).await.map(drop)
    }
}

impl Folder {
    async fn handle(&self, file: &str, create: bool) -> Result<FileSystemFileHandle, String> {
        let options = FileSystemGetFileOptions::new();
        options.set_create(create);
        wait(self.0.get_file_handle_with_options(file, &options)).await
    }

    /// A file as it is now.
    pub async fn file(&self, name: &str) -> Result<File, String> {
        wait(self.handle(name, false).await?.get_file()).await
    }

    async fn read_list(&self) -> Option<List> {
        let text: JsValue = wait(self.file(LIST).await.ok()?.text()).await.ok()?;
        serde_json::from_str(&text.as_string()?).ok()
    }

    /// Copies a file into the folder, without passing it through this program's memory.
    pub async fn copy(&self, name: &str, from: &File) -> Result<(), String> {
        let to: FileSystemWritableFileStream = wait(self.handle(name, true).await?.create_writable()).await?;
        wait::<JsValue>(from.stream().pipe_to(&to)).await.map(drop)
    }

    /// Opens a file for writing on.
    pub async fn write(&self, name: &str) -> Result<Writer, String> {
        let handle: FileSystemSyncAccessHandle =
            wait(self.handle(name, true).await?.create_sync_access_handle()).await?;
        let end = handle.get_size().map_err(|error| describe(&error))? as u64;
        Ok(Writer { handle, end })
    }

    /// Writes the list, by which the model counts.
    pub async fn finish(&self, name: &str, files: Vec<(String, u64)>) -> Result<(), String> {
        let list = serde_json::to_vec(&List { name: name.to_owned(), files }).map_err(|error| error.to_string())?;
        let mut writer = self.write(LIST).await?;
        writer.clear()?;
        writer.put(&js_sys::Uint8Array::from(&list[..]))
    }
}

/// A file that is being written; closed when dropped.
pub struct Writer {
    handle: FileSystemSyncAccessHandle,
    end: u64,
}

impl Writer {
    /// Bytes it has.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Begins anew.
    pub fn clear(&mut self) -> Result<(), String> {
        self.end = 0;
        self.handle.truncate_with_u32(0).map_err(|error| describe(&error))
    }

    /// Adds bytes at the end.
    pub fn put(&mut self, bytes: &js_sys::Uint8Array) -> Result<(), String> {
        let at = FileSystemReadWriteOptions::new();
        at.set_at(self.end as f64);
        let written = self.handle.write_with_buffer_source_and_options(bytes, &at).map_err(|error| describe(&error))?;
        if written as u32 != bytes.length() {
            return Err("the browser's storage is full: delete a model on the Models page and try again".to_owned());
        }
        self.end += u64::from(bytes.length());
        Ok(())
    }

    /// Reads it from the start, piece by piece.
    pub fn read(&self, mut take: impl FnMut(&[u8])) -> Result<(), String> {
        let mut piece = vec![0; 1 << 20];
        let mut done = 0;
        while done < self.end {
            let at = FileSystemReadWriteOptions::new();
            at.set_at(done as f64);
            let read = self.handle.read_with_u8_array_and_options(&mut piece, &at).map_err(|error| describe(&error))?;
            let read = piece.get(..read as usize).filter(|read| !read.is_empty());
            let read = read.ok_or("the browser's storage ends before its file does")?;
            take(read);
            done += read.len() as u64;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.handle.close();
    }
}
