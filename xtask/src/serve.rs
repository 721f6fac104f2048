//! Serves a folder of static files on this machine alone: for looking at the web page, and for its tests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

/// Opens a port, any free one for 0, and serves `folder` on it until the process ends. Returns the address.
pub fn serve(folder: PathBuf, port: u16) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            // A connection that breaks is the browser's business.
            std::thread::spawn(move || drop(answer(&folder, stream)));
        }
    });
    Ok(address)
}

fn answer(folder: &Path, mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The headers must be read before the answer, else closing the connection resets it.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or("/"));
    let file = path(target).map(|path| folder.join(path)).filter(|_| matches!(method, "GET" | "HEAD"));
    let (status, kind, body) = match file.and_then(|file| Some((std::fs::read(&file).ok()?, kind(&file)))) {
        Some((body, kind)) => ("200 OK", kind, body),
        None => ("404 Not Found", "text/plain", b"not found".to_vec()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.flush()
}

/// The file that a request's target names, which never leaves the folder.
fn path(target: &str) -> Option<PathBuf> {
    let target = target.split(['?', '#']).next().unwrap_or_default().trim_start_matches('/');
    let target = if target.is_empty() { "index.html" } else { target };
    let path = Path::new(target);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| path.to_owned())
}

fn kind(file: &Path) -> &'static str {
    match file.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_leaves_the_folder() {
        assert_eq!(path("/"), Some("index.html".into()));
        assert_eq!(path("/models/tiny/index.json?x=1"), Some("models/tiny/index.json".into()));
        for target in ["/../Cargo.toml", "/a/../../b", "//etc/passwd/..", "/./a"] {
            assert!(path(target).is_none_or(|p| !p.starts_with("..") && p.is_relative()), "{target}");
        }
        assert_eq!(path("/../Cargo.toml"), None);
    }
}
