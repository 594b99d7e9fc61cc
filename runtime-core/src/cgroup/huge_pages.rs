//! The sizes of huge pages that this host has.

use std::fs;

/// The sizes that this kernel has, as the hugetlb controller writes them.
pub(super) fn page_sizes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| page_size(entry.file_name().to_str()?))
        .collect()
}

/// `hugepages-2048kB` is `2MB` (mem_fmt of mm/hugetlb_cgroup.c).
fn page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        0x10_0000.. => format!("{}GB", kilobytes >> 20),
        0x400.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_written_as_the_controller_does() {
        let sizes = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "other"].map(page_size);
        assert_eq!(
            sizes,
            [Some("64KB".into()), Some("2MB".into()), Some("1GB".into()), None]
        );
    }
}
