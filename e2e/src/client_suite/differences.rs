//! Tests that pass with the runc shim and are not meant to pass with nucleus, each with its reason. They are not run
//! with it.

const DIFFERENCES: [(&str, &str); 1] = [(
    "TestKillContainerDeletedByRunc",
    "it has the program runc delete the container behind the shim's back; runc knows of none here",
)];

/// A pattern of Go's for `-test.skip`.
pub fn pattern() -> String {
    format!("^({})$", DIFFERENCES.map(|(name, _)| name).join("|"))
}

/// Why a test is not meant to pass, if so. A test's reason holds for its subtests too.
pub fn reason(test: &str) -> Option<&'static str> {
    let covers = |name: &str| test == name || test.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    DIFFERENCES
        .iter()
        .find(|(name, _)| covers(name))
        .map(|(_, reason)| *reason)
}
