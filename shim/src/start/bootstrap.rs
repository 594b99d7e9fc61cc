//! The three ways in which containerd asks for a shim, made one.
//!
//! - containerd ≥ 2.3 writes a binary `BootstrapParams` message to stdin and reads a `BootstrapResult`.
//! - Older ones write the runtime options (an `Any`) or nothing at all, say the rest in flags and environment, and read
//!   the socket's address. 2.0 to 2.2 would also take JSON with a version 3 in it; but nothing tells them from 1.7,
//!   which refuses that version: so they all get the plain address, which means version 2 to each of them.
//!
//! Source: containerd 2.4 `core/runtime/v2/command.go`, `pkg/shim/compat.go`; 2.2, 1.7 and 1.6 `runtime/v2/shim.go`.

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

use crate::args::Args;

/// The Task API that containerd ≥ 2.3 is told to speak.
const TASK_API: i32 = 3;

/// Why a request to start is not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The message on stdin is about something else than the flags.
    #[error("bootstrap parameters are for {namespace}/{id}, the command line for {flag_namespace}/{flag_id}")]
    Mismatch {
        /// From stdin.
        namespace: String,
        /// From stdin.
        id: String,
        /// From the command line.
        flag_namespace: String,
        /// From the command line.
        flag_id: String,
    },
    /// Events could not be published.
    #[error("containerd did not say its ttrpc address")]
    NoTtrpcAddress,
}

/// How containerd reads the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A `BootstrapResult`.
    Message,
    /// `unix://<path>` and nothing else.
    Address,
}

/// What containerd asks for, however it said so.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// containerd's gRPC address: part of the socket's name.
    pub address: String,
    /// containerd's ttrpc address: where events go.
    pub ttrpc_address: String,
    /// Where the socket goes; None: the default.
    pub socket_directory: Option<String>,
    /// Log more.
    pub debug: bool,
    /// The runtime options.
    pub options: Option<Any>,
    /// How to answer.
    pub reply: Reply,
}

impl Request {
    /// Understands what was read from stdin, beside flags and environment.
    pub fn parse(input: &[u8], args: &Args, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let request = match message(input, args)? {
            Some(params) => Self::from_params(params, args),
            None => Self {
                address: if args.address.is_empty() {
                    env("GRPC_ADDRESS").unwrap_or_default()
                } else {
                    args.address.clone()
                },
                ttrpc_address: env("TTRPC_ADDRESS").unwrap_or_default(),
                socket_directory: None,
                debug: args.debug,
                options: Any::parse_from_bytes(input).ok().filter(|any| !any.type_url.is_empty()),
                reply: Reply::Address,
            },
        };
        if request.ttrpc_address.is_empty() {
            Err(Error::NoTtrpcAddress)
        } else {
            Ok(request)
        }
    }

    fn from_params(params: BootstrapParams, args: &Args) -> Self {
        /// `LOG_LEVEL_DEBUG`; what is below is more verbose. An open enum: never matched by name.
        const DEBUG: i32 = -4;
        Self {
            debug: args.debug || params.log_level.value() <= DEBUG,
            address: params.containerd_grpc_address,
            ttrpc_address: params.containerd_ttrpc_address,
            socket_directory: params.socket_dir.filter(|directory| !directory.is_empty()),
            options: params
                .extensions
                .into_iter()
                .find_map(|extension| extension.value.into_option()),
            reply: Reply::Message,
        }
    }
}

impl Reply {
    /// The bytes for stdout: `address` is the socket's, with `unix://`.
    pub fn encode(self, address: &str) -> Vec<u8> {
        match self {
            Self::Address => address.into(),
            Self::Message => {
                let result = BootstrapResult {
                    version: TASK_API,
                    address: address.into(),
                    protocol: "ttrpc".into(),
                    ..Default::default()
                };
                result
                    .write_to_bytes()
                    .expect("a message of strings and numbers can always be encoded")
            }
        }
    }
}

