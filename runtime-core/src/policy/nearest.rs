//! The known name that a misspelt one is most likely to mean.

/// The nearest of `known`, if it is near enough to be meant.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let with_distance = known.map(|known| (distance(&name, known), known));
    let (distance, found) = with_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + found.len() / 4).then_some(found)
}

/// Levenshtein's: how many bytes have to be put in, taken out or exchanged.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let exchanged = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = || ["mode", "no_new_privs", "capabilities.allow"].into_iter();
        assert_eq!(nearest("no-new-priv", known()), Some("no_new_privs"));
        assert_eq!(nearest("Mode", known()), Some("mode"));
        assert_eq!(nearest("capabilites.allow", known()), Some("capabilities.allow"));
        assert_eq!(nearest("qwertyuiop", known()), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
