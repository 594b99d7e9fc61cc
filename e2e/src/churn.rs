//! The suite `churn`: many containers, one after another, and shims that die.

use crate::harness::Registry;

pub fn register(_registry: &mut Registry) {}
