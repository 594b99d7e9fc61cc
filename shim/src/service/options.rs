//! The runtime options of a Create request: whichever message containerd or its clients send, made one value.
//!
//! CRI sends `runtimeoptions.v1.Options`, with the runtime's `options` table of containerd's configuration as TOML, to
//! any runtime that is not runc; `ctr`, Docker and test clients may send runc's own. What would change how a container
//! is made is honoured or refused by name; what only says where runc keeps its files means nothing here.

use containerd_shim_protos::shim::oci;
use protobuf::well_known_types::any::Any;
use protobuf::{CodedInputStream, Message as _};
use runtime_core::policy::{self, Layer, toml};

/// Type of runc's own options.
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Type of the options for every other runtime.
pub const RUNTIME_OPTIONS: &str = "runtimeoptions.v1.Options";

/// Type that the clients of containerd 1.x send for a user namespace to whatever is not runc: the options of its first
/// shim.
pub const CREATE_OPTIONS: &str = "containerd.linux.runc.CreateOptions";

/// A configuration file longer than this was never one.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Why options are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither of the types that are understood.
    #[error("options of type {type_url:?} are not understood; {RUNTIME_OPTIONS} and {RUNC_OPTIONS} are")]
    UnknownType {
        /// The `Any`'s type URL.
        type_url: String,
    },
    /// Not what the type URL says.
    #[error("decode options of type {type_url}")]
    Decode {
        /// The `Any`'s type URL.
        type_url: String,
        /// Where it is wrong.
        source: protobuf::Error,
    },
    /// An option that this runtime does not have.
    #[error("option {name} = {value:?} is not supported: {why}")]
    Unsupported {
        /// Its name.
        name: &'static str,
        /// As it was given.
        value: String,
        /// What to do.
        why: &'static str,
    },
    /// `config_path` cannot be read.
    #[error("read config_path {path}")]
    ConfigPath {
        /// The file.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The TOML document is not one, or says what is no setting.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// A value of the wrong type.
    #[error("option {key} in line {line} is not {expected}: {value:?}")]
    Value {
        /// The key.
        key: String,
        /// Counted from one.
        line: usize,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        value: toml::Value,
    },
}

/// What Create is asked for beside the bundle.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Owner of the stdio pipes.
    pub io_uid: u32,
    /// Group of the stdio pipes.
    pub io_gid: u32,
    /// The systemd driver. Only a wish: `cgroupsPath` of the form `slice:prefix:name` decides.
    pub systemd_cgroup: bool,
    /// What the handler demands of its containers.
    pub policy: Layer,
}

/// The message's name: containerd writes it bare, others put a host before it.
pub fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

impl Options {
    /// Understands `any`, as it comes with a Create request.
    pub fn parse(any: Option<&Any>) -> Result<Self, Error> {
        let Some(any) = any.filter(|any| !(any.type_url.is_empty() && any.value.is_empty())) else {
            return Ok(Self::default());
        };
        let decode = |source| Error::Decode {
            type_url: any.type_url.clone(),
            source,
        };
        match type_name(any) {
            RUNC_OPTIONS => Self::from_runc(oci::Options::parse_from_bytes(&any.value).map_err(decode)?),
            CREATE_OPTIONS => Self::from_runc(create_options(&any.value).map_err(decode)?),
            RUNTIME_OPTIONS => RuntimeOptions::parse(&any.value).map_err(decode)?.resolve(),
            _ => Err(Error::UnknownType {
                type_url: any.type_url.clone(),
            }),
        }
    }

    fn from_runc(options: oci::Options) -> Result<Self, Error> {
        if options.no_pivot_root {
            let why = "a container's root is always pivoted to, as only that cannot be left again";
            return Err(Error::Unsupported {
                name: "no_pivot_root",
                value: "true".into(),
                why,
            });
        }
        if !options.binary_name.is_empty() {
            let why = "nucleus runs containers itself; use the runtime io.containerd.runc.v2 for another binary";
            return Err(Error::Unsupported {
                name: "binary_name",
                value: options.binary_name,
                why,
            });
        }
        // `root` is where runc keeps its state, the CRIU paths are for checkpoints, the task API address is
        // containerd's own, and shim_cgroup was honoured by the start action.
        Ok(Self {
            no_new_keyring: options.no_new_keyring,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            systemd_cgroup: options.systemd_cgroup,
            policy: Layer::default(),
        })
    }

