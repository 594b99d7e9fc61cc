//! The one thing that `containerd-client`'s build script asks of `protoc`: read .proto files, write a descriptor set.
//!
//! It stands in for the real program so that building the tests needs no package of the distribution.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut includes = Vec::new();
    let mut files = Vec::new();
    let mut output = None;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        match text.as_str() {
            "--version" => {
                println!("libprotoc 31.0");
                return Ok(());
            }
            "-I" => includes.extend(arguments.next().map(PathBuf::from)),
            "-o" => output = arguments.next().map(PathBuf::from),
            "--include_imports" | "--include_source_info" | "--experimental_allow_proto3_optional" => {}
            _ if text.starts_with('-') => return Err(format!("protoc: option {text} is not known here").into()),
            _ => files.push(PathBuf::from(argument)),
        }
    }
    let output = output.ok_or("protoc: no -o FILE: descriptor sets are all this program writes")?;
    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let set = compiler.encode_file_descriptor_set();
    std::fs::write(&output, set).map_err(|error| format!("protoc: write {}: {error}", output.display()))?;
    Ok(())
}
