//! Lists of tool names and globs.

use globset::{GlobBuilder, GlobMatcher};

/// A list of names and globs, in the order of the file.
#[derive(Debug)]
pub(super) struct ToolPatterns(Vec<(String, Option<GlobMatcher>)>);

impl ToolPatterns {
    /// Compiles the list; gives back the pattern and the reason when one is wrong.
    pub(super) fn new(patterns: Vec<String>) -> Result<Self, (String, String)> {
        let compile = |pattern: String| {
            if pattern.trim().is_empty() {
                return Err((pattern, "a tool name must not be empty".to_owned()));
            }
            if !pattern.contains(['*', '?', '[', '{', '\\']) {
                return Ok((pattern, None));
            }
            match GlobBuilder::new(&pattern).backslash_escape(true).build() {
                Ok(glob) => Ok((pattern, Some(glob.compile_matcher()))),
                Err(error) => Err((pattern, error.to_string())),
            }
        };
        patterns.into_iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// The first pattern that `tool` matches, and whether it is a glob.
    pub(super) fn matching(&self, tool: &str) -> Option<(&str, bool)> {
        self.0
            .iter()
            .find(|(name, glob)| glob.as_ref().map_or(name == tool, |glob| glob.is_match(tool)))
            .map(|(name, glob)| (name.as_str(), glob.is_some()))
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
}
