//! A registry on a loopback port: the part of the distribution protocol that a pull needs, for images in memory.
//! <https://github.com/opencontainers/distribution-spec>, endpoints 1 to 3.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer heads of requests are no pulls.
const HEAD_MAX: usize = 64 << 10;

/// Bytes under their digest.
pub struct Blob {
    pub kind: &'static str,
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// An image by its name and its only tag.
pub struct Repository {
    pub name: String,
    pub tag: String,
    pub manifest: Blob,
    pub blobs: Vec<Blob>,
}

/// Serves until it is dropped.
pub struct Registry {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Registry {
    /// Begins to serve on a port that is free.
    pub async fn serve(repositories: Vec<Repository>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("listen on a loopback port")?;
        let address = listener.local_addr().context("ask for the registry's port")?;
        let repositories = Rc::new(repositories);
        let server = tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let repositories = repositories.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = answer_all(stream, &repositories).await {
                        eprintln!("registry: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, server })
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Requests of one connection, one after another.
async fn answer_all(mut stream: TcpStream, repositories: &[Repository]) -> Result<()> {
    let mut received = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut received).await? {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (head, body): (String, &[u8]) = match find(repositories, path) {
            _ if method != "GET" && method != "HEAD" => (answer("405 Method Not Allowed", 0, ""), &[]),
            Found::Nothing => (answer("404 Not Found", 0, ""), &[]),
            Found::Root => (answer("200 OK", 2, "Content-Type: application/json\r\n"), b"{}"),
            Found::Blob(blob) => {
                let about = format!(
                    "Content-Type: {}\r\nDocker-Content-Digest: {}\r\n",
                    blob.kind, blob.digest
                );
                (answer("200 OK", blob.bytes.len(), &about), &blob.bytes)
            }
        };
        stream.write_all(head.as_bytes()).await.context("answer")?;
        if method == "GET" {
            stream.write_all(body).await.context("send a blob")?;
        }
    }
    Ok(())
}

/// The head of the next request, or `None` at the connection's end. Pulls have no bodies.
async fn next_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Option<String>> {
    loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            let head = std::mem::replace(received, rest);
            return Ok(Some(String::from_utf8(head).context("a request that is not text")?));
        }
        if received.len() > HEAD_MAX {
            bail!("a request's head of more than {HEAD_MAX} bytes");
        }
        let mut buffer = [0; 4096];
        // A client that goes in the middle is no error of ours.
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
        }
    }
}

fn answer(status: &str, length: usize, more: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

enum Found<'a> {
    Root,
    Blob(&'a Blob),
    Nothing,
}

fn find<'a>(repositories: &'a [Repository], path: &str) -> Found<'a> {
    // Clients of mirrors add `?ns=…`.
    let path = path.split('?').next().unwrap_or_default();
    let Some(path) = path.strip_prefix("/v2") else {
        return Found::Nothing;
    };
    if path.is_empty() || path == "/" {
        return Found::Root;
    }
    let mut parts = path.trim_start_matches('/').splitn(3, '/');
    let (Some(name), Some(kind), Some(reference)) = (parts.next(), parts.next(), parts.next()) else {
        return Found::Nothing;
    };
    let Some(repository) = repositories.iter().find(|repository| repository.name == name) else {
        return Found::Nothing;
    };
    let found = match kind {
        "manifests" => [&repository.manifest]
            .into_iter()
            .find(|manifest| reference == repository.tag || reference == manifest.digest),
        "blobs" => repository.blobs.iter().find(|blob| reference == blob.digest),
        _ => None,
    };
    found.map_or(Found::Nothing, Found::Blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> Repository {
        let blob = |kind, digest: &str| Blob {
            kind,
            digest: digest.to_owned(),
            bytes: Vec::new(),
        };
        Repository {
            name: "busybox".to_owned(),
            tag: "1".to_owned(),
            manifest: blob("manifest", "sha256:aa"),
            blobs: vec![blob("config", "sha256:bb")],
        }
    }

    fn kind(path: &str) -> Option<&'static str> {
        let repositories = [repository()];
        match find(&repositories, path) {
            Found::Blob(blob) => Some(blob.kind),
            Found::Root | Found::Nothing => None,
        }
    }

    #[test]
    fn manifests_are_found_by_tag_and_by_digest_and_blobs_by_digest() {
        assert_eq!(kind("/v2/busybox/manifests/1"), Some("manifest"));
        assert_eq!(kind("/v2/busybox/manifests/sha256:aa?ns=docker.io"), Some("manifest"));
        assert_eq!(kind("/v2/busybox/blobs/sha256:bb"), Some("config"));
    }

    #[test]
    fn anything_else_is_not_found() {
        for path in [
            "/v2/",
            "/",
            "/v2/busybox/manifests/2",
            "/v2/other/manifests/1",
            "/v2/busybox/tags/list",
        ] {
            assert_eq!(kind(path), None, "{path}");
        }
    }
}
