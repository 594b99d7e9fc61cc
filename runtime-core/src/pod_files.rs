//! The files of /etc that are a pod's: hostname, hosts, resolv.conf. Where containerd leaves a pod's sandbox to the
//! shim, it leaves these to it as well; what is in them is what containerd itself writes for a pause container.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Why they are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word that would be several lines.
    #[error("dns_config.{field}: {value:?} has a newline or a NUL in it")]
    Word {
        /// servers, searches or options.
        field: &'static str,
        /// The word.
        value: String,
    },
    /// A file of the host's, or one of the pod's.
    #[error("{operation} {path:?}")]
    File {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// CRI's DNSConfig.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Of this length at most: files of the host's that are longer were never meant.
const LIMIT: u64 = 1 << 20;

/// Writes them below `directory`, which is made. They belong to `root`, the pod's, as the host numbers it. Without a
/// hostname or DNS settings of its own the pod has the host's.
pub fn write(directory: &Path, hostname: &str, dns: Option<&Dns>, root: (u32, u32)) -> Result<(), Error> {
    let name = match hostname {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    let resolv_conf = match dns {
        Some(dns) => resolv_conf(dns)?.into_bytes(),
        None => read(Path::new("/etc/resolv.conf"))?,
    };
    let made = std::fs::DirBuilder::new().mode(0o711).create(directory);
    match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::File {
                operation: "make",
                path: directory.into(),
                source,
            });
        }
        _ => {}
    }
    let hosts = read(Path::new("/etc/hosts"))?;
    for (file, text) in [
        ("hostname", format!("{name}\n").into_bytes()),
        ("hosts", hosts),
        ("resolv.conf", resolv_conf),
    ] {
        let path = directory.join(file);
        write_one(&path, &text, root).map_err(|source| Error::File {
            operation: "write",
            path,
            source,
        })?;
    }
    Ok(())
}

/// resolv.conf(5).
fn resolv_conf(dns: &Dns) -> Result<String, Error> {
    for (field, words) in [
        ("servers", &dns.servers),
        ("searches", &dns.searches),
        ("options", &dns.options),
    ] {
        if let Some(word) = words.iter().find(|word| word.contains(['\n', '\0'])) {
            return Err(Error::Word {
                field,
                value: word.clone(),
            });
        }
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(text)
}

/// A file of the host's; nothing where there is none.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    use io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut text));
    match read {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::File {
            operation: "read",
            path: path.into(),
            source,
        }),
        _ => Ok(text),
    }
}

fn write_one(path: &Path, text: &[u8], (uid, gid): (u32, u32)) -> io::Result<()> {
    use io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(text)?;
    // The shim's mask is nobody's business in the pod.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    chown(path, Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_settings_are_lines_of_resolv_conf() {
        let dns = Dns {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        let expected = "search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns).unwrap(), expected);
        assert_eq!(resolv_conf(&Dns::default()).unwrap(), "");
    }

    #[test]
    fn a_word_of_several_lines_is_refused() {
        let dns = Dns {
            searches: vec!["a\nnameserver 6.6.6.6".into()],
            ..Dns::default()
        };
        let error = resolv_conf(&dns).unwrap_err().to_string();
        assert!(error.starts_with("dns_config.searches: "), "{error}");
    }

    #[test]
    fn the_files_are_written_with_the_pod_s_name() {
        let bundle = tempfile::tempdir().unwrap();
        let directory = bundle.path().join("etc");
        write(&directory, "web", Some(&Dns::default()), (0, 0)).unwrap();
        let text = |name| std::fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!((text("hostname"), text("resolv.conf")), ("web\n".into(), String::new()));
        assert!(directory.join("hosts").exists());
        write(&directory, "", None, (0, 0)).unwrap();
        assert_ne!(text("hostname"), "\n");
    }
}
