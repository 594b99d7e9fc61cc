//! Hooks, as far as their form goes; their files are looked at just before they are run ([`crate::hooks`]).

use oci_spec::runtime as oci;

use super::{Error, Hook, Hooks, path, process};

/// Seconds that a hook has if the spec does not say.
const DEFAULT_TIMEOUT: u32 = 10;

/// The six kinds.
pub(super) fn hooks(given: &Option<oci::Hooks>) -> Result<Hooks, Error> {
    let Some(given) = given else {
        return Ok(Hooks::default());
    };
    #[allow(deprecated, reason = "the OCI spec still has them, and clients still send them")]
    let prestart = given.prestart();
    Ok(Hooks {
        prestart: kind("prestart", prestart)?,
        create_runtime: kind("createRuntime", given.create_runtime())?,
        create_container: kind("createContainer", given.create_container())?,
        start_container: kind("startContainer", given.start_container())?,
        poststart: kind("poststart", given.poststart())?,
        poststop: kind("poststop", given.poststop())?,
    })
}

fn kind(kind: &str, given: &Option<Vec<oci::Hook>>) -> Result<Vec<Hook>, Error> {
    let given = given.as_deref().unwrap_or_default();
    given
        .iter()
        .enumerate()
        .map(|(index, hook)| translate(&format!("hooks.{kind}[{index}]"), hook))
        .collect()
}

/// One hook; `field` is where it stands.
pub fn translate(field: &str, hook: &oci::Hook) -> Result<Hook, Error> {
    let path_field = format!("{field}.path");
    path::check_absolute(&path_field, path::text(&path_field, hook.path())?)?;
    let timeout = match hook.timeout() {
        None => DEFAULT_TIMEOUT,
        Some(seconds) => u32::try_from(seconds)
            .ok()
            .filter(|&seconds| seconds > 0)
            .ok_or_else(|| {
                Error::number(
                    format!("{field}.timeout"),
                    seconds,
                    "is not a number of seconds above 0",
                )
            })?,
    };
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some(bad) = args.iter().find(|arg| arg.contains('\0')) {
        return Err(Error::invalid(format!("{field}.args"), bad, "has a NUL in it"));
    }
    let env = process::environment(&format_args!("{field}.env"), hook.env())?;
    Ok(Hook {
        path: hook.path().clone(),
        args: args.to_vec(),
        env,
        timeout,
    })
}
