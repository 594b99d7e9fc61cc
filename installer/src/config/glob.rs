//! The patterns of containerd's `imports`.

/// Whether a file's name matches a pattern with `*` and `?`. Character classes match nothing: what we cannot read, we
/// do not rely on.
pub fn matches(pattern: &str, name: &str) -> bool {
    fn at(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => at(rest, name) || name.split_first().is_some_and(|(_, name)| at(pattern, name)),
            (Some((b'?', rest)), Some((_, name))) => at(rest, name),
            (Some((one, rest)), Some((other, name))) if one == other => at(rest, name),
            _ => false,
        }
    }
    at(pattern.as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.toml", "nucleus.toml", true),
            ("*.toml", "nucleus.conf", false),
            ("nvidia*.toml", "nucleus.toml", false),
            ("n*s.t?ml", "nucleus.toml", true),
            ("*", "nucleus.toml", true),
            ("[a-z]*", "nucleus.toml", false),
            ("nucleus.toml", "nucleus.toml", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
