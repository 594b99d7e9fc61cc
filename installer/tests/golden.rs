//! Whole nodes, before and after: each directory of `golden` is the root of a node `before`, and `after` an install.
//! Taken away again, it has to be the first one to the byte. `UPDATE_GOLDEN=1` writes `after` anew, to be read before
//! it is kept.

#![allow(clippy::unwrap_used)] // Helpers of tests are not seen as tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use installer::config::Handler;
use installer::distribution::Distribution;
use installer::node::{Node, facts};
use installer::plan::{self, Plan, Wanted};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn node(root: &Path, distribution: Distribution) -> Node {
    Node {
        root: root.to_owned(),
        distribution,
        owner: "nucleus-system/nucleus".to_owned(),
        directory: "/opt/nucleus".to_owned(),
        config: None,
        socket: None,
        state: None,
        unit: None,
        runsc: installer::config::Runsc::default(),
        patience: Duration::from_secs(1),
        dry_run: false,
    }
}

/// Every file below a directory.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    found
}

fn put(root: &Path, tree: &BTreeMap<PathBuf, String>) {
    for (path, text) in tree {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn carry_out(root: &Path, plan: &Plan) {
    for change in &plan.changes {
        let path = root.join(change.path.trim_start_matches('/'));
        let before = fs::read_to_string(&path).ok();
        assert_eq!(before, change.before, "{}", change.path);
        match &change.after {
            Some(text) => put(
                root,
                &BTreeMap::from([(change.path.trim_start_matches('/').into(), text.clone())]),
            ),
            None => fs::remove_file(path).unwrap(),
        }
    }
}

#[test]
fn every_known_node_gets_the_handler_where_it_is_read_and_its_bytes_back() {
    let mut cases: Vec<_> = fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "{cases:?}");
    for case in cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let distribution: Distribution = name.split('-').next().unwrap().parse().unwrap();
        let before = tree(&case.join("before"));
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &before);
        let node = node(root.path(), distribution);
        let wanted = Wanted {
            handlers: vec![Handler::Nucleus],
            directory: "/opt/nucleus".to_owned(),
            owner: node.owner.clone(),
            named_by_path: name.contains("-1.6-"),
        };

        let plan = plan::install(&facts(&node).unwrap(), &wanted).unwrap();
        assert_eq!(plan.restart, distribution != Distribution::K0s, "{name}");
        carry_out(root.path(), &plan);
        let after = tree(root.path());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::remove_dir_all(case.join("after")).ok();
            put(&case.join("after"), &after);
        }
        assert_eq!(after, tree(&case.join("after")), "{name}");

        let again = plan::install(&facts(&node).unwrap(), &wanted).unwrap();
        assert_eq!(again, Plan::default(), "{name}: installed again");
        carry_out(root.path(), &plan::uninstall(&facts(&node).unwrap(), &node.owner));
        assert_eq!(tree(root.path()), before, "{name}: uninstalled");
    }
}