/// The input as `BootstrapParams`, or None where it is the older form.
///
/// An `Any` decodes as `BootstrapParams` as well: its type URL is read as the instance's id, its value, if it happens
/// to be UTF-8, as the namespace. So the identity decides; and a message that says more than that is none of an
/// `Any`'s.
fn message(input: &[u8], args: &Args) -> Result<Option<BootstrapParams>, Error> {
    let Ok(params) = BootstrapParams::parse_from_bytes(input) else {
        return Ok(None);
    };
    if input.is_empty() {
        return Ok(None);
    }
    if params.instance_id == args.id && params.namespace == args.namespace {
        return Ok(Some(params));
    }
    let says_more = !params.containerd_grpc_address.is_empty()
        || !params.containerd_ttrpc_address.is_empty()
        || !params.containerd_version.is_empty()
        || !params.extensions.is_empty();
    if !says_more {
        return Ok(None);
    }
    Err(Error::Mismatch {
        namespace: params.namespace,
        id: params.instance_id,
        flag_namespace: args.namespace.clone(),
        flag_id: args.id.clone(),
    })
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::{Extension, LogLevel};
    use containerd_shim_protos::shim::oci::Options;
    use protobuf::EnumOrUnknown;

    use super::*;

    fn args() -> Args {
        Args {
            id: "c1".into(),
            namespace: "default".into(),
            address: "/c.sock".into(),
            ..Args::default()
        }
    }

    fn env(name: &str) -> Option<String> {
        match name {
            "TTRPC_ADDRESS" => Some("/c.sock.ttrpc".into()),
            "GRPC_ADDRESS" => Some("/env.sock".into()),
            _ => None,
        }
    }

    fn options() -> Any {
        let options = Options {
            shim_cgroup: "/shims".into(),
            ..Options::default()
        };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    fn params() -> BootstrapParams {
        BootstrapParams {
            instance_id: "c1".into(),
            namespace: "default".into(),
            log_level: EnumOrUnknown::new(LogLevel::LOG_LEVEL_TRACE),
            containerd_ttrpc_address: "/c.sock.ttrpc".into(),
            containerd_grpc_address: "/c.sock".into(),
            socket_dir: Some("/run/s".into()),
            extensions: vec![Extension {
                value: Some(options()).into(),
                ..Extension::default()
            }],
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn containerd_2_3_says_everything_in_a_message() {
        let input = params().write_to_bytes().unwrap();
        let request = Request::parse(&input, &args(), |_| None).unwrap();
        let expected = Request {
            address: "/c.sock".into(),
            ttrpc_address: "/c.sock.ttrpc".into(),
            socket_directory: Some("/run/s".into()),
            debug: true,
            options: Some(options()),
            reply: Reply::Message,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn containerd_2_0_writes_the_options_alone() {
        let input = options().write_to_bytes().unwrap();
        let request = Request::parse(&input, &args(), env).unwrap();
        assert_eq!(request.reply, Reply::Address);
        assert_eq!(request.options, Some(options()));
        assert_eq!(request.address, "/c.sock");
        assert_eq!(request.ttrpc_address, "/c.sock.ttrpc");
    }

    #[test]
    fn options_that_are_all_defaults_are_not_taken_for_a_message() {
        let input = Any {
            value: Vec::new(),
            ..options()
        }
        .write_to_bytes()
        .unwrap();
        let request = Request::parse(&input, &args(), env).unwrap();
        assert_eq!(request.reply, Reply::Address);
        assert_eq!(request.options.unwrap().type_url, "containerd.runc.v1.Options");
    }

    #[test]
    fn containerd_1_6_writes_nothing() {
        let request = Request::parse(
            &[],
            &Args {
                address: String::new(),
                ..args()
            },
            env,
        )
        .unwrap();
        assert_eq!(request.reply, Reply::Address);
        assert_eq!(request.options, None);
        assert_eq!(request.address, "/env.sock");
    }

    #[test]
    fn a_message_for_another_shim_is_refused() {
        let input = BootstrapParams {
            instance_id: "c2".into(),
            ..params()
        }
        .write_to_bytes()
        .unwrap();
        let error = Request::parse(&input, &args(), env).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bootstrap parameters are for default/c2, the command line for default/c1"
        );
    }

    #[test]
    fn without_an_address_for_events_nothing_starts() {
        let error = Request::parse(&[], &args(), |_| None).unwrap_err();
        assert!(matches!(error, Error::NoTtrpcAddress));
    }

    #[test]
    fn garbage_on_stdin_is_no_message_and_no_options() {
        let request = Request::parse(&[0xff, 0xfe, 0x01], &args(), env).unwrap();
        assert_eq!(request.options, None);
    }

    #[test]
    fn replies_are_what_each_containerd_parses() {
        assert_eq!(Reply::Address.encode("unix:///s/x"), b"unix:///s/x");
        let result = BootstrapResult::parse_from_bytes(&Reply::Message.encode("unix:///s/x")).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///s/x", "ttrpc")
        );
    }
}
