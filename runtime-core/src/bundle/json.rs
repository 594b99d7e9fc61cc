//! oci-spec's types out of JSON: fast where all is well, precise about the place where it is not.
//!
//! oci-spec wants some things that the OCI spec (and containerd, which writes what Go's types give) does not, and
//! spells two values differently. A document that trips over that is mended on a second, slower way.

use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// The field's path (empty: the whole document), and what is wrong with it.
pub type Refusal = (String, Error);

/// Reads config.json's text.
pub fn spec(text: &str) -> Result<Spec, Refusal> {
    let spec = serde_json::from_str(text).or_else(|_| {
        mended(text.as_bytes(), |document| {
            document.get_mut("process").is_some_and(mend)
        })
    })?;
    // The OCI spec 1.3 knows one more platform than oci-spec does: what it would drop silently is seen here.
    if text.contains("freebsd") {
        foreign(text)?;
    }
    Ok(spec)
}

/// Reads an OCI process.
pub fn process(json: &[u8]) -> Result<Process, Refusal> {
    serde_json::from_slice(json).or_else(|_| mended(json, mend))
}

/// The slow way: mends what may be mended and reads again. Otherwise says where the document is wrong.
fn mended<T: DeserializeOwned>(json: &[u8], mend: impl FnOnce(&mut Value) -> bool) -> Result<T, Refusal> {
    if let Ok(mut document) = serde_json::from_slice(json)
        && mend(&mut document)
    {
        return serde_path_to_error::deserialize(document).map_err(refusal);
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(json))
        .map_err(refusal)
        .and_then(|read| {
            // Only trailing text is left to complain about: the document itself is right.
            serde_json::from_slice::<serde::de::IgnoredAny>(json)
                .map_err(|error| (String::new(), error))
                .map(|_| read)
        })
}

fn refusal(error: serde_path_to_error::Error<Error>) -> Refusal {
    let path = error.path().to_string();
    // `?` stands for a key that was not read to its end; `.` alone is the document.
    let field = path.trim_end_matches('?').trim_end_matches('.');
    (
        shortened(field).unwrap_or_else(|| field.into()),
        bounded(error.into_inner()),
    )
}

/// The error without a megabyte of the document in it: it goes into logs and into gRPC's messages.
fn bounded(error: Error) -> Error {
    let text = error.to_string();
    let message = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    match shortened(message) {
        None => error,
        Some(message) => {
            serde::de::Error::custom(format!("{message} at line {} column {}", error.line(), error.column()))
        }
    }
}

/// The beginning of a long text; None: it is short.
fn shortened(text: &str) -> Option<String> {
    const SHOWN: usize = 1024;
    text.char_indices()
        .nth(SHOWN)
        .map(|(end, _)| format!("{}…", &text[..end]))
}

/// Mends a process in place; says whether there was anything to mend.
fn mend(process: &mut Value) -> bool {
    let Some(fields) = process.as_object_mut() else {
        return false;
    };
    let mut changed = false;
    // Not required by the OCI spec's schema: root, then.
    if fields.get("user").is_none_or(Value::is_null) {
        fields.insert("user".into(), Value::Object(serde_json::Map::new()));
        changed = true;
    }
    let flags = fields
        .get_mut("scheduler")
        .and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let spelling = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = spelling.into();
        changed = true;
    }
    changed
}

#[derive(serde::Deserialize)]
struct Foreign {
    #[serde(default)]
    freebsd: Option<Value>,
}

fn foreign(text: &str) -> Result<(), Refusal> {
    let Foreign { freebsd } = serde_json::from_str(text).map_err(|error| (String::new(), error))?;
    match freebsd {
        None => Ok(()),
        Some(_) => Err((
            "freebsd".into(),
            serde::de::Error::custom("this is a runtime for Linux; remove the field"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_user_is_roots() {
        let process = process(br#"{"cwd": "/", "args": ["true"]}"#).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
    }

    #[test]
    fn scheduler_flags_are_known_by_their_names_in_the_oci_spec() {
        for flag in [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
        ] {
            let scheduler = format!(r#"{{"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_{flag}"]}}"#);
            let json = format!(r#"{{"cwd": "/", "user": {{}}, "scheduler": {scheduler}}}"#);
            process(json.as_bytes()).unwrap();
        }
    }

    #[test]
    fn an_exec_process_that_is_wrong_is_told_by_field() {
        let (field, error) = process(br#"{"cwd": "/", "user": {"gid": 4294967296}}"#).unwrap_err();
        assert_eq!(field, "user.gid");
        assert!(error.to_string().contains("4294967296"), "{error}");
        let (field, _) = process(br#"{"cwd": 5, "args": []}"#).unwrap_err();
        assert_eq!(field, "cwd");
    }

    #[test]
    fn an_error_never_repeats_a_megabyte_of_the_document() {
        let long = "x".repeat(1 << 20);
        let (_, error) = spec(&format!(r#"{{"linux": {{"namespaces": [{{"type": "{long}"}}]}}}}"#)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("unknown variant `xxx") && text.len() < 2048,
            "{}",
            text.len()
        );
        assert!(
            text.contains("… at line 1 column ") && error.line() == 1,
            "{}",
            &text[1000..]
        );
        let (field, _) = spec(&format!(r#"{{"linux": {{"netDevices": {{"{long}": 5}}}}}}"#)).unwrap_err();
        assert!(
            field.starts_with("linux.netDevices.xxx") && field.len() < 2048,
            "{}",
            field.len()
        );
    }

    #[test]
    fn text_behind_the_document_is_refused() {
        let (field, error) = process(br#"{"cwd": "/", "user": {}} {}"#).unwrap_err();
        assert_eq!(field, "");
        assert!(error.to_string().contains("trailing characters"), "{error}");
    }

    #[test]
    fn another_platforms_section_is_refused_and_the_word_alone_is_not() {
        assert_eq!(spec(r#"{"freebsd": {"jail": {}}}"#).unwrap_err().0, "freebsd");
        spec(r#"{"hostname": "freebsd"}"#).unwrap();
        spec(r#"{"freebsd": null}"#).unwrap();
    }
}
