//! Tests that pass with the runc shim and are not meant to pass with nucleus, each with its reason.

const DIFFERENCES: [(&str, &str); 0] = [];

/// Why a test is not meant to pass, if so. A test's reason holds for its subtests too.
pub fn reason(test: &str) -> Option<&'static str> {
    let covers = |name: &str| test == name || test.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    DIFFERENCES
        .iter()
        .find(|(name, _)| covers(name))
        .map(|(_, reason)| *reason)
}
