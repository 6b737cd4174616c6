//! What a failed program said last, for whoever watches: beside what was missing afterwards, why it was.

/// Lines that are told.
const LINES: usize = 3;
/// Characters of each.
const WIDTH: usize = 300;

/// The last words in what a program printed: what tells most of why it failed, without the trace of calls.
#[must_use]
pub fn last(printed: &str) -> Vec<String> {
    // Frames of a trace and the values below an error are indented; node ends with its own version.
    let telling = |line: &&str| {
        !line.starts_with(char::is_whitespace)
            && line.chars().any(char::is_alphanumeric)
            && !line.starts_with("Node.js v")
    };
    let told: Vec<&str> = printed.lines().filter(telling).collect();
    told[told.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| {
            let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            let shown: String = line.chars().take(WIDTH).map(visible).collect();
            let cut = if line.chars().nth(WIDTH).is_some() { "…" } else { "" };
            format!("{shown}{cut}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_error_and_not_the_trace_below_it() {
        for (printed, expected) in [
            (
                "node:internal/modules:301\n  throw new E();\n        ^\n\nError [ERR_MODULE_NOT_FOUND]: Cannot find package 'x'\n    at f (y:1)\n  code: 'E'\n}\n\nNode.js v22.1.0\n",
                vec!["node:internal/modules:301", "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'x'"],
            ),
            (
                "Traceback (most recent call last):\n  File \"a\", line 1\n    import x\nModuleNotFoundError: No module named 'x'\n",
                vec!["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'x'"],
            ),
            ("one\ntwo\nthree\nfour", vec!["two", "three", "four"]),
            ("", vec![]),
            ("a\u{1b}[2Jb", vec!["a\u{fffd}[2Jb"]),
        ] {
            assert_eq!(last(printed), expected, "{printed}");
        }
        assert!(last(&"é".repeat(5000))[0].chars().count() <= WIDTH + 1);
    }
}