    /// Reads the `options` table of containerd's configuration, or the file that it names: settings of the policy.
    fn from_toml(document: &str) -> Result<Self, Error> {
        const PLACE: &str = "the handler's options";
        let mut options = Self::default();
        let entries = toml::parse(document).map_err(|source| policy::Error::Toml {
            place: PLACE.into(),
            source,
        })?;
        for entry in entries {
            match (entry.key.as_str(), &entry.value) {
                ("SystemdCgroup", toml::Value::Flag(flag)) => options.systemd_cgroup = *flag,
                ("SystemdCgroup", _) => {
                    return Err(Error::Value {
                        key: entry.key,
                        line: entry.line,
                        expected: "a boolean",
                        value: entry.value,
                    });
                }
                // containerd puts its own fields of the message into the same table.
                ("TypeUrl" | "ConfigPath", _) => {}
                _ => options.policy.set_entry(PLACE, &entry)?,
            }
        }
        Ok(options)
    }
}

/// `containerd.linux.runc.CreateOptions`, as far as it says anything beyond checkpoints. Fields: 1 no_pivot_root, 8
/// no_new_keyring, 10 io_uid, 11 io_gid.
fn create_options(message: &[u8]) -> protobuf::Result<oci::Options> {
    let mut options = oci::Options::new();
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        const VARINT: u32 = 0;
        match (tag >> 3, tag & 7) {
            (1, VARINT) => options.no_pivot_root = input.read_bool()?,
            (8, VARINT) => options.no_new_keyring = input.read_bool()?,
            (10, VARINT) => options.io_uid = input.read_uint32()?,
            (11, VARINT) => options.io_gid = input.read_uint32()?,
            _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok(options)
}

/// `runtimeoptions.v1.Options`, which containerd-shim-protos does not have.
#[derive(Default)]
struct RuntimeOptions {
    config_path: String,
    config_body: Vec<u8>,
}

impl RuntimeOptions {
    /// Fields: 1 type_url (string), 2 config_path (string), 3 config_body (bytes).
    fn parse(message: &[u8]) -> protobuf::Result<Self> {
        let mut options = Self::default();
        let mut input = CodedInputStream::from_bytes(message);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            const LENGTH_DELIMITED: u32 = 2;
            match (tag >> 3, tag & 7) {
                (2, LENGTH_DELIMITED) => options.config_path = input.read_string()?,
                (3, LENGTH_DELIMITED) => options.config_body = input.read_bytes()?,
                _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
            }
        }
        Ok(options)
    }

    fn resolve(self) -> Result<Options, Error> {
        let path = self.config_path;
        let body = if path.is_empty() {
            self.config_body
        } else {
            read(&path).map_err(|source| Error::ConfigPath { path, source })?
        };
        Options::from_toml(&String::from_utf8_lossy(&body))
    }
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut body = Vec::new();
    std::fs::File::open(path)?.take(CONFIG_LIMIT).read_to_end(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: type_url.into(),
            value,
            ..Any::new()
        }
    }

    fn toml(body: &str) -> Any {
        let mut value = vec![0x0a, 1, b't', 0x1a, u8::try_from(body.len()).unwrap()];
        value.extend(body.as_bytes());
        any(RUNTIME_OPTIONS, value)
    }

    fn runc(options: oci::Options) -> Any {
        any(RUNC_OPTIONS, options.write_to_bytes().unwrap())
    }

    #[test]
    fn no_options_are_the_defaults() {
        assert_eq!(Options::parse(None).unwrap(), Options::default());
        assert_eq!(Options::parse(Some(&Any::new())).unwrap(), Options::default());
        assert_eq!(
            Options::parse(Some(&runc(oci::Options::new()))).unwrap(),
            Options::default()
        );
        assert_eq!(Options::parse(Some(&toml(""))).unwrap(), Options::default());
    }

    #[test]
    fn runc_s_options_are_honoured() {
        let options = oci::Options {
            no_new_keyring: true,
            io_uid: 7,
            io_gid: 8,
            systemd_cgroup: true,
            root: "/run/docker/runtime-runc/moby".into(),
            ..oci::Options::new()
        };
        let expected = Options {
            no_new_keyring: true,
            io_uid: 7,
            io_gid: 8,
            systemd_cgroup: true,
            policy: Layer::default(),
        };
        assert_eq!(Options::parse(Some(&runc(options))).unwrap(), expected);
    }

    #[test]
    fn the_options_that_older_clients_send_for_a_user_namespace_are_understood() {
        // io_uid = 1000, io_gid = 300, cgroups_mode = "x", which means nothing here.
        let message = vec![0x3a, 1, b'x', 0x50, 0xe8, 0x07, 0x58, 0xac, 0x02];
        let options = Options::parse(Some(&any(CREATE_OPTIONS, message))).unwrap();
        assert_eq!((options.io_uid, options.io_gid), (1000, 300));
        let error = Options::parse(Some(&any(CREATE_OPTIONS, vec![0x08, 1]))).unwrap_err();
        assert!(error.to_string().contains("no_pivot_root"), "{error}");
    }

    #[test]
    fn what_runc_alone_can_do_is_refused_by_name() {
        let error = Options::parse(Some(&runc(oci::Options {
            no_pivot_root: true,
            ..oci::Options::new()
        })))
        .unwrap_err();
        assert!(error.to_string().contains("no_pivot_root"), "{error}");
        let binary = oci::Options {
            binary_name: "no-runc".into(),
            ..oci::Options::new()
        };
        let error = Options::parse(Some(&runc(binary))).unwrap_err();
        assert!(error.to_string().contains("binary_name = \"no-runc\""), "{error}");
    }

    #[test]
    fn the_options_table_of_containerd_s_configuration_is_read() {
        let options = Options::parse(Some(&toml(
            "# driver\nSystemdCgroup = true # as kubelet\n\nTypeUrl = \"x\"\n",
        )))
        .unwrap();
        assert!(options.systemd_cgroup);
    }

    #[test]
    fn unknown_keys_and_tables_are_refused_by_name_and_line() {
        let error = |document| {
            let error = Options::parse(Some(&toml(document))).unwrap_err();
            crate::service::errors::chain(&error)
        };
        assert_eq!(
            error("SystemdCgroup = false\nShimSize = 3\n"),
            "the handler's options, line 2: there is no setting \"ShimSize\""
        );
        assert_eq!(
            error("[policy]\nmode = 'agent'"),
            "the handler's options, line 2: there is no setting \"policy.mode\""
        );
        assert_eq!(
            error("SystemdCgroup = 1\n"),
            "option SystemdCgroup in line 1 is not a boolean: Number(1)"
        );
        assert!(error("nonsense").starts_with("the handler's options: line 1: "));
    }

    #[test]
    fn settings_of_the_policy_are_the_handler_s_layer() {
        let options = Options::parse(Some(&toml("mode = 'production'\n[capabilities]\nallow = []\n"))).unwrap();
        let resolved = policy::resolve(&Layer::default(), &options.policy, []).unwrap();
        assert_eq!(resolved.mode.from, policy::Origin::Handler);
        assert_eq!(resolved.capabilities.value.bits(), 0);
    }

    #[test]
    fn a_type_that_is_not_understood_is_refused_by_name() {
        let error = Options::parse(Some(&any("example.com/other.Options", vec![]))).unwrap_err();
        assert!(error.to_string().contains("example.com/other.Options"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        assert!(matches!(
            Options::parse(Some(&any(RUNTIME_OPTIONS, vec![0x1a, 200]))),
            Err(Error::Decode { .. })
        ));
        assert!(matches!(
            Options::parse(Some(&any(RUNC_OPTIONS, vec![0xff]))),
            Err(Error::Decode { .. })
        ));
    }

    #[test]
    fn a_host_before_the_type_s_name_does_not_matter() {
        assert_eq!(
            type_name(&any("type.googleapis.com/containerd.runc.v1.Options", vec![])),
            RUNC_OPTIONS
        );
    }
}
