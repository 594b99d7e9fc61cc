//! The one table that says which ttrpc code an error has. containerd's clients act on codes, people read messages.

use ttrpc::{Code, get_status};

use super::options;
use crate::{container, sandbox};

pub use runtime_core::error_chain::chain;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container of that id. containerd and CRI take the code for "it is gone".
    #[error("container {id} does not exist")]
    NoContainer {
        /// The id.
        id: String,
    },
    /// The id is taken.
    #[error("container {id} already exists")]
    ContainerExists {
        /// The id.
        id: String,
    },
    /// No sandbox of that id: containerd takes the code for "it is gone".
    #[error("sandbox {id} does not exist")]
    NoSandbox {
        /// The id.
        id: String,
    },
    /// A shim has one.
    #[error("cannot create sandbox {id}: this shim has one already")]
    SandboxExists {
        /// The id.
        id: String,
    },
    /// What CRI says of the pod.
    #[error(transparent)]
    SandboxConfig(#[from] sandbox::config::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// Its spec cannot be put into a message.
    #[error("encode the spec of sandbox {id}")]
    SandboxSpec {
        /// The id.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The last container was deleted and the shim is about to end.
    #[error("this shim is shutting down")]
    Ending,
    /// A field of the request that cannot be.
    #[error("{field} {value:?} is not {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// As it was given.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// What nucleus does not do.
    #[error("{what} is not supported")]
    Unimplemented {
        /// What was asked for.
        what: &'static str,
    },
    /// The runtime options.
    #[error("runtime options")]
    Options(#[from] options::Error),
    /// The container.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// The statistics cannot be put into a message.
    #[error("encode the statistics of container {id}")]
    Stats {
        /// The container.
        id: String,
        /// Why.
        source: protobuf::Error,
    },
    /// A handler of ours panicked.
    #[error("internal error: the request's handler panicked")]
    Panicked,
}

/// The table.
fn code(error: &Error) -> Code {
    use container::Error as C;
    use sandbox::Error as S;
    match error {
        Error::NoContainer { .. } | Error::NoSandbox { .. } => Code::NOT_FOUND,
        Error::ContainerExists { .. } | Error::SandboxExists { .. } => Code::ALREADY_EXISTS,
        Error::SandboxConfig(_) => Code::INVALID_ARGUMENT,
        Error::SandboxSpec { .. } => Code::INTERNAL,
        Error::Sandbox(error) => match error {
            S::Plan { .. } | S::Gvisor { .. } => Code::INVALID_ARGUMENT,
            S::State { .. } => Code::FAILED_PRECONDITION,
            S::Work(_) => Code::INTERNAL,
            S::Node { .. } | S::Files { .. } | S::Runtime { .. } | S::Stats { .. } => Code::UNKNOWN,
        },
        Error::Ending => Code::UNAVAILABLE,
        Error::Field { .. } | Error::Options(_) => Code::INVALID_ARGUMENT,
        Error::Unimplemented { .. } => Code::UNIMPLEMENTED,
        Error::Stats { .. } | Error::Panicked => Code::INTERNAL,
        Error::Container(error) => match error {
            C::NoProcess { .. } | C::Finished | C::Deleted { .. } => Code::NOT_FOUND,
            C::ProcessExists { .. } => Code::ALREADY_EXISTS,
            C::State { .. } | C::ExecState { .. } | C::InitEnded { .. } | C::NotStarted { .. } | C::NoPod { .. } => {
                Code::FAILED_PRECONDITION
            }
            C::NoSignal { .. }
            | C::Resources { .. }
            | C::Bundle { .. }
            | C::ExecSpec { .. }
            | C::Plan { .. }
            | C::ExecPlan { .. }
            | C::GvisorInPod { .. }
            | C::Policy { .. } => Code::INVALID_ARGUMENT,
            C::Runtime { source, .. } if source.is_refusal() => Code::INVALID_ARGUMENT,
            C::Panicked | C::Thread(_) => Code::INTERNAL,
            // What the host, the image or the workload makes of it: as under runc, nothing that a client could act on.
            // In particular not NOT_FOUND, whatever was not found: it would be taken for the container.
            C::Directory { .. }
            | C::Streams { .. }
            | C::Resize { .. }
            | C::Node { .. }
            | C::Audit { .. }
            | C::PolicyFile { .. }
            | C::Profile { .. }
            | C::Runtime { .. } => Code::UNKNOWN,
        },
    }
}

/// `error` as an answer to the client.
pub fn status(error: Error) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code(&error), chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::lifecycle::{ExecState, Operation, State};

    fn answer(error: impl Into<Error>) -> (Code, String) {
        match status(error.into()) {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
            other => panic!("not a status: {other}"),
        }
    }

    fn id() -> String {
        "c1".into()
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(answer(Error::NoContainer { id: id() }).0, Code::NOT_FOUND);
        assert_eq!(
            answer(container::Error::NoProcess {
                exec: "e".into(),
                id: id()
            })
            .0,
            Code::NOT_FOUND
        );
        assert_eq!(
            answer(container::Error::Finished),
            (Code::NOT_FOUND, "process already finished".into())
        );
        assert_eq!(answer(container::Error::Deleted { id: id() }).0, Code::NOT_FOUND);
    }

    #[test]
    fn what_is_taken_already_exists() {
        assert_eq!(answer(Error::ContainerExists { id: id() }).0, Code::ALREADY_EXISTS);
        assert_eq!(
            answer(container::Error::ProcessExists {
                exec: "e".into(),
                id: id()
            })
            .0,
            Code::ALREADY_EXISTS
        );
    }

    #[test]
    fn what_makes_no_sense_now_is_a_failed_precondition() {
        let state = container::Error::State {
            operation: Operation::Delete,
            id: id(),
            state: State::Running,
        };
        assert_eq!(
            answer(state),
            (
                Code::FAILED_PRECONDITION,
                "cannot delete container c1: it is running".into()
            )
        );
        let state = ExecState::Running;
        let exec = container::Error::ExecState {
            operation: "start",
            exec: "e".into(),
            id: id(),
            state,
        };
        assert_eq!(answer(exec).0, Code::FAILED_PRECONDITION);
        assert_eq!(
            answer(container::Error::InitEnded { id: id() }).0,
            Code::FAILED_PRECONDITION
        );
        assert_eq!(
            answer(container::Error::NotStarted {
                exec: "e".into(),
                id: id()
            })
            .0,
            Code::FAILED_PRECONDITION
        );
    }

    #[test]
    fn what_the_client_got_wrong_is_an_invalid_argument_with_all_its_causes() {
        let options = options::Error::Unsupported {
            name: "x",
            value: "y".into(),
            why: "z",
        };
        let expected = "runtime options: option x = \"y\" is not supported: z";
        assert_eq!(answer(options), (Code::INVALID_ARGUMENT, expected.into()));
        let source = serde_json::from_str::<u8>("").unwrap_err();
        let (code, message) = answer(container::Error::Resources { id: id(), source });
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(
            message.starts_with("parse the resources for container c1: EOF"),
            "{message}"
        );
        assert_eq!(
            answer(container::Error::NoSignal { signal: 99 }).0,
            Code::INVALID_ARGUMENT
        );
    }

    #[test]
    fn a_sandbox_that_is_not_there_is_not_found_and_what_it_cannot_be_is_an_invalid_argument() {
        let expected = (Code::NOT_FOUND, "sandbox p1 does not exist".into());
        assert_eq!(answer(Error::NoSandbox { id: "p1".into() }), expected);
        assert_eq!(answer(Error::SandboxExists { id: "p1".into() }).0, Code::ALREADY_EXISTS);
        let (code, message) = answer(sandbox::Error::Gvisor { id: "p1".into() });
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(message.contains("remove the sandboxer from the handler"), "{message}");
        let state = sandbox::Error::State {
            id: "p1".into(),
            state: "stopped",
        };
        let expected = (
            Code::FAILED_PRECONDITION,
            "cannot start sandbox p1: it is stopped".into(),
        );
        assert_eq!(answer(state), expected);
        let no_pod = container::Error::NoPod { id: id() };
        assert_eq!(answer(no_pod).0, Code::FAILED_PRECONDITION);
        let mode = sandbox::config::Error::Mode { field: "x", value: 9 };
        assert_eq!(answer(mode).0, Code::INVALID_ARGUMENT);
    }

    #[test]
    fn a_failure_of_the_host_is_never_taken_for_a_missing_container() {
        let source = std::io::ErrorKind::NotFound.into();
        assert_eq!(
            answer(container::Error::Directory {
                path: "/b/rootfs".into(),
                source
            })
            .0,
            Code::UNKNOWN
        );
    }

    #[test]
    fn what_nucleus_does_not_do_is_unimplemented_by_name() {
        let expected = (Code::UNIMPLEMENTED, "checkpointing is not supported".into());
        assert_eq!(answer(Error::Unimplemented { what: "checkpointing" }), expected);
    }
}
