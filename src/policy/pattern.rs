//! Lists of tool names and globs.

use super::name::folded;
use globset::{GlobBuilder, GlobMatcher};

/// A list of names and globs, in the order of the file.
#[derive(Debug)]
pub(super) struct ToolPatterns(Vec<ToolPattern>);

#[derive(Debug)]
struct ToolPattern {
    text: String,
    glob: Option<GlobMatcher>,
    /// The same in the one form of names.
    folded: String,
    folded_glob: Option<GlobMatcher>,
}

impl ToolPatterns {
    /// Compiles the list; gives back the pattern and the reason when one is wrong.
    pub(super) fn new(patterns: Vec<String>) -> Result<Self, (String, String)> {
        let glob = |pattern: &str| GlobBuilder::new(pattern).backslash_escape(true).build();
        let compile = |text: String| {
            if text.trim().is_empty() {
                return Err((text, "a tool name must not be empty".to_owned()));
            }
            let folded = folded(&text);
            if !text.contains(['*', '?', '[', '{', '\\']) {
                return Ok(ToolPattern { text, glob: None, folded, folded_glob: None });
            }
            match (glob(&text), glob(&folded)) {
                (Ok(glob), Ok(of_folded)) => Ok(ToolPattern {
                    text,
                    glob: Some(glob.compile_matcher()),
                    folded,
                    folded_glob: Some(of_folded.compile_matcher()),
                }),
                (Err(error), _) | (_, Err(error)) => Err((text, error.to_string())),
            }
        };
        patterns.into_iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// The first pattern that `tool` matches exactly as it is spelled, and whether it is a glob. What is not plain ASCII
    /// must be named in full.
    pub(super) fn matching(&self, tool: &str) -> Option<(&str, bool)> {
        self.0
            .iter()
            .find(|pattern| match &pattern.glob {
                None => pattern.text == tool,
                Some(glob) => tool.is_ascii() && glob.is_match(tool),
            })
            .map(|pattern| (pattern.text.as_str(), pattern.glob.is_some()))
    }

    /// Each pattern as the file has it, and whether it is a glob.
    pub(super) fn listed(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|pattern| (pattern.text.as_str(), pattern.glob.is_some()))
    }

    /// The first pattern that some spelling of `tool` matches, and whether it is a glob.
    pub(super) fn matching_any_spelling(&self, tool: &str) -> Option<(&str, bool)> {
        let form = folded(tool);
        self.0
            .iter()
            .find(|pattern| match &pattern.folded_glob {
                None => pattern.folded == form,
                Some(glob) => {
                    glob.is_match(&form) || pattern.glob.as_ref().is_some_and(|glob| glob.is_match(tool))
                }
            })
            .map(|pattern| (pattern.text.as_str(), pattern.glob.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_exactly_and_globs_cross_slashes() {
        let list = ToolPatterns::new(vec!["read_file".into(), "fs/*".into()]).unwrap();
        assert_eq!(list.matching("read_file"), Some(("read_file", false)));
        assert_eq!(list.matching("fs/a/b"), Some(("fs/*", true)));
        for other in ["read_file ", "READ_FILE", "read_files", "xfs/a"] {
            assert_eq!(list.matching(other), None, "{other}");
        }
    }

    #[test]
    fn any_spelling_matches_for_denying_and_only_the_one_for_allowing() {
        let list = ToolPatterns::new(vec!["delete_file".into(), "Admin_*".into()]).unwrap();
        for spelling in
            ["Delete_File", "delete\u{200b}_file", "\u{ff44}elete_file", "ADMIN_x", "admin_\u{e9}"]
        {
            assert!(list.matching_any_spelling(spelling).is_some(), "{spelling:?}");
            assert_eq!(list.matching(spelling), None, "{spelling:?}");
        }
        assert_eq!(list.matching_any_spelling("delete_files"), None);
        assert_eq!(list.matching("Admin_\u{e9}"), None, "a glob takes no name that is not plain");
        assert_eq!(list.matching("Admin_e"), Some(("Admin_*", true)));
    }
}
