//! CRI's PodSandboxConfig, as far as a sandbox has use for it. containerd-shim-protos does not have the message; what
//! is said of a pause container's own confinement has nothing here that it could apply to.
//!
//! Field numbers: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto, which are kept for ever.

use protobuf::{CodedInputStream, rt};
use runtime_core::plan::{IdMap, Mode, SandboxConfig};
use runtime_core::pod_files::Dns;

/// The message's name.
pub const TYPE: &str = "runtime.v1.PodSandboxConfig";

/// What a pod is to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PodConfig {
    /// Its namespaces and cgroup.
    pub sandbox: SandboxConfig,
    /// Its resolv.conf, if it has one of its own.
    pub dns: Option<Dns>,
}

/// Why a message is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its bytes.
    #[error("decode {TYPE}")]
    Message(#[from] protobuf::Error),
    /// A number that CRI does not have.
    #[error("{field} {value} is not known; POD, CONTAINER, NODE and TARGET are")]
    Mode {
        /// Its field.
        field: &'static str,
        /// As it was given.
        value: u64,
    },
}

/// Wire types: https://protobuf.dev/programming-guides/encoding/.
const VARINT: u32 = 0;
const BYTES: u32 = 2;

impl PodConfig {
    /// Reads the message.
    pub fn parse(message: &[u8]) -> Result<Self, Error> {
        let mut config = Self::default();
        let sandbox = &mut config.sandbox;
        fields(message, |field, value| {
            match (field, value) {
                (1, Value::Bytes(metadata)) => fields(&metadata, |field, value| {
                    match (field, value) {
                        (1, Value::Bytes(text)) => sandbox.name = string(text)?,
                        (2, Value::Bytes(text)) => sandbox.uid = string(text)?,
                        (3, Value::Bytes(text)) => sandbox.namespace = string(text)?,
                        _ => {}
                    }
                    Ok(())
                })?,
                (2, Value::Bytes(text)) => sandbox.hostname = string(text)?,
                (3, Value::Bytes(text)) => sandbox.log_directory = string(text)?,
                (4, Value::Bytes(dns)) => config.dns = Some(dns_config(&dns)?),
                (8, Value::Bytes(message)) => linux(&message, sandbox)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(config)
    }
}

fn dns_config(message: &[u8]) -> Result<Dns, Error> {
    let mut dns = Dns::default();
    fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(text)) => dns.servers.push(string(text)?),
            (2, Value::Bytes(text)) => dns.searches.push(string(text)?),
            (3, Value::Bytes(text)) => dns.options.push(string(text)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(dns)
}

/// LinuxPodSandboxConfig.
fn linux(message: &[u8], sandbox: &mut SandboxConfig) -> Result<(), Error> {
    fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(text)) => sandbox.cgroup_parent = string(text)?,
            // LinuxSandboxSecurityContext
            (2, Value::Bytes(context)) => fields(&context, |field, value| match (field, value) {
                (1, Value::Bytes(options)) => namespaces(&options, sandbox),
                _ => Ok(()),
            })?,
            (3, Value::Bytes(entry)) => {
                let (mut key, mut text) = (String::new(), String::new());
                fields(&entry, |field, value| {
                    match (field, value) {
                        (1, Value::Bytes(bytes)) => key = string(bytes)?,
                        (2, Value::Bytes(bytes)) => text = string(bytes)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                sandbox.sysctls.insert(key, text);
            }
            _ => {}
        }
        Ok(())
    })
}

/// NamespaceOption.
fn namespaces(message: &[u8], sandbox: &mut SandboxConfig) -> Result<(), Error> {
    fields(message, |field, value| {
        match (field, value) {
            (1, Value::Number(number)) => sandbox.network = mode("namespace_options.network", number)?,
            (2, Value::Number(number)) => sandbox.pid = mode("namespace_options.pid", number)?,
            (3, Value::Number(number)) => sandbox.ipc = mode("namespace_options.ipc", number)?,
            (5, Value::Bytes(options)) => sandbox.user = user_namespace(&options)?,
            _ => {}
        }
        Ok(())
    })
}

/// UserNamespace; None for the host's.
#[allow(clippy::type_complexity)]
fn user_namespace(message: &[u8]) -> Result<Option<(Vec<IdMap>, Vec<IdMap>)>, Error> {
    const FIELD: &str = "namespace_options.userns_options.mode";
    let mut reach = Mode::Pod;
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    fields(message, |field, value| {
        match (field, value) {
            (1, Value::Number(number)) => {
                reach = mode(FIELD, number)?;
                if !matches!(reach, Mode::Pod | Mode::Node) {
                    return Err(Error::Mode {
                        field: FIELD,
                        value: number,
                    });
                }
            }
            (2, Value::Bytes(line)) => uids.push(id_mapping(&line)?),
            (3, Value::Bytes(line)) => gids.push(id_mapping(&line)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok((reach == Mode::Pod).then_some((uids, gids)))
}

fn id_mapping(message: &[u8]) -> Result<IdMap, Error> {
    let mut map = IdMap {
        container: 0,
        host: 0,
        size: 0,
    };
    fields(message, |field, value| {
        // uint32: what is longer is cut by every reader of protobuf.
        match (field, value) {
            (1, Value::Number(number)) => map.host = number as u32,
            (2, Value::Number(number)) => map.container = number as u32,
            (3, Value::Number(number)) => map.size = number as u32,
            _ => {}
        }
        Ok(())
    })?;
    Ok(map)
}

fn mode(field: &'static str, number: u64) -> Result<Mode, Error> {
    Ok(match number {
        0 => Mode::Pod,
        1 => Mode::Container,
        2 => Mode::Node,
        3 => Mode::Target,
        value => return Err(Error::Mode { field, value }),
    })
}

enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// Tells each field of `message` that is a number or has bytes.
fn fields(message: &[u8], mut tell: impl FnMut(u32, Value) -> Result<(), Error>) -> Result<(), Error> {
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag & 7 {
            VARINT => tell(tag >> 3, Value::Number(input.read_uint64()?))?,
            BYTES => tell(tag >> 3, Value::Bytes(input.read_bytes()?))?,
            _ => rt::skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok(())
}

fn string(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes)
        .map_err(|error| protobuf::Error::from(std::io::Error::new(std::io::ErrorKind::InvalidData, error)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
        [&[field << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    #[test]
    fn a_pod_of_kubelet_s_is_understood() {
        let metadata = [bytes(1, b"web-0"), bytes(2, b"u-i-d"), bytes(3, b"shop"), number(4, 1)].concat();
        let dns = [bytes(1, b"10.0.0.10"), bytes(2, b"svc"), bytes(3, b"ndots:5")].concat();
        let options = [number(1, 0), number(2, 1), number(3, 2)].concat();
        let linux_config = [
            bytes(1, b"/kubepods/x"),
            bytes(2, &bytes(1, &options)),
            bytes(3, &[bytes(1, b"net.core.somaxconn"), bytes(2, b"99")].concat()),
        ]
        .concat();
        let message = [
            bytes(1, &metadata),
            bytes(2, b"web-0"),
            bytes(3, b"/var/log/pods/x"),
            bytes(4, &dns),
            bytes(6, &[bytes(1, b"label"), bytes(2, b"x")].concat()),
            bytes(8, &linux_config),
        ]
        .concat();
        let config = PodConfig::parse(&message).unwrap();
        let expected = SandboxConfig {
            name: "web-0".into(),
            namespace: "shop".into(),
            uid: "u-i-d".into(),
            hostname: "web-0".into(),
            log_directory: "/var/log/pods/x".into(),
            cgroup_parent: "/kubepods/x".into(),
            network: Mode::Pod,
            pid: Mode::Container,
            ipc: Mode::Node,
            user: None,
            sysctls: [("net.core.somaxconn".to_owned(), "99".to_owned())].into(),
        };
        assert_eq!(config.sandbox, expected);
        let expected = Dns {
            servers: vec!["10.0.0.10".into()],
            searches: vec!["svc".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(config.dns, Some(expected));
    }

    #[test]
    fn a_user_namespace_is_the_pod_s_unless_it_is_the_node_s() {
        let line = [number(1, 100), number(3, 50)].concat();
        let options = |mode| bytes(5, &[number(1, mode), bytes(2, &line), bytes(3, &line)].concat());
        let pod = |mode| {
            let mut sandbox = SandboxConfig::default();
            namespaces(&options(mode), &mut sandbox).map(|()| sandbox.user)
        };
        let map = vec![IdMap {
            container: 0,
            host: 100,
            size: 50,
        }];
        assert_eq!(pod(0).unwrap(), Some((map.clone(), map)));
        assert_eq!(pod(2).unwrap(), None);
        let error = pod(1).unwrap_err().to_string();
        assert!(error.starts_with("namespace_options.userns_options.mode 1 "), "{error}");
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for message in [&[0x0a, 200][..], &bytes(2, &[0xff])] {
            assert!(matches!(PodConfig::parse(message), Err(Error::Message(_))));
        }
        assert!(PodConfig::parse(&[]).unwrap() == PodConfig::default());
    }
}
