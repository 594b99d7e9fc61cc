//! Which runsc is new enough.

/// The release that nucleus is tested with, as a date: what it says to the sentry, and how, is that release's.
pub const MINIMUM: u32 = 20_260_224;

/// The date in what `runsc --version` prints: `runsc version release-20260224.0`, or Debian's `0.0~20221219.0`.
pub fn date(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains("version"))?;
    line.split(|character: char| !character.is_ascii_digit())
        .filter(|digits| digits.len() == 8)
        .find_map(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_release_is_its_version() {
        assert_eq!(
            date("runsc version release-20260224.0\nspec: 1.1.0-rc.1\n"),
            Some(MINIMUM)
        );
        assert_eq!(date("runsc version 0.0~20221219.0-1+b5\n"), Some(20_221_219));
        assert_eq!(
            date("runsc version release-20260302.0-12-g0123456789ab\n"),
            Some(20_260_302)
        );
    }

    #[test]
    fn what_has_no_date_has_no_version() {
        assert_eq!(date("runsc version VERSION_MISSING\nspec: 1.1.0\n"), None);
        assert_eq!(date(""), None);
    }
}
