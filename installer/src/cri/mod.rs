//! Asks containerd, by CRI, which handlers it knows.
//!
//! The answer of a running containerd is what counts: a file can be right and not read. One call of gRPC without
//! metadata needs no more of HTTP/2 than `http2` has, and no asynchronous runtime in a program that runs once.

mod http2;
mod message;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use message::{Field, fields, string};

/// How long containerd may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why containerd could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CriError {
    /// Nobody listens.
    #[error("connect to containerd's socket {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or was no HTTP/2.
    #[error("call {method} on {}", .path.display())]
    Call {
        /// The method.
        method: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Answered with an error: the CRI plugin is off, or older than the API's version 1.
    #[error(
        "containerd at {} does not answer {method}: its CRI plugin is switched off or failed to load, or it is older \
         than \
         1.6", .path.display()
    )]
    Refused {
        /// The method.
        method: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// Answered with something else than CRI says.
    #[error("the answer of {} to {method} cannot be understood", .path.display())]
    Answer {
        /// The method.
        method: &'static str,
        /// The socket.
        path: PathBuf,
    },
}

/// A runtime's name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `containerd`.
    pub name: String,
    /// As it is built with, such as `v2.4.2`.
    pub version: String,
}

impl RuntimeVersion {
    /// Whether the shim works with it: containerd 1.6 or later. A version without numbers is one that somebody built.
    pub fn is_supported(&self) -> bool {
        self.name == "containerd" && self.numbers().is_none_or(|numbers| numbers >= (1, 6))
    }

    /// Whether a handler's `runtime_path` counts: 1.6 reads it and goes by the type alone.
    pub fn knows_runtime_path(&self) -> bool {
        self.numbers().is_none_or(|numbers| numbers >= (1, 7))
    }

    fn numbers(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.trim_start_matches('v').split(['.', '-', '+', '~']);
        let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
        number().zip(number())
    }
}

/// Asks for name and version.
pub fn version(socket: &Path) -> Result<RuntimeVersion, CriError> {
    const METHOD: &str = "/runtime.v1.RuntimeService/Version";
    let answer = call(socket, METHOD, &[])?;
    let found = |number| {
        fields(&answer)
            .ok()?
            .into_iter()
            .find_map(|(field, value)| (field == number).then(|| string(&value)).flatten())
    };
    match (found(2), found(3)) {
        (Some(name), Some(version)) => Ok(RuntimeVersion { name, version }),
        _ => Err(misunderstood(socket, METHOD)),
    }
}

/// Asks for the names of the handlers that pods can name.
pub fn handlers(socket: &Path) -> Result<Vec<String>, CriError> {
    let runtimes = runtimes(socket)?;
    Ok(runtimes.into_iter().map(|(name, _)| name).collect())
}

/// Asks for the handlers, each with the type of its runtime.
pub fn runtimes(socket: &Path) -> Result<Vec<(String, String)>, CriError> {
    const METHOD: &str = "/runtime.v1.RuntimeService/Status";
    // `verbose = true`: the configuration in force comes along, with every containerd since 1.6.
    let answer = call(socket, METHOD, &[0x08, 0x01])?;
    runtimes_in(&answer).ok_or_else(|| misunderstood(socket, METHOD))
}

fn runtimes_in(answer: &[u8]) -> Option<Vec<(String, String)>> {
    const INFO: u32 = 2;
    for (field, value) in fields(answer).ok()? {
        let Field::Bytes(entry) = value else { continue };
        if field != INFO {
            continue;
        }
        let entry = fields(entry).ok()?;
        let part = |number| {
            entry
                .iter()
                .find_map(|(field, value)| (*field == number).then(|| string(value)).flatten())
        };
        if part(1).as_deref() != Some("config") {
            continue;
        }
        let config: serde_json::Value = serde_json::from_str(&part(2)?).ok()?;
        let runtimes = config.pointer("/containerd/runtimes")?.as_object()?;
        let kind = |runtime: &serde_json::Value| runtime["runtimeType"].as_str().unwrap_or_default().to_owned();
        let runtimes = runtimes.iter().map(|(name, runtime)| (name.clone(), kind(runtime)));
        return Some(runtimes.collect());
    }
    None
}

fn call(socket: &Path, method: &'static str, request: &[u8]) -> Result<Vec<u8>, CriError> {
    let path = || socket.to_owned();
    let connect = || -> io::Result<UnixStream> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let stream = connect().map_err(|source| CriError::Connect { path: path(), source })?;
    let answer = http2::unary(stream, method, request).map_err(|source| CriError::Call {
        method,
        path: path(),
        source,
    })?;
    answer.ok_or_else(|| CriError::Refused { method, path: path() })
}

fn misunderstood(socket: &Path, method: &'static str) -> CriError {
    CriError::Answer {
        method,
        path: socket.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{RuntimeVersion, runtimes_in};

    #[test]
    fn containerd_is_supported_from_1_6_on() {
        for (name, version, supported) in [
            ("containerd", "1.6.20~ds1", true),
            ("containerd", "v1.7.27", true),
            ("containerd", "v2.4.2", true),
            ("containerd", "v2.2.1-k3s1", true),
            ("containerd", "1.5.9", false),
            ("containerd", "v0.9.1", false),
            ("containerd", "(devel)", true),
            ("cri-o", "1.30.0", false),
        ] {
            let version = RuntimeVersion {
                name: name.to_owned(),
                version: version.to_owned(),
            };
            assert_eq!(version.is_supported(), supported, "{version:?}");
        }
    }

    #[test]
    fn handlers_are_read_out_of_the_configuration_in_force() {
        let json = br#"{"containerd":{"runtimes":{"nucleus":{"runtimeType":"ours"},"runc":{}}}}"#;
        let mut entry = vec![0x0a, 6];
        entry.extend(b"config");
        entry.extend([0x12, u8::try_from(json.len()).unwrap()]);
        entry.extend(json);
        let mut answer = vec![0x0a, 0, 0x12, u8::try_from(entry.len()).unwrap()];
        answer.extend(entry);
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        assert_eq!(
            runtimes_in(&answer).unwrap(),
            [pair("nucleus", "ours"), pair("runc", "")]
        );
        assert_eq!(runtimes_in(&answer[..10]), None);
        assert_eq!(runtimes_in(&[]), None);
    }
}
