//! The command line, as containerd writes it: Go's `flag` package, then one action.
//!
//! Source: containerd `pkg/shim/shim.go`, `parseFlags`; https://pkg.go.dev/flag, "Command line flag syntax".

use std::ffi::OsString;

/// Why a command line is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A flag that this program does not have.
    #[error("unknown flag -{name}")]
    UnknownFlag {
        /// The flag's name.
        name: String,
    },
    /// The last argument is a flag that wants a value.
    #[error("flag -{name} needs a value")]
    NoValue {
        /// The flag's name.
        name: &'static str,
    },
    /// A boolean flag with something else than a boolean.
    #[error("flag -{name}: {value:?} is not a boolean")]
    NotBoolean {
        /// The flag's name.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// Arguments reach containerd's shims as UTF-8.
    #[error("argument {position} is not UTF-8")]
    NotUtf8 {
        /// Counted from one.
        position: usize,
    },
}

/// What the command line says. Empty strings stand for what was not given, as in Go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The action: `start`, `delete`, `serve`, `init`, or empty.
    pub action: String,
    /// The containerd namespace that owns the shim.
    pub namespace: String,
    /// The id of the task.
    pub id: String,
    /// containerd's own gRPC address.
    pub address: String,
    /// containerd's binary; unused, events go through ttrpc.
    pub publish_binary: String,
    /// The bundle directory, where it is not the working directory.
    pub bundle: String,
    /// Path of the socket that is served. Only between `start` and `serve`.
    pub socket: String,
    /// The group that shares one shim. Only between `start` and `serve`.
    pub group: String,
    /// Log more.
    pub debug: bool,
    /// Print what the runtime can do and end.
    pub info: bool,
    /// Print the version and end.
    pub version: bool,
}

impl Args {
    /// Reads the arguments, the program's name not among them.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut args = Self::default();
        let mut rest = arguments.into_iter().enumerate();
        while let Some((index, argument)) = rest.next() {
            let argument = utf8(index, argument)?;
            // A lone "-" and everything that does not begin with one end the flags; "--" does and is dropped.
            let flag = match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
                Some("") if argument == "--" => {
                    if let Some((index, action)) = rest.next() {
                        args.action = utf8(index, action)?;
                    }
                    break;
                }
                Some(flag) if !flag.is_empty() => flag,
                _ => {
                    args.action = argument;
                    break;
                }
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if let Some((name, switch)) = args.boolean(name) {
                *switch = match value.as_deref() {
                    None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                    Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                    Some(other) => {
                        return Err(Error::NotBoolean {
                            name,
                            value: other.to_owned(),
                        });
                    }
                };
            } else if let Some((name, text)) = args.text(name) {
                *text = match value {
                    Some(value) => value,
                    None => {
                        let (index, value) = rest.next().ok_or(Error::NoValue { name })?;
                        utf8(index, value)?
                    }
                };
            } else {
                return Err(Error::UnknownFlag { name: name.to_owned() });
            }
        }
        Ok(args)
    }

    fn boolean(&mut self, name: &str) -> Option<(&'static str, &mut bool)> {
        Some(match name {
            "debug" => ("debug", &mut self.debug),
            "info" => ("info", &mut self.info),
            "v" | "version" => ("version", &mut self.version),
            _ => return None,
        })
    }

    fn text(&mut self, name: &str) -> Option<(&'static str, &mut String)> {
        Some(match name {
            "namespace" => ("namespace", &mut self.namespace),
            "id" => ("id", &mut self.id),
            "address" => ("address", &mut self.address),
            "publish-binary" => ("publish-binary", &mut self.publish_binary),
            "bundle" => ("bundle", &mut self.bundle),
            "socket" => ("socket", &mut self.socket),
            "group" => ("group", &mut self.group),
            _ => return None,
        })
    }
}

fn utf8(index: usize, argument: OsString) -> Result<String, Error> {
    argument
        .into_string()
        .map_err(|_| Error::NotUtf8 { position: index + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, Error> {
        Args::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line_of_containerd_2_4_start_is_understood() {
        let args = parse(&[
            "-namespace",
            "k8s.io",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "abc",
            "-debug",
            "start",
        ])
        .unwrap();
        assert_eq!(args.namespace, "k8s.io");
        assert_eq!(args.address, "/run/containerd/containerd.sock");
        assert_eq!(args.publish_binary, "/usr/bin/containerd");
        assert_eq!(args.id, "abc");
        assert!(args.debug);
        assert_eq!(args.action, "start");
    }

    #[test]
    fn values_may_follow_an_equals_sign_and_flags_may_have_two_dashes() {
        let args = parse(&["--namespace=default", "--id=a=b", "-debug=false", "-info=1", "delete"]).unwrap();
        assert_eq!(args.namespace, "default");
        assert_eq!(args.id, "a=b");
        assert!(!args.debug);
        assert!(args.info);
        assert_eq!(args.action, "delete");
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        assert_eq!(parse(&["-id", "-x", "start"]).unwrap().id, "-x");
    }

    #[test]
    fn two_dashes_alone_end_the_flags() {
        assert_eq!(parse(&["-id", "x", "--", "start"]).unwrap().action, "start");
        assert_eq!(parse(&["--"]).unwrap().action, "");
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        assert_eq!(
            parse(&["-frobnicate"]),
            Err(Error::UnknownFlag {
                name: "frobnicate".into()
            })
        );
        assert_eq!(parse(&["-id"]), Err(Error::NoValue { name: "id" }));
        assert_eq!(
            parse(&["-debug=maybe"]),
            Err(Error::NotBoolean {
                name: "debug",
                value: "maybe".into()
            })
        );
    }
}
