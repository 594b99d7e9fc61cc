//! The options of a Create request, as any of the messages that clients send: an error or a value, never a panic.
#![no_main]

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use libfuzzer_sys::fuzz_target;

// The shim is a program and has no library to link with: the file stands alone.
#[allow(dead_code)]
#[path = "../../shim/src/service/options.rs"]
mod options;

const TYPES: [&str; 4] = [
    options::RUNC_OPTIONS,
    options::RUNTIME_OPTIONS,
    options::CREATE_OPTIONS,
    "some.other.Type",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, value)) = bytes.split_first() else { return };
    let any = Any {
        type_url: TYPES[usize::from(choice) % TYPES.len()].to_owned(),
        value: value.to_vec(),
        ..Any::default()
    };
    if let Err(error) = options::Options::parse(Some(&any)) {
        assert!(!error.to_string().is_empty());
    }
});
