//! `nucleus check`: what this node can do for containers, what it lacks, and what to do about it.

mod node;
mod table;

use std::fmt;

use serde_json::{Value, json};
use table::{Row, State};

/// The rows of docs/nodes.md, for one node.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
}

/// Looks at this node.
pub fn check() -> Table {
    Table {
        rows: table::rows(&node::read()),
    }
}

impl Table {
    /// Whether containers can run here.
    pub fn is_usable(&self) -> bool {
        self.rows.iter().all(|row| row.state != State::Missing)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "part": row.part,
                "name": row.name,
                "state": row.state.word(),
                "found": row.found,
                "without": row.without,
                "todo": row.todo,
            })
        });
        json!({"usable": self.is_usable(), "rows": rows.collect::<Vec<_>>()})
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut part = "";
        for row in &self.rows {
            if row.part != part {
                let gap = if part.is_empty() { "" } else { "\n" };
                writeln!(f, "{gap}{}", row.part)?;
                part = row.part;
            }
            writeln!(f, "  {:<8} {:<18} {}", row.state.word(), row.name, row.found)?;
            if !row.without.is_empty() {
                writeln!(f, "{:30}without: {}", "", row.without)?;
            }
            if !row.todo.is_empty() {
                writeln!(f, "{:30}to do:   {}", "", row.todo)?;
            }
        }
        let verdict = if self.is_usable() {
            "nucleus can run containers here"
        } else {
            "nucleus cannot run containers here: see what is missing"
        };
        writeln!(f, "\n{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_node_is_told_in_words_and_as_json() {
        let table = check();
        let text = table.to_string();
        let json = table.json();
        let rows = json["rows"].as_array().unwrap();
        for part in ["kernel", "cgroups", "security modules", "containerd"] {
            assert!(text.lines().any(|line| line == part), "{text}");
            assert!(rows.iter().any(|row| row["part"] == part), "{json}");
        }
        assert_eq!(json["usable"], table.is_usable());
    }
}
