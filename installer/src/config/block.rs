//! Our part of a file that is not ours: some lines between two marks, at its end.
//!
//! TOML lets a table stand anywhere, so nothing before the block is touched: neither comments nor order nor blanks.
//! Taken out again, the file has the bytes that it had, also when its owner edited the rest of it meanwhile.

/// The text before the owner's name in the first line.
const BEGIN: &str = "# BEGIN nucleus, of ";
/// The last line.
const END: &str = "# END nucleus";

/// Our block as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The release that wrote it: `namespace/name`.
    pub owner: String,
    /// The file without it.
    pub without: String,
    /// What was made for it.
    pub made: Made,
}

/// What was not there before the block, so that it goes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The file.
    pub file: bool,
    /// The directory that the file is in.
    pub directory: bool,
}

impl Made {
    fn line(self) -> &'static str {
        match (self.file, self.directory) {
            (false, _) => "",
            (true, false) => "# Made for it: the file.\n",
            (true, true) => "# Made for it: the file and its directory.\n",
        }
    }

    fn read(block: &str) -> Self {
        let all = [(true, true), (true, false)].map(|(file, directory)| Self { file, directory });
        all.into_iter()
            .find(|made| block.contains(made.line()))
            .unwrap_or_default()
    }
}

/// Looks for our block.
pub fn find(text: &str) -> Option<Block> {
    let (begin, owner) = line_starts(text).find_map(|start| {
        let line = text[start..].lines().next().unwrap_or_default();
        let rest = line.strip_prefix(BEGIN)?;
        Some((start, rest.split(". ").next().unwrap_or(rest).to_owned()))
    })?;
    let end = line_starts(text).find(|&start| start > begin && text[start..].trim_end_matches('\r').starts_with(END));
    // A block that was cut off goes to the end of the file: nothing of ours stays.
    let end = end.map_or(text.len(), |start| {
        text[start..].find('\n').map_or(text.len(), |at| start + at + 1)
    });
    // The line break before it is ours too, see `append`.
    let mut without = text[..begin].strip_suffix('\n').unwrap_or(&text[..begin]).to_owned();
    without.push_str(&text[end..]);
    let made = Made::read(&text[begin..end]);
    Some(Block { owner, without, made })
}

/// The file with a block of these lines at its end.
pub fn append(text: &str, owner: &str, made: Made, body: &str) -> String {
    // One line break goes in front whether the last line has its own or not, so that taking it away gives back either.
    let made = made.line();
    format!(
        "{text}\n{BEGIN}{owner}. Made by nucleus-installer and taken out by it; edits are lost.\n{made}{body}{END}\n"
    )
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .filter(|&start| start < text.len())
}

#[cfg(test)]
mod tests {
    use super::{Made, append, find};

    #[test]
    fn a_block_taken_out_gives_back_every_byte() {
        for text in [
            "",
            "\n",
            "a = 1",
            "a = 1\n",
            "a = 1\n\n\n",
            "a = 1\r\n",
            "# ü\n[x]\n  y = 2 # z",
        ] {
            let with = append(text, "ns/name", Made::default(), "[b]\nc = 1\n");
            let block = find(&with).unwrap();
            assert_eq!(block.without, text);
            assert_eq!(block.owner, "ns/name");
        }
    }

    #[test]
    fn what_was_made_for_a_block_is_remembered() {
        for (file, directory) in [(false, false), (true, false), (true, true)] {
            let made = Made { file, directory };
            assert_eq!(find(&append("", "ns/name", made, "")).unwrap().made, made);
        }
    }

    #[test]
    fn edits_around_a_block_stay() {
        let with = append("a = 1\n", "ns/name", Made::default(), "[b]\n");
        let edited = format!("# mine\n{with}[after]\nd = 1\n");
        assert_eq!(find(&edited).unwrap().without, "# mine\na = 1\n[after]\nd = 1\n");
    }

    #[test]
    fn a_block_without_an_end_reaches_to_the_end_of_the_file() {
        let with = append("a = 1\n", "ns/name", Made::default(), "[b]\n");
        let cut = with.strip_suffix("# END nucleus\n").unwrap();
        assert_eq!(find(cut).unwrap().without, "a = 1\n");
    }

    #[test]
    fn a_file_of_others_has_no_block() {
        assert_eq!(find("version = 2\n# nucleus\n"), None);
    }
}
