//! What is wrong with a pack, one thing at a time.

use serde::Serialize;

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name of the check, e.g. `payload_digest`.
    pub check: &'static str,
    /// File within the pack (`#` and a JSON pointer or a line where that is known), or the pack itself.
    pub path: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Finding {
    /// `check` did not hold at `path`.
    pub fn new(
        check: &'static str,
        path: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            check,
            path: path.into(),
            expected: shortened(expected.into()),
            found: shortened(found.into()),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {} ({})", self.path, self.expected, self.found, self.check)
    }
}

/// Hostile content may be long; a message must not be.
fn shortened(text: String) -> String {
    const LIMIT: usize = 400;
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            // Control characters must not reach a terminal; other text stays readable.
            if c.is_control() { c.escape_debug().collect::<Vec<_>>() } else { vec![c] }
        })
        .take(LIMIT + 1)
        .collect();
    if escaped.chars().count() > LIMIT {
        escaped.chars().take(LIMIT).chain("…".chars()).collect()
    } else {
        escaped
    }
}
