//! The `-info` action: what this runtime is and can do, read by containerd's CRI plugin when it starts.

use std::io::{self, Write as _};

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageField};

use runtime_core::backend::Choice;
use runtime_core::policy;

use crate::input;
use crate::service::options::Options;

/// Name of the runtime, as `runtime_type` in containerd's configuration has it.
pub const NAME: &str = "io.containerd.nucleus.v2";
/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, where the build says so.
pub const REVISION: &str = match option_env!("NUCLEUS_REVISION") {
    Some(revision) => revision,
    None => "",
};

/// What containerd's `typeurl` calls the OCI features document.
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options cannot be read.
    #[error("read the options from stdin")]
    Input(#[source] io::Error),
    /// The options are no `Any`.
    #[error("decode the options")]
    Options(#[source] protobuf::Error),
    /// The features document cannot be written as JSON.
    #[error("encode the features")]
    Features(#[source] serde_json::Error),
    /// containerd does not listen.
    #[error("write the answer to stdout")]
    Answer(#[source] io::Error),
}

/// Runs the action.
pub fn run() -> Result<(), Error> {
    let input = input::read().map_err(Error::Input)?;
    let info = info(&input)?
        .write_to_bytes()
        .expect("a message of strings can always be encoded");
    io::stdout().lock().write_all(&info).map_err(Error::Answer)
}

fn info(options: &[u8]) -> Result<RuntimeInfo, Error> {
    let version = RuntimeVersion {
        version: VERSION.into(),
        revision: REVISION.into(),
        ..RuntimeVersion::new()
    };
    let options = match options {
        [] => MessageField::none(),
        bytes => MessageField::some(Any::parse_from_bytes(bytes).map_err(Error::Options)?),
    };
    let features = features(options.as_ref())?;
    Ok(RuntimeInfo {
        name: NAME.into(),
        version: MessageField::some(version),
        options,
        features: MessageField::some(Any {
            type_url: FEATURES_TYPE.into(),
            value: features,
            ..Any::new()
        }),
        ..RuntimeInfo::new()
    })
}

/// Those of the runtime that this handler's containers get. A configuration that cannot be used is told by each Create.
fn features(options: Option<&Any>) -> Result<Vec<u8>, Error> {
    let handler = Options::parse(options)
        .map(|options| options.policy)
        .unwrap_or_default();
    let node = policy::node::read().unwrap_or_default();
    let choice = policy::resolve(&node, &handler, []).map_or(Choice::Native, |policy| Choice::of(&policy));
    serde_json::to_vec(&choice.features()).map_err(Error::Features)
}

/// Prints the version as containerd's own shims do for `-v`.
pub fn print_version() -> Result<(), Error> {
    let text = format!("containerd-shim-nucleus-v2:\n  Version:  {VERSION}\n  Revision: {REVISION}\n\n");
    io::stdout().lock().write_all(text.as_bytes()).map_err(Error::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_reads_back_the_options_it_gave() {
        let options = Any {
            type_url: "containerd.runc.v1.Options".into(),
            ..Any::new()
        };
        let info = info(&options.write_to_bytes().unwrap()).unwrap();
        assert_eq!(info.options.as_ref(), Some(&options));
        assert_eq!(info.name, NAME);
    }

    #[test]
    fn a_handler_of_gvisor_does_not_claim_what_the_native_runtime_can() {
        let body = "runtime = \"gvisor\"\n";
        let mut value = vec![0x1a, u8::try_from(body.len()).unwrap()];
        value.extend(body.as_bytes());
        let options = Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value,
            ..Any::new()
        };
        let features = |options: &[u8]| -> serde_json::Value {
            serde_json::from_slice(&info(options).unwrap().features.value).unwrap()
        };
        let idmap = "/linux/mountExtensions/idmap/enabled";
        assert_eq!(features(&[]).pointer(idmap), Some(&true.into()));
        assert_eq!(
            features(&options.write_to_bytes().unwrap()).pointer(idmap),
            Some(&false.into())
        );
    }

    #[test]
    fn the_features_are_json_under_the_type_url_that_containerd_knows() {
        let info = info(&[]).unwrap();
        assert_eq!(info.features.type_url, FEATURES_TYPE);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert!(features["ociVersionMin"].is_string(), "{features}");
    }
}
