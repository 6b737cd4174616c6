//! One thing that had to hold, and what was found.

use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// One thing that had to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// Stable dotted name, e.g. `health.kernel_layer`.
    pub name: String,
    /// Whether it held.
    pub held: bool,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Assertion {
    /// Holds when both read the same.
    pub fn equal(name: &str, expected: impl Display, found: impl Display) -> Self {
        let (expected, found) = (expected.to_string(), found.to_string());
        Self { name: name.to_owned(), held: expected == found, expected, found }
    }

    /// Holds when `held` says so.
    pub fn that(name: &str, held: bool, expected: impl Display, found: impl Display) -> Self {
        Self { name: name.to_owned(), held, expected: expected.to_string(), found: found.to_string() }
    }
}

impl Display for Assertion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.name, self.expected, self.found)
    }
}
