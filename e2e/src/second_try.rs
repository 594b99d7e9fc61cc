//! A second try for a test that failed.
//!
//! Tests wait for what they can see, with a limit; a machine that does many things at once can still be slower than any
//! limit that is of use, and a test can race with what it looks at. So a few tests a run may fail once, which is
//! printed each time and again at the end. What fails twice has failed, and so has what fails when the few are used up.

use std::cell::RefCell;

/// How many tests of a run get one.
const MOST: usize = 4;

thread_local! {
    static GRANTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Whether the test `title` may be tried again; tells why it failed if so.
pub fn grant(title: &str, error: &str) -> bool {
    GRANTED.with_borrow_mut(|granted| {
        let is_granted = granted.len() < MOST;
        if is_granted {
            println!("again {title}\n{error}");
            granted.push(title.to_owned());
        }
        is_granted
    })
}

/// Names the tests that had a second try, for the end of a run.
pub fn summary() -> Option<String> {
    GRANTED.with_borrow(|granted| {
        let names = granted.join("; ");
        (!granted.is_empty()).then(|| format!("note  tried a second time: {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_few_tests_are_tried_again_and_they_are_named() {
        assert_eq!(summary(), None);
        let granted = (0..MOST + 2)
            .filter(|number| grant(&format!("t{number}"), "why"))
            .count();
        assert_eq!(granted, MOST);
        assert_eq!(summary().unwrap(), "note  tried a second time: t0; t1; t2; t3");
    }
}
