//! Where a stream goes, as containerd's clients write it: a FIFO's path, or a URI.

use std::path::PathBuf;

use super::error::{Error, shown};

/// PATH_MAX with its final NUL (limits.h): a longer path cannot be opened.
const PATH_MAX: usize = 4096;

/// Where one stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere: /dev/null.
    Null,
    /// A FIFO whose other end a client of containerd holds.
    Fifo(PathBuf),
    /// A file that output is appended to.
    File(PathBuf),
    /// A program that gets the output.
    Binary(Binary),
}

/// A logging program, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binary {
    pub path: PathBuf,
    /// The query's keys and values in their order, after one another.
    pub args: Vec<String>,
    /// `binary-v2`: it has to write a byte when it is ready; to end without one is an error.
    pub strict: bool,
}

impl Target {
    /// Reads a stream's URI. A text without a scheme is a path, taken as it is; in a URI, `%2F` and the like are
    /// decoded, as Go's net/url does for the runc shim.
    pub fn parse(uri: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Uri {
            uri: shown(uri),
            reason,
        };
        if uri.is_empty() {
            return Ok(Self::Null);
        }
        if uri.contains('\0') {
            return Err(wrong("it contains a NUL"));
        }
        let Some((scheme, rest)) = split_scheme(uri) else {
            return Ok(Self::Fifo(absolute(uri.to_owned(), &wrong)?));
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let path = |wrong: &dyn Fn(&'static str) -> Error| {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let path = decode(path, false).ok_or_else(|| wrong("it is not properly percent-encoded"))?;
            absolute(path, wrong)
        };
        match scheme {
            "fifo" => Ok(Self::Fifo(path(&wrong)?)),
            "file" => Ok(Self::File(path(&wrong)?)),
            "binary" | "binary-v2" => Ok(Self::Binary(Binary {
                path: path(&wrong)?,
                args: arguments(query.unwrap_or_default()).ok_or_else(|| wrong("its query is not properly encoded"))?,
                strict: scheme == "binary-v2",
            })),
            _ => Err(Error::Scheme {
                uri: shown(uri),
                scheme: shown(scheme),
            }),
        }
    }
}

/// The scheme and what follows its colon (RFC 3986, 3.1). A path has none, whatever colons it contains.
fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let mut chars = scheme.chars();
    let is_scheme = chars.next()?.is_ascii_alphabetic()
        && chars.all(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

/// The runc shim would take the first part of `binary://a/b` for a host, and run /b.
fn absolute(path: String, wrong: &dyn Fn(&'static str) -> Error) -> Result<PathBuf, Error> {
    if path.contains('\0') {
        return Err(wrong("its path contains a NUL"));
    }
    if !path.starts_with('/') {
        return Err(wrong("its path is not absolute"));
    }
    if path.len() >= PATH_MAX {
        return Err(wrong("its path is longer than 4095 bytes"));
    }
    Ok(PathBuf::from(path))
}

/// The arguments that a query makes: each key, followed by its first value if it has an equals sign or not (then "").
/// That is what the runc shim does, but for its random order.
fn arguments(query: &str) -> Option<Vec<String>> {
    let mut arguments: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key, true)?, decode(value, true)?);
        if key.contains('\0') || value.contains('\0') {
            return None;
        }
        if arguments.iter().all(|(known, _)| *known != key) {
            arguments.push((key, value));
        }
    }
    Some(arguments.into_iter().flat_map(|(key, value)| [key, value]).collect())
}

/// Decodes `%41`, and in a query `+`. None where a `%` is not followed by two digits, or the outcome is not UTF-8.
fn decode(text: &str, query: bool) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if query => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(uri: &str) -> String {
        Target::parse(uri).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_path_is_a_fifo_and_is_not_decoded() {
        assert_eq!(
            Target::parse("/run/a%20b:c?d").unwrap(),
            Target::Fifo("/run/a%20b:c?d".into())
        );
        assert_eq!(Target::parse("").unwrap(), Target::Null);
    }

    #[test]
    fn a_uri_is_decoded() {
        assert_eq!(
            Target::parse("file:///var/a%20b%2f..").unwrap(),
            Target::File("/var/a b/..".into())
        );
        assert_eq!(Target::parse("fifo:///run/a").unwrap(), Target::Fifo("/run/a".into()));
    }

    #[test]
    fn a_query_becomes_arguments_in_its_order() {
        let Target::Binary(binary) = Target::parse("binary:///bin/log?b=2&a=x+y%26&flag&b=3").unwrap() else {
            panic!()
        };
        assert_eq!(binary.args, ["b", "2", "a", "x y&", "flag", ""]);
        assert!(!binary.strict);
        assert!(matches!(
            Target::parse("binary-v2:///l").unwrap(),
            Target::Binary(Binary { strict: true, .. })
        ));
    }

    #[test]
    fn hostile_uris_get_clear_errors() {
        assert!(error("binary://log/it").contains("not absolute"));
        assert!(error("relative/path").contains("not absolute"));
        assert!(error("/a\0b").contains("NUL"));
        assert!(error("file:///a%00b").contains("NUL"));
        assert!(error("file:///a%zz").contains("percent-encoded"));
        assert!(error("binary:///a?%f").contains("query"));
        assert!(error("https://example.org/log").contains("scheme https is not known: fifo, file, binary"));
        let long = error(&format!("/{}", "a".repeat(10_000)));
        assert!(long.contains("4095") && long.len() < 400, "{long}");
    }
}
