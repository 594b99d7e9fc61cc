//! One normaliser for every path in the container.

use std::fmt::Display;
use std::path::Path;

use super::Error;

/// Bytes of a path with its terminating NUL, see path_resolution(7).
const PATH_MAX: usize = 4096;
/// Bytes of one component.
const NAME_MAX: usize = 255;

/// A path as text. JSON is UTF-8, so a path out of it always is; one made otherwise may not be.
pub(super) fn text<'a>(field: &dyn Display, path: &'a Path) -> Result<&'a str, Error> {
    path.to_str()
        .ok_or_else(|| Error::invalid(field, path.to_string_lossy(), "is not UTF-8"))
}

/// What every path has to be, wherever it leads: not empty, without NUL, short enough for the kernel.
pub(super) fn check(field: &dyn Display, path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Err(Error::missing(field));
    }
    if path.contains('\0') {
        return Err(Error::invalid(field, path, "has a NUL in it"));
    }
    if path.len() >= PATH_MAX || path.split('/').any(|name| name.len() > NAME_MAX) {
        return Err(Error::invalid(field, path, "is too long for a path"));
    }
    Ok(())
}

/// [`check`], and it has to be absolute.
pub(super) fn check_absolute(field: &dyn Display, path: &str) -> Result<(), Error> {
    check(field, path)?;
    if path.starts_with('/') {
        Ok(())
    } else {
        Err(Error::invalid(field, path, "is not an absolute path"))
    }
}

/// The absolute path that `path` names below `/`: no `.`, no `..`, no doubled or trailing `/`. `..` stops at the root,
/// so the result never leaves it. A purely textual rule: whoever opens the result must resolve links below the rootfs.
pub(super) fn clean(path: &str) -> String {
    let mut cleaned = String::with_capacity(path.len() + 1);
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => cleaned.truncate(cleaned.rfind('/').unwrap_or(0)),
            name => {
                cleaned.push('/');
                cleaned.push_str(name);
            }
        }
    }
    if cleaned.is_empty() {
        cleaned.push('/');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleaned_path_is_absolute_and_stays_below_the_root() {
        for (path, cleaned) in [
            ("/", "/"),
            ("", "/"),
            ("a/b", "/a/b"),
            ("//a/./b//", "/a/b"),
            ("/a/../../../b", "/b"),
            ("../..", "/"),
            ("/a/b/..", "/a"),
            ("/...", "/..."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn paths_that_no_system_call_could_take_are_refused() {
        assert!(check(&"f", "/a").is_ok());
        assert_eq!(check(&"f", "").unwrap_err().to_string(), "f is missing");
        assert_eq!(
            check(&"f", "/a\0b").unwrap_err().to_string(),
            r#"f: "/a\0b" has a NUL in it"#
        );
        let deep = "/a".repeat(10_000);
        let error = check(&"f", &deep).unwrap_err().to_string();
        assert!(
            error.ends_with("… (20000 bytes) is too long for a path") && error.len() < 200,
            "{error}"
        );
        assert!(check(&"f", &format!("/{}", "x".repeat(256))).is_err());
        let error = check_absolute(&"f", "a/b").unwrap_err().to_string();
        assert_eq!(error, r#"f: "a/b" is not an absolute path"#);
    }
}
