//! Policy files for Landlock and capabilities: settings of one table, in a file that is pinned. They tighten what else
//! holds, so that it does not matter who names them.

use std::path::PathBuf;

use super::landlock::Ports;
use super::pinned::{self, Place};
use super::settings::{Layer, Policy};
use super::values::{Given, Tier};
use super::{Names, Origin, toml};

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    File(#[from] pinned::Error),
    #[error("{table}.profile: {path:?} is not UTF-8")]
    Text { table: &'static str, path: PathBuf },
    #[error("{table}.profile")]
    Toml {
        table: &'static str,
        #[source]
        source: super::Error,
    },
    #[error("{table}.profile: {path:?}, line {line}: {key} is the node's to set, not a profile's")]
    Key {
        table: &'static str,
        path: PathBuf,
        line: usize,
        key: String,
    },
}

/// What a file cannot say: it would name others, or say which to believe.
const NOT_FOR_PROFILES: [&str; 3] = ["profile", "directory", "pinned"];

/// Tightens `policy` by the files that it names itself, read and checked anew for each container. Nothing is read where
/// it names none.
///
/// # Errors
/// A file that is not to be believed, or that says what it cannot.
pub fn tighten(policy: &mut Policy) -> Result<(), Error> {
    let files = [
        files(
            &policy.landlock_profile.value,
            Place {
                table: "landlock",
                directory: &policy.landlock_directory.value,
                pins: &policy.landlock_pinned.value,
                extension: "toml",
            },
        )?,
        files(
            &policy.capabilities_profile.value,
            Place {
                table: "capabilities",
                directory: &policy.capabilities_directory.value,
                pins: &policy.capabilities_pinned.value,
                extension: "toml",
            },
        )?,
    ];
    let by: [Origin; 2] = [policy.landlock_profile.from, policy.capabilities_profile.from];
    for (layers, by) in files.into_iter().zip(by) {
        for mut layer in layers {
            if layer.landlock_tier == Some(Tier::Strict) && policy.landlock_tcp_connect.value == Ports::Any {
                // As for every other layer: with the tier comes a list of ports.
                layer.landlock_tcp_connect.get_or_insert(Ports::NONE);
            }
            policy.tighten(&layer, by);
        }
    }
    Ok(())
}

fn files(names: &Names, place: Place<'_>) -> Result<Vec<Layer>, Error> {
    names.0.iter().map(|name| layer(name, place)).collect()
}

fn layer(name: &str, place: Place<'_>) -> Result<Layer, Error> {
    let table = place.table;
    let content = place.read(name)?;
    let path = content.path;
    let Ok(text) = String::from_utf8(content.bytes) else {
        return Err(Error::Text { table, path });
    };
    let shown = path.display().to_string();
    let entries = toml::parse(&text).map_err(|source| Error::Toml {
        table,
        source: super::Error::Toml {
            place: shown.clone(),
            source,
        },
    })?;
    let mut layer = Layer::default();
    for entry in entries {
        if NOT_FOR_PROFILES.contains(&entry.key.as_str()) {
            return Err(Error::Key {
                table,
                path,
                line: entry.line,
                key: format!("{table}.{}", entry.key),
            });
        }
        let line = format!("{shown}, line {}", entry.line);
        let set = layer.set(&line, &format!("{table}.{}", entry.key), Given::Toml(&entry.value));
        set.map_err(|source| Error::Toml { table, source })?;
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sha2::{Digest as _, Sha256};

    use super::super::{CapabilityLimit, resolve};
    use super::*;

    /// What becomes of a policy `said` with the file `text`, by who names it.
    fn tightened(table: &str, text: &str, said: &str, by_pod: bool) -> Result<Policy, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        let named = if by_pod { "" } else { "profile = ['web']\n" };
        let directory = directory.path().display();
        let configuration =
            format!("{said}\n[{table}]\n{named}directory = '{directory}'\npinned = ['web=sha256:{digest}']\n");
        let mut layer = Layer::default();
        for entry in toml::parse(&configuration).unwrap() {
            layer.set_entry("test", &entry).unwrap();
        }
        let key = format!("nucleus.dev/{table}.profile");
        let annotations = by_pod.then_some((key.as_str(), "web"));
        let mut policy = resolve(&layer, &Layer::default(), annotations).unwrap();
        tighten(&mut policy).map_err(|error| crate::error_chain::chain(&error))?;
        Ok(policy)
    }

    #[test]
    fn a_file_tightens_what_the_node_says_and_loosens_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let text = "write = ['/data/a', '/etc']\ntcp_connect = ['443', '22']\ntier = 'baseline'\n";
        let said = "landlock.tier = 'hardened'\nlandlock.write = ['/data']\nlandlock.tcp_connect = ['443']";
        for by_pod in [false, true] {
            let policy = tightened("landlock", text, said, by_pod).unwrap();
            assert_eq!(policy.landlock_write.value.to_string(), r#"["/data/a"]"#);
            let who = if by_pod { Origin::Pod } else { Origin::Node };
            assert_eq!(policy.landlock_write.from, who);
            assert_eq!(policy.landlock_tcp_connect.value.to_string(), r#"["443"]"#);
            assert_eq!(policy.landlock_tcp_connect.from, Origin::Node, "it changed nothing");
            assert_eq!(policy.landlock_tier.value, Tier::Hardened);
        }
        let policy = tightened("capabilities", "allow = ['CAP_CHOWN']", "", true).unwrap();
        assert_eq!(policy.capabilities.value, CapabilityLimit::Only(1));
        let policy = tightened("landlock", "tier = 'strict'", "", true).unwrap();
        assert_eq!(policy.landlock_tcp_connect.value, Ports::NONE);
    }

    #[test]
    fn what_a_file_cannot_say_is_refused_with_its_line() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let refused = |text: &str| tightened("landlock", text, "", false).unwrap_err();
        let error = refused("tier = 'strict'\npinned = []");
        assert!(
            error.contains("line 2: landlock.pinned is the node's to set"),
            "{error}"
        );
        let error = refused("tier = 'strict'\nwrit = []");
        assert!(
            error.contains("line 2: there is no setting \"landlock.writ\"; \"landlock.write\" may be meant"),
            "{error}"
        );
        assert!(refused("tier = 'tough'").contains("landlock.tier is \"none\""));
        let error = tightened("capabilities", "allow = 'some'", "", false).unwrap_err();
        assert!(error.contains("capabilities.allow is \"all\""), "{error}");
    }
}
